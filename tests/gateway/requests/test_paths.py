"""What request lines ask for, and that no spelling of a path reaches what changes an engine."""

import itertools
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import InvalidError, NotFoundError
from garrison.gateway.requests.paths import (
    LLAMA_ROUTER,
    Api,
    Asked,
    Kind,
    ModelIn,
    classify,
    path_at,
    reaches,
    switches,
)  # fmt: skip

INFERENCE = {
    "/v1/chat/completions": (Api.CHAT, ModelIn.JSON),
    "/v1/completions": (Api.COMPLETIONS, ModelIn.JSON),
    "/v1/embeddings": (Api.EMBEDDINGS, ModelIn.JSON),
    "/v1/responses": (Api.RESPONSES, ModelIn.JSON),
    "/v1/responses/input_tokens": (Api.INPUT_TOKENS, ModelIn.JSON),
    "/v1/messages": (Api.MESSAGES, ModelIn.JSON),
    "/v1/messages/count_tokens": (Api.COUNT_TOKENS, ModelIn.JSON),
    "/v1/rerank": (Api.RERANK, ModelIn.JSON),
    "/v1/reranking": (Api.RERANK, ModelIn.JSON),
    "/v2/rerank": (Api.RERANK, ModelIn.JSON),
    "/rerank": (Api.RERANK, ModelIn.JSON),
    "/reranking": (Api.RERANK, ModelIn.JSON),
    "/v1/score": (Api.SCORE, ModelIn.JSON),
    "/score": (Api.SCORE, ModelIn.JSON),
    "/v1/pooling": (Api.POOLING, ModelIn.JSON),
    "/pooling": (Api.POOLING, ModelIn.JSON),
    "/v1/classify": (Api.CLASSIFY, ModelIn.JSON),
    "/classify": (Api.CLASSIFY, ModelIn.JSON),
    "/v1/tokenize": (Api.TOKENIZE, ModelIn.JSON),
    "/tokenize": (Api.TOKENIZE, ModelIn.JSON),
    "/v1/detokenize": (Api.DETOKENIZE, ModelIn.JSON),
    "/detokenize": (Api.DETOKENIZE, ModelIn.JSON),
    "/v1/infill": (Api.INFILL, ModelIn.JSON),
    "/infill": (Api.INFILL, ModelIn.JSON),
    "/v1/audio/speech": (Api.SPEECH, ModelIn.JSON),
    "/v1/audio/transcriptions": (Api.TRANSCRIPTIONS, ModelIn.FORM),
    "/v1/audio/translations": (Api.TRANSLATIONS, ModelIn.FORM),
    "/v1/images/generations": (Api.IMAGES, ModelIn.JSON),
    "/v1/images/edits": (Api.IMAGES, ModelIn.FORM),
    "/v1/images/variations": (Api.IMAGES, ModelIn.FORM),
}


@pytest.mark.parametrize("path", INFERENCE)
def test_inference(path: str) -> None:
    asked = classify(b"POST", path.encode())
    assert (asked.kind, asked.api, asked.model_in) == (Kind.INFERENCE, *INFERENCE[path])
    assert asked.path == path.encode()
    assert classify(b"POST", path.encode()) is asked
    assert classify(b"POST", path.encode() + b"?beta=true&x=%2F") is asked
    for method in (b"GET", b"PUT", b"DELETE", b"OPTIONS", b"post"):
        with pytest.raises(NotFoundError, match="there is no") as raised:
            classify(method, path.encode())
        assert raised.value.hint == "Use POST."


OTHERS: dict[tuple[str, str], Asked] = {
    ("GET", "/v1/models"): Asked(Kind.MODELS),
    ("HEAD", "/v1/models"): Asked(Kind.MODELS),
    ("GET", "/v1/models/"): Asked(Kind.MODELS),
    ("GET", "/v1/models?limit=5"): Asked(Kind.MODELS),
    ("GET", "/v1/models/qwen"): Asked(Kind.MODEL, None, ModelIn.PATH, name="qwen"),
    ("GET", "/v1/models/org/name:7b"): Asked(Kind.MODEL, None, ModelIn.PATH, name="org/name:7b"),
    ("GET", "/v1/models/org%2Fname%3A7b"): Asked(Kind.MODEL, None, ModelIn.PATH, name="org/name:7b"),
    ("GET", "/v1/models/%C3%A9"): Asked(Kind.MODEL, None, ModelIn.PATH, name="é"),
    ("GET", "/v1/responses/resp_1-x"): Asked(
        Kind.INFERENCE, Api.RESPONSE, path=b"/v1/responses/resp_1-x", at=b"/v1/responses/resp_1-x", name="resp_1-x"
    ),
    ("DELETE", "/v1/responses/r"): Asked(
        Kind.INFERENCE, Api.RESPONSE, path=b"/v1/responses/r", at=b"/v1/responses/r", name="r"
    ),
    ("GET", "/v1/responses/r?stream=true"): Asked(
        Kind.INFERENCE, Api.RESPONSE, path=b"/v1/responses/r", at=b"/v1/responses/r", name="r"
    ),
    ("POST", "/v1/responses/r/cancel"): Asked(
        Kind.INFERENCE, Api.RESPONSE, path=b"/v1/responses/r/cancel", at=b"/v1/responses/r/cancel", name="r"
    ),
    ("POST", "/llama-cpp/qwen/v1/chat/completions"): Asked(
        Kind.LLAMA_CPP, None, ModelIn.PATH, name="qwen", rest=b"/v1/chat/completions"
    ),
    ("GET", "/llama-cpp/qwen/"): Asked(Kind.LLAMA_CPP, None, ModelIn.PATH, name="qwen", rest=b"/", reads=True),
    ("GET", "/upstream/qwen/a/b?c=d"): Asked(Kind.UPSTREAM, None, ModelIn.PATH, name="qwen", rest=b"/a/b", reads=True),
    ("GET", "/upstream/org%2Fname/a%20b"): Asked(
        Kind.UPSTREAM, None, ModelIn.PATH, name="org/name", rest=b"/a%20b", reads=True
    ),
    ("PUT", "/api/v1/instances/qwen/proxy/x/proxy/y"): Asked(
        Kind.PROXY, None, ModelIn.PATH, name="qwen", rest=b"/x/proxy/y"
    ),
    ("GET", "/models"): Asked(Kind.ROUTER, name="list"),
    ("HEAD", "/models"): Asked(Kind.ROUTER, name="list"),
    ("GET", "/models?reload=1"): Asked(Kind.ROUTER, name="list"),
    ("GET", "/models/sse"): Asked(Kind.ROUTER, name="sse"),
    ("POST", "/models/load"): Asked(Kind.ROUTER, None, ModelIn.JSON, name="load"),
    ("POST", "/models/unload"): Asked(Kind.ROUTER, None, ModelIn.JSON, name="unload"),
    ("GET", "/"): Asked(Kind.CONTROL),
    ("GET", "/healthz"): Asked(Kind.CONTROL),
    ("GET", "/metrics"): Asked(Kind.CONTROL),
    ("GET", "/ui/instances?x=1"): Asked(Kind.CONTROL),
    ("GET", "/api/v1/instances"): Asked(Kind.CONTROL),
    ("GET", "/api/v1/instances/qwen/proxy"): Asked(Kind.CONTROL),
    ("GET", "/api/v1/instances/qwen/logs/proxy/x"): Asked(Kind.CONTROL),
    ("POST", "/api/v1/models/org%2Fname"): Asked(Kind.CONTROL),
    ("POST", "/V1/chat/completions"): Asked(Kind.CONTROL),
    ("GET", "/v1models"): Asked(Kind.CONTROL),
}


@pytest.mark.parametrize(("method", "target"), OTHERS, ids=[" ".join(key) for key in OTHERS])
def test_others(method: str, target: str) -> None:
    assert classify(method.encode(), target.encode()) == OTHERS[method, target]


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/v1/"),
        ("GET", "/v1"),
        ("POST", "/v1/chat/completions/"),
        ("POST", "/v1/chat/completions;x=1"),
        ("POST", "/v1/chat/Completions"),
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/unload_lora_adapter"),
        ("POST", "/v1/models"),
        ("DELETE", "/v1/models/qwen"),
        ("POST", "/v1/responses/r"),
        ("GET", "/v1/responses/r/cancel"),
        ("GET", "/v1/responses/a.b"),
        ("GET", f"/v1/responses/{'r' * 129}"),
        ("POST", "/v1/chat/completions/control"),
        ("POST", "/models"),
        ("POST", "/v1beta/models/qwen:generateContent"),
        ("GET", "/v1beta/models"),
        ("DELETE", "/models?model=x"),
        ("GET", "/models/load"),
        ("GET", "/llama-cpp/"),
        ("GET", "/llama-cpp/qwen"),
        ("GET", "/upstream/"),
    ],
)
def test_not_found(method: str, target: str) -> None:
    with pytest.raises(NotFoundError):
        classify(method.encode(), target.encode())


@pytest.mark.parametrize(
    "target",
    [
        b"http://host/v1/chat/completions",
        b"https://host/",
        b"host:443",
        b"*",
        b"",
        b"v1/chat/completions",
        b"//v1/chat/completions",
        b"//host/v1/models",
        b"/v1//chat/completions",
        b"/v1/./chat/completions",
        b"/x/../v1/chat/completions",
        b"/upstream/qwen/../../v1/x",
        b"/upstream/qwen/..",
        b"/upstream/qwen/..;/x",
        b"/upstream/qwen/%2e%2e/x",
        b"/upstream/qwen/.%2E/x",
        b"/v1/chat%2Fcompletions%2e",
        b"/v1/%63hat/completions",
        b"/v1/%6coad_lora_adapter",
        b"/%76%31/load_lora_adapter",
        b"/v1%2Fchat/completions",
        b"/v1%2fload_lora_adapter",
        b"/llama-cpp%2Fqwen/props",
        b"/upstream%2Fqwen/sleep",
        b"/models%2Fload",
        b"/%2Fv1/chat/completions",
        b"/v1/chat/completions%00",
        b"/v1/chat/completions\x00",
        b"/v1/chat/completions%0d%0aX:%20y",
        b"/v1/chat/completions%20%",
        b"/v1/chat/completions%zz",
        b"/v1/chat/completions%252e",
        b"/v1/chat/completions%5c",
        b"/v1\\chat\\completions",
        b"/v1/chat/completions#x",
        b"/v1/chat completions",
        b"/v1/mod\xc3\xa9ls",
        b"/v1/models/%2Fa",
        b"/v1/models/a%0Ab",
        b"/v1/models?x=\xff",
        b"/v1/models?x=a b",
        b"/v1/models?x#y",
    ],
)
def test_refused(target: bytes) -> None:
    for method in (b"GET", b"POST"):
        with pytest.raises(InvalidError) as raised:
            classify(method, target)
        assert raised.value.http_status == 400
        assert raised.value.hint


@pytest.mark.parametrize("name", [b"%ff", b"%C2%85", b"%20%E2%80%A8", b"%ED%A0%80"])
def test_names_that_nothing_has(name: bytes) -> None:
    for path in (b"/v1/models/" + name, b"/upstream/" + name + b"/x"):
        with pytest.raises(InvalidError, match="names no model"):
            classify(b"GET", path)


def test_paths_at_engines() -> None:
    def at(engine: str, path: str) -> bytes | None:
        return path_at(engine, classify(b"POST", path.encode()))

    assert at("vllm", "/v1/tokenize") == b"/tokenize"
    assert at("vllm", "/v1/chat/completions") == b"/v1/chat/completions"
    assert at("vllm", "/v1/reranking") == b"/rerank"
    assert at("vllm", "/v1/infill") is None
    assert at("vllm", "/v1/responses/r/cancel") == b"/v1/responses/r/cancel"
    assert at("llama_cpp", "/v1/infill") == b"/infill"
    assert at("llama_cpp", "/v1/score") is None
    assert at("llama_cpp", "/v1/responses/input_tokens") == b"/v1/responses/input_tokens"
    assert at("vllm", "/v1/responses/input_tokens") is None
    assert at("mlx_lm", "/v1/embeddings") is None
    assert at("mlx_lm", "/v1/completions") == b"/v1/completions"
    assert at("sim", "/v1/tokenize") == b"/tokenize"
    assert at("custom", "/v1/tokenize") == b"/v1/tokenize"
    assert at("custom", "/v1/images/edits") == b"/v1/images/edits"


ENGINES = ("vllm", "llama_cpp", LLAMA_ROUTER, "mlx_lm", "sim", "custom", "unknown")
# Routes of vLLM 0.33 and of llama-server that change an engine, run something, or reach elsewhere.
_CHANGES = [
    "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters", "/adapters/sql", "/invocations",
    "/sleep", "/wake_up", "/collective_rpc", "/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache",
    "/release_kv_cache_memory", "/server_info", "/start_profile", "/stop_profile", "/pause", "/resume",
    "/abort_requests", "/init_weight_transfer_engine", "/shutdown_weight_transfer_engine",
    "/start_weight_update", "/start_draft_weight_update", "/update_weights", "/finish_weight_update",
    "/update_weight_version", "/weight_checker", "/scale_elastic_ep", "/is_scaling_elastic_ep",
    "/fault_tolerance/apply", "/props", "/slots", "/slots/0", "/lora-adapters", "/models", "/models/load",
    "/models/unload", "/tools", "/cors-proxy", "/v1/chat/completions/control", "/v1/stream",
    "/v1/streams/lookup", "/predict", "/_sim", "/_sim/faults", "/_sim/kill",
]  # fmt: skip
READ_ONLY = {
    *((engine, path) for engine in ("llama_cpp", LLAMA_ROUTER) for path in ("/props", "/slots")),
    *((engine, "/v1/models") for engine in ENGINES if engine != LLAMA_ROUTER),
}


def _spellings(path: str) -> set[str]:
    """The same path to some server or other."""
    last = path[-1]
    return {
        path, path + "/", path + "?x=1", path + ";x", path + "%00", path + "#", path.upper(), "/" + path, "/." + path,
        "/x/.." + path, "/v1" + path, path.replace("/", "//"), path.replace("/", "\\"), path.replace("/", "%2F"),
        path[:-1] + f"%{ord(last):02x}", path[:-1] + f"%{ord(last):02X}", path.replace("_", "%5F"), path + "%20",
        "/v1/chat/completions/.." + path, "/v1/chat/completions%2f.." + path, "/health" + path, "http://h" + path,
    }  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_that_changes_an_engine_is_reached(engine: str) -> None:
    for path, method in itertools.product(_CHANGES, ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")):
        for spelled in _spellings(path):
            raw, _, query = spelled.partition("?")
            if reaches(engine, method.encode(), raw.encode(), query=query.encode()):
                assert method in ("GET", "HEAD")
                assert (engine, raw) in READ_ONLY
            try:
                asked = classify(method.encode(), spelled.encode())
            except InvalidError:
                continue
            if asked.kind is Kind.INFERENCE:
                assert asked.path.decode() in INFERENCE
            assert asked.kind not in (Kind.LLAMA_CPP, Kind.UPSTREAM, Kind.PROXY)


REACHED = {
    "vllm": {
        "GET": "/health /ping /version /load /metrics /v1/models /v1/realtime /v1/responses/r",
        "POST": "/v1/chat/completions /tokenize /v1/score /pooling /v1/messages /v1/responses/r/cancel",
    },
    "llama_cpp": {
        "GET": "/health /v1/health /props /slots /metrics /v1/models",
        "POST": "/apply-template /completion /completions /chat/completions /embedding /embeddings /infill /rerank"
        " /reranking /tokenize /detokenize /v1/chat/completions /v1/messages /v1/messages/count_tokens /v1/rerank",
    },
    LLAMA_ROUTER: {
        "GET": "/health /v1/health /props /slots /metrics",
        "POST": "/apply-template /completion /embeddings /infill /tokenize /v1/chat/completions /v1/messages",
    },
    "mlx_lm": {"GET": "/health /v1/models", "POST": "/v1/completions /v1/chat/completions /chat/completions"},
    "sim": {"GET": "/health /v1/models /metrics", "POST": "/v1/completions /v1/embeddings /tokenize"},
    "custom": {"GET": "/health /v1/models", "POST": "/v1/chat/completions /v1/images/edits /v1/rerank"},
}


@pytest.mark.parametrize("engine", REACHED)
def test_what_an_inference_key_reaches(engine: str) -> None:
    for method, paths in REACHED[engine].items():
        for path in paths.split():
            assert reaches(engine, method.encode(), path.encode()), (engine, method, path)
            assert not reaches(engine, b"PUT", path.encode())
    assert not reaches(engine, b"GET", b"/v1/models", query=b"?reload=1")
    assert not reaches(engine, b"GET", b"/")
    assert not reaches("custom", b"POST", b"/classify")  # which may be anything
    assert reaches("vllm", b"GET", b"/v1/responses/r", query=b"?stream=true")


def test_a_router_is_asked_for_one_of_its_models_and_not_for_all() -> None:
    for path in (b"/props", b"/slots", b"/metrics"):
        assert reaches(LLAMA_ROUTER, b"GET", path, query=b"?model=org/two")
        assert not reaches(LLAMA_ROUTER, b"GET", path, query=b"?model=a&reload=1")
        assert not reaches(LLAMA_ROUTER, b"GET", path, query=b"?reload=1")
        assert not reaches("llama_cpp", b"GET", path, query=b"?model=org/two")
    for path in (b"/v1/models", b"/models", b"/models/sse"):
        assert not reaches(LLAMA_ROUTER, b"GET", path)
        assert not reaches(LLAMA_ROUTER, b"GET", path, query=b"?model=org/two")


def test_where_an_inference_key_may_have_the_protocol_changed() -> None:
    assert switches("vllm", b"/v1/realtime")
    assert switches("custom", b"/v1/realtime")
    for engine in ENGINES:
        for path in (*_CHANGES, "/", "/v1", "/health"):
            if not path.startswith("/v1/"):
                assert not switches(engine, path.encode()), (engine, path)
    for engine in ("vllm", "llama_cpp", "mlx_lm", "sim"):
        assert not any(switches(engine, path.encode()) for path in (*_CHANGES, "/v1/chat/completions"))


_PIECES = st.sampled_from([
    "/", "//", ".", "..", ";", "?", "#", "%", "%2F", "%2f", "%2e", "%00", "%20", "%25", "\\", "v1", "V1",
    "chat", "completions", "models", "load", "llama-cpp", "upstream", "qwen", "api", "instances", "proxy",
    "sleep", "load_lora_adapter", "responses", "cancel", "http:", "*", "é",
])  # fmt: skip


@given(st.lists(_PIECES | st.text(max_size=2), max_size=9).map("".join), st.sampled_from(["GET", "POST", "DELETE"]))
def test_any_target(target: str, method: str) -> None:
    for raw in (target.encode(), b"/" + target.encode(), b"/v1/" + target.encode()):
        try:
            asked = classify(method.encode(), raw)
        except InvalidError:
            continue
        path = raw.decode("latin-1").partition("?")[0]
        assert ".." not in path.split("/")
        if asked.kind is Kind.CONTROL:  # and for no server anything else
            assert not unquote(path).startswith(("/v1/", "/llama-cpp/", "/upstream/"))
        if asked.rest:
            assert path.endswith(asked.rest.decode())
            assert asked.rest.startswith(b"/")
