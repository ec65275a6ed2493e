"""The paths that an inference key reaches. Nothing that changes an engine is among them."""

import re

__all__ = ["LLAMA_CPP_GETS", "is_inference", "is_llama_cpp", "uses_tokens"]

_V1 = re.compile(
    r"/v1/(?:chat/completions|completions|embeddings|messages(?:/count_tokens)?|re-?rank(?:ing)?|score|pooling|classify"
    r"|tokenize|detokenize|infill|responses(?:/[A-Za-z0-9_-]+(?:/cancel)?)?"
    r"|audio/(?:transcriptions|translations|speech)|images/(?:generations|edits|variations))\Z"
)
_LLAMA_CPP = re.compile(
    r"/(?:apply-template|completions?|chat/completions|detokenize|embeddings?|infill|metrics|props|rerank(?:ing)?|slots"
    r"|tokenize|v1/[a-z/_]+|health)\Z"
)
_WITHOUT_MODEL = ("/tokenize", "/detokenize", "/count_tokens", "/apply-template", "/cancel")
LLAMA_CPP_GETS = frozenset({"/props", "/slots", "/metrics", "/health", "/v1/models"})


def is_inference(path: str) -> bool:
    """Whether `path` is one of the OpenAI and Anthropic APIs."""
    return _V1.match(path) is not None


def uses_tokens(method: str, path: str) -> bool:
    """Whether a model works on a request, so that it uses tokens. The others count, convert, look and cancel."""
    return method == "POST" and not path.endswith(_WITHOUT_MODEL)


def is_llama_cpp(method: str, path: str) -> bool:
    """Whether `path` is one of llama-server's own that only reads or infers. `/props` and `/slots` can be written with
    POST, which changes the server, so that they are read only here."""
    if method == "GET":
        return path in LLAMA_CPP_GETS
    return method == "POST" and path not in ("/props", "/slots") and _LLAMA_CPP.match(path) is not None
