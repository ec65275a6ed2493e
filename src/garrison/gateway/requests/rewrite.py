"""A JSON body with some top-level members changed and every other byte as it was.

Two shortcuts carry nearly all requests. A `"model"` near either end of the body is replaced, and the result decoded,
which shows whether it was the one that counts; the same decoding shows whether a parameter that is to be set is there
at all, and one that is not is appended. Everything else walks along the members.
"""

import codecs
import json
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import msgspec

from garrison.base.errors import InvalidError
from garrison.gateway.requests.members import members

__all__ = ["Rewrite", "rewrite", "rewritten", "with_usage"]

_encoded = msgspec.json.Encoder().encode
_MODEL = re.compile(rb'"model"[ \t\n\r]*:[ \t\n\r]*("[^"\\]*")')
_NEAR_START, _NEAR_END = 512, 4096
_OPTIONS = "stream_options"
_USAGE = b'{"include_usage":true}'


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What a route changes in the requests that pass it. Made once by `rewrite`, used for each.

    Attributes:
        model: the name that the engine knows; empty to leave it.
        values: JSON text by parameter. One that is there keeps its place, a new one comes last.
        without: parameters that are removed, unless `values` has them.
        usage: whether `stream_options.include_usage` is set. Other stream options stay as they are.
        names: of the parameters above.
        probe: decodes the model of a body, then what it has of these.
    """

    model: str
    values: Mapping[str, bytes]
    without: frozenset[str]
    usage: bool
    names: Sequence[str]
    probe: msgspec.json.Decoder[Any]


def rewrite(
    *, model: str = "", set: Mapping[str, Any] | None = None, strip: Sequence[str] = (), usage: bool = False
) -> Rewrite:
    """Say what to change.

    Args:
        model: as in `Rewrite`, and so `usage`.
        set: values by parameter.
        strip: parameters that the engine is not to see.

    Raises:
        InvalidError: a filter touches `model`, or sets what is not JSON.
    """
    given = set or {}
    names = sorted({*given, *strip, *((_OPTIONS,) if usage else ())})
    if "model" in names:
        raise InvalidError("a filter changes `model`", hint="Give the route another target instead.")
    try:
        values = {
            name: json.dumps(value, ensure_ascii=False, allow_nan=False).encode() for name, value in given.items()
        }
        fields = {f"field_{number}": name for number, name in enumerate(names)}
        probed = msgspec.defstruct(
            "Probe", [("model", msgspec.Raw), *((field, msgspec.Raw, b"") for field in fields)], rename=fields
        )
    except (TypeError, ValueError) as error:
        raise InvalidError(f"a filter cannot be used: {error}", hint="Set plain names to JSON values.") from None
    return Rewrite(model, values, frozenset(strip), usage, names, msgspec.json.Decoder(probed))


def rewritten(body: bytes, change: Rewrite, model: str) -> bytes:
    """Return `body` with `change` made.

    Of a member that is there twice the last is changed at least, which is the one that counts.

    Args:
        body: a JSON object that `read_fields` accepted.
        model: the one that it names.

    Raises:
        InvalidError: it has too many values to be changed.
    """
    renamed = _renamed(body, change.model) if change.model not in ("", model) else None
    model, given = _probed(renamed or body, change)
    if renamed is not None:
        if model == change.model:
            body = renamed
        else:
            model, given = _probed(body, change)
    values = dict(change.values)
    if change.usage:
        values[_OPTIONS] = _with_usage(values.get(_OPTIONS) or given.get(_OPTIONS, b""))
    if change.model not in ("", model):
        values["model"] = _encoded(change.model)
    elif not given:
        return _appended(body, values) if values else body
    return _walked(body, values, change.without)


def with_usage(body: bytes) -> bytes:
    """Return `body` with `stream_options` that ask for usage, where it has none, or null."""
    return _appended(body, {_OPTIONS: _USAGE})


def _probed(body: bytes, change: Rewrite) -> tuple[str, dict[str, bytes]]:
    """Return the model of a body, and the values of the parameters that are to change, where it has them."""
    try:
        found = change.probe.decode(body.removeprefix(codecs.BOM_UTF8))
    except (msgspec.MsgspecError, RecursionError) as error:  # the limit of nesting depends on who calls
        raise InvalidError(f"the body is no valid JSON: {error}", hint="Send a JSON object with `model`.") from None
    model, *given = msgspec.structs.astuple(found)
    return msgspec.json.decode(model, type=str), {
        name: bytes(raw) for name, raw in zip(change.names, given, strict=True) if raw
    }


def _renamed(body: bytes, model: str) -> bytes | None:
    """Return `body` with another value for a `model` near one of its ends, which may not be the one that counts."""
    at = body.find(b'"model"', 0, _NEAR_START)
    if at < 0:
        at = body.rfind(b'"model"', max(0, len(body) - _NEAR_END))
    found = _MODEL.match(body, at) if at >= 0 else None
    return None if found is None else b"".join((body[: found.start(1)], _encoded(model), body[found.end(1) :]))


def _appended(body: bytes, values: Mapping[str, bytes]) -> bytes:
    end = body.rindex(b"}")
    added = [b"," + _encoded(name) + b":" + value for name, value in values.items()]
    return b"".join((body[:end], *added, body[end:]))


def _walked(body: bytes, values: Mapping[str, bytes], without: Set[str]) -> bytes:
    edits: list[tuple[int, int, bytes]] = []
    missing = dict(values)
    at, found = members(body)
    kept = dropped = None  # the last member that stays; after it, the first that does not
    for one in found:
        value = values.get(one.name)
        if value is None and one.name in without:
            dropped = dropped or one
            continue
        if dropped is not None:
            edits.append((dropped.start, one.start, b""))
            dropped = None
        if value is not None:
            edits.append((one.value, one.end, value))
            missing.pop(one.name, None)
        kept = one
        at = one.end
    if dropped is not None:
        edits.append((at if kept else dropped.start, one.end, b""))
        at = one.end
    if missing:
        added = b",".join(_encoded(name) + b":" + value for name, value in missing.items())
        edits.append((at, at, b"," + added if kept else added))
    return _spliced(body, edits)


def _with_usage(options: bytes) -> bytes:
    return _walked(options, {"include_usage": b"true"}, frozenset()) if options.startswith(b"{") else _USAGE


def _spliced(body: bytes, edits: Sequence[tuple[int, int, bytes]]) -> bytes:
    pieces: list[bytes] = []
    at = 0
    for start, end, value in edits:
        pieces += (body[at:start], value)
        at = end
    pieces.append(body[at:])
    return b"".join(pieces)
