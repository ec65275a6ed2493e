"""A form with some fields changed, and every other byte as it was.

A field holds text: a string that is set is written as it is, a number and a boolean as in JSON, and null removes the
field. A list or an object has no one way to be written, so it is refused, and so is a file under the name of a field
that changes: engines differ in what they make of it.
"""

import json
import re

from garrison.base.errors import InvalidError
from garrison.gateway.requests.multipart import FormModel, parts_of
from garrison.gateway.requests.rewrite import Rewrite

__all__ = ["changed_form"]

_NAME = re.compile(r"[!#-\[\]-~]+\Z")
"""Names that every parser reads the same way between quotes."""


def changed_form(body: bytes, found: FormModel, change: Rewrite) -> bytes:
    """Return the form with `change` made. Of a field that is there twice both are changed.

    Args:
        body: the one in which `found` is the model.

    Raises:
        InvalidError: a parameter that is set cannot be written into this form, or is a file in it.
    """
    values = {name: _text(name, raw, found.boundary) for name, raw in change.values.items()}
    if change.model:
        values["model"] = change.model.encode()
    parts, last = parts_of(body, found.boundary)
    ends = [*(one.begin for one in parts[1:]), last]
    kept: list[bytes] = []
    at = 0
    for part, end in zip(parts, ends, strict=True):
        if part.name not in values and part.name not in change.without:
            continue
        if part.file:
            raise InvalidError(
                f"the field `{part.name}` of the form is a file", hint="Send it as text, or leave it out."
            )
        value = values.get(part.name)
        if value is not None:
            kept += (body[at : part.start], value)
            at = part.end
        else:
            kept.append(body[at : part.begin])
            at = end
    kept.append(body[at:last])
    there = {part.name for part in parts}
    new = ((name, value) for name, value in values.items() if value is not None and name not in there)
    kept += (_part(name, value, found.boundary) for name, value in new)
    kept.append(body[last:])
    return b"".join(kept)


def _text(name: str, raw: bytes, boundary: bytes) -> bytes | None:
    """Return what a field holds for a value in JSON; None for null."""
    value = json.loads(raw)
    if value is None:
        return None
    if isinstance(value, list | dict):
        kind = "a list" if isinstance(value, list) else "an object"
        raise InvalidError(
            f"the route sets `{name}` to {kind}, which no field of a form can hold",
            hint="Send the request to a route that does not set it.",
        )
    text = value.encode() if isinstance(value, str) else raw
    if _NAME.match(name) is None or boundary in text:
        raise InvalidError(
            f"the route sets `{name}`, which cannot be written into this form", hint="Send it with another boundary."
        )
    return text


def _part(name: str, value: bytes, boundary: bytes) -> bytes:
    head = b'Content-Disposition: form-data; name="' + name.encode() + b'"'
    return b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + value + b"\r\n"
