"""What the first line of a request asks for, and which paths of an engine an inference key reaches.

An inference request is recognised by its exact path, and the engine is sent the path of a table, not the client's. A
path that servers are known to read in more than one way is refused before anything else is decided.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote_to_bytes

from garrison.base.errors import InvalidError, NotFoundError

__all__ = ["LLAMA_ROUTER", "Api", "Asked", "Kind", "ModelIn", "classify", "path_at", "reaches", "switches"]

LLAMA_ROUTER = "llama_cpp as a router"
"""The engine of a llama-server that has several models. Its list of models has the arguments of each of them, which are
not for everybody."""


class Kind(StrEnum):
    """Who answers."""

    INFERENCE = "inference"
    MODELS = "models"
    MODEL = "model"
    LLAMA_CPP = "llama-cpp"
    UPSTREAM = "upstream"
    PROXY = "proxy"
    """An instance, for managers: whatever it answers."""
    ROUTER = "router"
    """The calls of a llama-server that is a router, answered by the gateway."""
    CONTROL = "control"
    """The control process, which decides by itself."""


class Api(StrEnum):
    """A family of inference requests."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    RESPONSE = "response"
    """One that was made before, by its id."""
    INPUT_TOKENS = "input-tokens"
    """How many tokens a request for a response would have."""
    MESSAGES = "messages"
    COUNT_TOKENS = "count-tokens"
    RERANK = "rerank"
    SCORE = "score"
    POOLING = "pooling"
    CLASSIFY = "classify"
    TOKENIZE = "tokenize"
    DETOKENIZE = "detokenize"
    INFILL = "infill"
    TRANSCRIPTIONS = "transcriptions"
    TRANSLATIONS = "translations"
    SPEECH = "speech"
    IMAGES = "images"


class ModelIn(StrEnum):
    """Where a request names its model."""

    JSON = "json"
    FORM = "form"
    PATH = "path"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for.

    Attributes:
        path: as the client wrote it, without the query; empty for `control` and where `rest` holds what matters.
        at: the path at engines for which a table says what they have.
        name: the model, the instance, or the id of a response; for `router`, the call.
        rest: what follows the name of an instance, as the client wrote it, without the query.
        reads: it only looks at an instance, with GET or HEAD.
    """

    kind: Kind
    api: Api | None = None
    model_in: ModelIn = ModelIn.NOWHERE
    path: bytes = b""
    at: bytes = b""
    name: str = ""
    rest: bytes = b""
    reads: bool = False


_JSON: tuple[tuple[Api, str], ...] = (  # of several paths, the first is the engines'
    (Api.CHAT, "/v1/chat/completions"),
    (Api.COMPLETIONS, "/v1/completions"),
    (Api.EMBEDDINGS, "/v1/embeddings"),
    (Api.RESPONSES, "/v1/responses"),
    (Api.INPUT_TOKENS, "/v1/responses/input_tokens"),
    (Api.MESSAGES, "/v1/messages"),
    (Api.COUNT_TOKENS, "/v1/messages/count_tokens"),
    (Api.RERANK, "/rerank /reranking /v1/rerank /v1/reranking /v1/re-rank /v1/re-ranking /v2/rerank"),
    (Api.SCORE, "/score /v1/score"),
    (Api.POOLING, "/pooling /v1/pooling"),
    (Api.CLASSIFY, "/classify /v1/classify"),
    (Api.TOKENIZE, "/tokenize /v1/tokenize"),
    (Api.DETOKENIZE, "/detokenize /v1/detokenize"),
    (Api.INFILL, "/infill /v1/infill"),
    (Api.SPEECH, "/v1/audio/speech"),
    (Api.IMAGES, "/v1/images/generations"),
)
_FORMS: tuple[tuple[Api, str], ...] = (
    (Api.TRANSCRIPTIONS, "/v1/audio/transcriptions"),
    (Api.TRANSLATIONS, "/v1/audio/translations"),
    (Api.IMAGES, "/v1/images/edits"),
    (Api.IMAGES, "/v1/images/variations"),
)


def _inference() -> dict[bytes, Asked]:
    found: dict[bytes, Asked] = {}
    for rows, where in ((_JSON, ModelIn.JSON), (_FORMS, ModelIn.FORM)):
        for api, words in rows:
            paths = words.encode().split()
            found |= {path: Asked(Kind.INFERENCE, api, where, path, paths[0]) for path in paths}
    return found


_INFERENCE = _inference()
_MODELS = Asked(Kind.MODELS)
_CONTROL = Asked(Kind.CONTROL)
_TABLE: Mapping[tuple[bytes, bytes], Asked] = {
    **{(b"POST", path): asked for path, asked in _INFERENCE.items()},
    **{(method, path): _MODELS for method in (b"GET", b"HEAD") for path in (b"/v1/models", b"/v1/models/")},
    **{(method, b"/models"): Asked(Kind.ROUTER, name="list") for method in (b"GET", b"HEAD")},
    (b"GET", b"/models/sse"): Asked(Kind.ROUTER, name="sse"),
    (b"POST", b"/models/load"): Asked(Kind.ROUTER, model_in=ModelIn.JSON, name="load"),
    (b"POST", b"/models/unload"): Asked(Kind.ROUTER, model_in=ModelIn.JSON, name="unload"),
}

_GENERAL = frozenset(
    {Api.CHAT, Api.COMPLETIONS, Api.EMBEDDINGS, Api.RESPONSES, Api.MESSAGES, Api.COUNT_TOKENS, Api.RERANK,
     Api.TOKENIZE, Api.DETOKENIZE, Api.TRANSCRIPTIONS}
)  # fmt: skip
_LLAMA_APIS = _GENERAL | {Api.INFILL, Api.INPUT_TOKENS}
_APIS: Mapping[str, frozenset[Api]] = {
    "vllm": frozenset(Api) - {Api.INFILL, Api.INPUT_TOKENS},
    "llama_cpp": _LLAMA_APIS,
    LLAMA_ROUTER: _LLAMA_APIS,
    "mlx_lm": frozenset({Api.CHAT, Api.COMPLETIONS}),
    "sim": frozenset({Api.CHAT, Api.COMPLETIONS, Api.EMBEDDINGS, Api.TOKENIZE}),
}
_READS: Mapping[str, frozenset[bytes]] = {  # of others, nothing but these two is known to be harmless
    "vllm": frozenset({b"/health", b"/v1/models", b"/ping", b"/version", b"/load", b"/metrics", b"/v1/realtime"}),
    "llama_cpp": frozenset({b"/health", b"/v1/models", b"/v1/health", b"/props", b"/slots", b"/metrics"}),
    LLAMA_ROUTER: frozenset({b"/health", b"/v1/health", b"/props", b"/slots", b"/metrics"}),
    "sim": frozenset({b"/health", b"/v1/models", b"/ping", b"/version", b"/load", b"/metrics"}),
}
_OTHER_READS = frozenset({b"/health", b"/v1/models"})
_SWITCHES: Mapping[str, frozenset[bytes]] = {"vllm": frozenset({b"/v1/realtime"})}
_LLAMA_CPP = frozenset(
    b"/apply-template /completion /completions /chat/completions /embedding /embeddings /responses"
    b" /audio/transcriptions /chat/completions/input_tokens /v1/chat/completions/input_tokens"
    b" /responses/input_tokens".split()
)
_NATIVE: Mapping[str, frozenset[bytes]] = {  # paths of an engine that only infer, beside those above
    "llama_cpp": _LLAMA_CPP,
    LLAMA_ROUTER: _LLAMA_CPP,
    "mlx_lm": frozenset({b"/chat/completions"}),
}

_RESPONSE = re.compile(rb"/v1/responses/([A-Za-z0-9_-]{1,128})(/cancel)?\Z")
_PATH = re.compile(rb"/[A-Za-z0-9._~!$&'()*+,;=:@/%-]*\Z")
_QUERY = re.compile(rb"[!-\"$-~]*\Z")
_AMBIGUOUS = re.compile(rb"(?:/|%2[Ff])(?:/|%2[Ff])|/\.\.?(?:[/;]|\Z)|%(?![0-9A-Fa-f]{2})")
_ESCAPE = re.compile(rb"%(..)")
_NEVER_ESCAPED = frozenset(
    b"%02X" % code for code in range(256) if code < 32 or code == 127 or chr(code) in "%.-_\\" or chr(code).isalnum()
) - {b"%02X" % code for code in range(128, 256)}  # fmt: skip
_OF_MODEL = re.compile(rb"\?model=[^&]+\Z")
_INSTANCES = b"/api/v1/instances/"
_PREFIXES = (b"/v1/", b"/v1beta/", b"/llama-cpp/", b"/upstream/", b"/models/")
"""Below /v1beta are calls of Google's clients, which no engine answers."""
_PLAIN = "Send its plain form."


def classify(method: bytes, target: bytes) -> Asked:
    """Return what a request asks for. The same value each time for the common ones.

    Raises:
        InvalidError: the target is no path, or one that servers read differently.
        NotFoundError: the gateway has no such path, or not with this method.
    """
    return _TABLE.get((method, target)) or _uncommon(method, target)


def path_at(engine: str, asked: Asked) -> bytes | None:
    """Return the path that an inference request has at an engine; None if the engine has no such API.

    Args:
        engine: a name of the registry. Of one that is not in the tables, such as `custom`, nothing is known, and it
            is sent the client's path.
    """
    apis = _APIS.get(engine)
    if apis is None:
        return asked.path
    return asked.at if asked.api in apis else None


def reaches(engine: str, method: bytes, rest: bytes, *, query: bytes = b"") -> bool:
    """Whether an inference key may send this to an engine, where the client chooses the engine's path itself.

    Args:
        rest: the path at the engine.
        query: with its question mark. Those of reads can change an engine: `GET /v1/models?reload=1` of llama-server
            does. A router is asked for one of its models by one.
    """
    if method in (b"GET", b"HEAD") and (not query or (engine == LLAMA_ROUTER and _OF_MODEL.match(query))):
        if rest in _READS.get(engine, _OTHER_READS):
            return True
    elif method == b"POST" and rest in _NATIVE.get(engine, ()):
        return True
    asked = _INFERENCE.get(rest) if method == b"POST" else None
    asked = asked or _response(method, rest)
    if asked is None or asked.api is None:
        return False
    return asked.api in _APIS[engine] if engine in _APIS else rest.startswith(b"/v1/")


def switches(engine: str, rest: bytes) -> bool:
    """Whether an inference key may ask an engine for another protocol, such as WebSocket.

    Args:
        rest: the path at the engine.
    """
    return rest in _SWITCHES[engine] if engine in _SWITCHES else engine not in _APIS and rest.startswith(b"/v1/")


def _uncommon(method: bytes, target: bytes) -> Asked:
    path, mark, query = target.partition(b"?")
    if mark and _QUERY.match(query) and (found := _TABLE.get((method, path))):
        return found
    _check(path, query)
    if path.startswith(b"/v1/models/") and method in (b"GET", b"HEAD"):
        return Asked(Kind.MODEL, model_in=ModelIn.PATH, name=_name(path.removeprefix(b"/v1/models/")))
    if found := _response(method, path) or _of_an_instance(method, path):
        return found
    if _is_ours(path):
        wanted = f"{method.decode('latin-1')} {path.decode('latin-1')}"
        raise NotFoundError(f"there is no {wanted}", hint="Use POST." if path in _INFERENCE else "See docs/server.md.")
    if b"%" in path and _is_ours(unquote_to_bytes(path)):
        raise InvalidError("the path escapes a slash that is none of a name's", hint=_PLAIN)
    return _CONTROL


def _is_ours(path: bytes) -> bool:
    """Whether the control process has nothing to say about a path."""
    return path in _INFERENCE or path in (b"/v1", b"/models") or path.startswith(_PREFIXES)


def _response(method: bytes, path: bytes) -> Asked | None:
    found = _RESPONSE.match(path)
    if found is None or path in _INFERENCE or method not in ((b"POST",) if found[2] else (b"GET", b"DELETE")):
        return None
    return Asked(Kind.INFERENCE, Api.RESPONSE, ModelIn.NOWHERE, path, path, found[1].decode())


def _of_an_instance(method: bytes, path: bytes) -> Asked | None:
    for prefix, kind, then in (
        (b"/llama-cpp/", Kind.LLAMA_CPP, b"/"),
        (b"/upstream/", Kind.UPSTREAM, b"/"),
        (_INSTANCES, Kind.PROXY, b"/proxy/"),
    ):
        if path.startswith(prefix):
            raw, slash, rest = path[len(prefix) :].partition(b"/")
            rest = slash + rest
            if not raw or not rest.startswith(then):
                return None
            reads = method in (b"GET", b"HEAD")
            return Asked(kind, None, ModelIn.PATH, name=_name(raw), rest=rest[len(then) - 1 :], reads=reads)
    return None


def _name(raw: bytes) -> str:
    try:
        name = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        name = ""
    if not name or not name.isprintable():
        raise InvalidError("the path names no model", hint="Send its name in UTF-8, percent-encoded.")
    return name


def _check(path: bytes, query: bytes) -> None:
    """Refuse what one server takes for another path than the next: the engine behind this one may."""
    if not path.startswith(b"/"):
        raise InvalidError("the target of the request is no path", hint="This server is no proxy: send GET /…")
    if _PATH.match(path) is None or _QUERY.match(query) is None:
        raise InvalidError("the path has characters that must be percent-encoded", hint="Encode them.")
    escaped = any(code.upper() in _NEVER_ESCAPED for code in _ESCAPE.findall(path))
    if escaped or _AMBIGUOUS.search(path) is not None:
        raise InvalidError("the path has an empty or a dot segment, or escapes what needs no escape", hint=_PLAIN)
