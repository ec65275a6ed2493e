"""The context that an engine serves, by what it answers itself. Pure."""

import json
from typing import Any

__all__ = ["context_of_models", "context_of_properties"]


def context_of_models(body: bytes) -> int | None:
    """Return the context in the list of models, in tokens; vLLM has it there. None where it is not in it."""
    listed = _object(body).get("data")
    entries = listed if isinstance(listed, list) else []
    lengths = [_tokens(one.get("max_model_len")) for one in entries if isinstance(one, dict)]
    return max((one for one in lengths if one is not None), default=None)


def context_of_properties(body: bytes) -> int | None:
    """Return the context of one request in llama-server's `/props`, in tokens. None where it is not in it."""
    settings = _object(body).get("default_generation_settings")
    return _tokens(settings.get("n_ctx")) if isinstance(settings, dict) else None


def _tokens(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
