"""The parts of a `multipart/form-data` body, its model, and the same form with another model.

The engine reads the form again, with a parser of its own. What parsers are known to read differently is refused, so
that the model that was checked is the one that answers.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from garrison.base.errors import InvalidError

__all__ = ["FormModel", "Part", "boundary_of", "form_model", "parts_of", "renamed_form"]

_MOST_PARTS = 1000
_MOST_HEAD = 8 * 1024
_MOST_NAME = 1024
_HINT = "Send multipart/form-data with one field `model`, the name of an instance or a route."

_PARAMETER = re.compile(r';[ \t]*([!#$%&\'*+.^_`|~\w-]+)=(?:"([^"\\]*)"|([^\s;,"\\]*))[ \t]*', re.ASCII)
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]\Z")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*)\Z")
_TWO_NAMES = re.compile(r";\s*name\*?\s*=.*;\s*name\*?\s*=|;\s*name\*", re.IGNORECASE)


class Part(NamedTuple):
    """One part of a form.

    Attributes:
        name: of the field.
        file: its content is a file.
        begin: where its boundary begins.
        start, end: of its content.
    """

    name: str
    file: bool
    begin: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class FormModel:
    """The model that a form names, and where in the body.

    Attributes:
        boundary: what separates the parts of the form.
    """

    name: str
    start: int
    end: int
    boundary: bytes


def form_model(body: bytes, content_type: str) -> FormModel:
    """Return the model of a form.

    Args:
        content_type: the value of the header, with the boundary.

    Raises:
        InvalidError: it is no form, has no model or several, or could be read in two ways.
    """
    boundary = boundary_of(content_type)
    found = [one for one in parts_of(body, boundary)[0] if one.name == "model"]
    if not found:
        raise InvalidError("the form has no field `model`", hint=_HINT)
    if len(found) > 1:
        raise InvalidError("the form has two fields `model`", hint=_HINT)
    if found[0].file:
        raise InvalidError("the field `model` of the form is a file", hint=_HINT)
    *_, start, end = found[0]
    return FormModel(_value(body[start:end]), start, end, boundary)


def parts_of(body: bytes, boundary: bytes) -> tuple[list[Part], int]:
    """Return the parts of a form in order, and where its last boundary begins.

    Raises:
        InvalidError: it is no form, or could be read in two ways.
    """
    found: list[Part] = []
    delimiter = b"\r\n--" + boundary
    at, last = _after_preamble(body, delimiter)
    begin = body.find(delimiter[2:])
    while not last:
        if len(found) >= _MOST_PARTS:
            raise InvalidError(f"the form has more than {_MOST_PARTS} parts", hint="Send fewer.")
        head, start = _head(body, at)
        if body.startswith(delimiter[2:], start):  # the end of an empty part to some, the content of it to others
            raise InvalidError("a part of the form has no line break before its end", hint=_HINT)
        end = body.find(delimiter, start)
        if end < 0:
            raise InvalidError("the form has no end: its last boundary is missing", hint=_HINT)
        found.append(Part(*_field(head), begin, start, end))
        begin = end + 2
        at, last = _after_boundary(body, end + len(delimiter))
    return found, begin


def renamed_form(body: bytes, found: FormModel, name: str) -> bytes:
    """Return the form with `name` as its model."""
    assert name.isprintable(), "a line break would begin another part"
    return b"".join((body[: found.start], name.encode(), body[found.end :]))


def boundary_of(content_type: str) -> bytes:
    """Return what separates the parts of a form. Raises InvalidError."""
    kind, parameters = _parameters(content_type)
    if kind != "multipart/form-data":
        raise InvalidError("the body is no form", hint=_HINT)
    if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
        raise InvalidError("the form is not in UTF-8", hint=_HINT)
    boundary = parameters.get("boundary", "")
    if _BOUNDARY.match(boundary) is None:
        raise InvalidError("the Content-Type has no valid boundary", hint=_HINT)
    return boundary.encode()


def _parameters(value: str) -> tuple[str, dict[str, str]]:
    """Split the value of a header: `form-data; name="x"`."""
    kind, mark, _ = value.partition(";")
    at = len(kind)
    found: dict[str, str] = {}
    while mark and at < len(value):
        one = _PARAMETER.match(value, at)
        if one is None or one[1].lower() in found:
            raise InvalidError("a header of the form is malformed", hint=_HINT)
        found[one[1].lower()] = one[3] if one[2] is None else one[2]
        at = one.end()
    return kind.strip().lower(), found


def _after_preamble(body: bytes, delimiter: bytes) -> tuple[int, bool]:
    """As `_after_boundary`, of the first. Some parsers take a boundary in the middle of a line of the preamble."""
    begin = body.find(delimiter[2:])
    if begin < 0:
        raise InvalidError("the form has no boundary", hint=_HINT)
    if begin > 0 and body[begin - 2 : begin] != b"\r\n":
        raise InvalidError("a boundary of the form begins no line", hint=_HINT)
    return _after_boundary(body, begin + len(delimiter) - 2)


def _after_boundary(body: bytes, at: int) -> tuple[int, bool]:
    """Return where the next part begins, and whether there is none because that was the last boundary."""
    if body.startswith(b"\r\n", at):
        return at + 2, False
    if body.startswith(b"--", at):
        return at, True
    raise InvalidError("a boundary of the form does not end its line", hint=_HINT)


def _head(body: bytes, at: int) -> tuple[bytes, int]:
    end = body.find(b"\r\n\r\n", at, at + _MOST_HEAD)
    if end < 0:
        raise InvalidError(f"a part of the form has no headers, or more than {_MOST_HEAD} bytes of them", hint=_HINT)
    return body[at:end], end + 4


def _field(head: bytes) -> tuple[str, bool]:
    """Return the name of a part, and whether it is a file."""
    dispositions = []
    for line in head.split(b"\r\n"):
        header = _HEADER.match(line)
        if header is None:
            raise InvalidError("a part of the form has a malformed header", hint=_HINT)
        if header[1].lower() == b"content-disposition":
            dispositions.append(header[2].decode("latin-1"))
    if len(dispositions) != 1 or _TWO_NAMES.search(dispositions[0]):
        raise InvalidError("a part of the form does not have one name", hint=_HINT)
    kind, parameters = _parameters(dispositions[0])
    if kind != "form-data" or "name" not in parameters:
        raise InvalidError("a part of the form has no name", hint=_HINT)
    return parameters["name"], "filename" in parameters or "filename*" in parameters


def _value(raw: bytes) -> str:
    try:
        name = raw.decode() if len(raw) <= _MOST_NAME else ""
    except UnicodeDecodeError:
        name = ""
    if not name or not name.isprintable():
        raise InvalidError("the form names no model", hint=_HINT)
    return name
