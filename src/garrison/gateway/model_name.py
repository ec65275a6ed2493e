"""The model that a request names, and the same request with another name. Pure."""

import json
import re
from typing import Any

from garrison.base.errors import InvalidError

__all__ = ["named_model", "renamed"]

_FIELD = re.compile(rb'name="model"\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{1,1024})\r\n')


def named_model(body: bytes, content_type: str) -> str:
    """Return the model that a request names: `model` in a JSON object, or the form field of that name.

    Raises:
        InvalidError: it names none.
    """
    if content_type.startswith("multipart/form-data"):
        found = _FIELD.search(body)
        if found is None:
            raise InvalidError("the form has no field `model`", hint="Send the name of the model in it.")
        return found[1].decode("utf-8", "replace")
    name = _object(body).get("model")
    if not isinstance(name, str) or not name:
        raise InvalidError("the request names no model", hint="Send `model`: the name of an instance or a route.")
    return name


def renamed(body: bytes, content_type: str, name: str) -> bytes:
    """Return the request with `name` as its model."""
    if content_type.startswith("multipart/form-data"):
        found = _FIELD.search(body)
        assert found is not None
        return body[: found.start(1)] + name.encode() + body[found.end(1) :]
    return json.dumps(_object(body) | {"model": name}, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidError("the body is no JSON", hint="Send a JSON object with `model`.") from None
    if not isinstance(content, dict):
        raise InvalidError("the body is no JSON object", hint="Send a JSON object with `model`.")
    return content
