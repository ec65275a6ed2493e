"""Finds the token in the headers of a request.

A token in the query (`?api_key=`) is not accepted, other than in llamactl: queries end up in the logs of proxies, in
histories of browsers, and in `Referer`.
"""

import base64
import binascii
from collections.abc import Mapping

__all__ = ["CHALLENGE", "token_of"]

CHALLENGE = 'Bearer realm="garrison"'
"""The value of `WWW-Authenticate` in a 401."""

_LONGEST = 4096


def token_of(headers: Mapping[str, str]) -> str | None:
    """Return the token of a request, or None if it has none.

    The first of `Authorization: Bearer TOKEN`, `X-API-Key: TOKEN`, and `Authorization: Basic`, whose password is the
    token and whose user name does not matter.

    Args:
        headers: by name in lower case, or a mapping that ignores case.
    """
    scheme, _, rest = headers.get("authorization", "")[:_LONGEST].strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer" and rest:
        return rest
    if given := headers.get("x-api-key", "").strip():
        return given
    return _password(rest) if scheme.lower() == "basic" else None


def _password(encoded: str) -> str | None:
    try:
        text = base64.b64decode(encoded, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    _, colon, password = text.partition(":")
    return password if colon and password else None
