"""The fields of a JSON body that the gateway acts on, without building the rest.

msgspec checks the grammar of the whole document. A string that is not read is not decoded, so that broken UTF-8 in a
prompt is left to the engine. Of a name that occurs twice the last counts, as in the parsers of the engines.
"""

import codecs
from typing import Any, TypeVar

import msgspec

from garrison.base.errors import InvalidError

__all__ = ["BodyFields", "MoreFields", "StreamOptions", "read_fields", "read_more_fields"]

_Fields = TypeVar("_Fields", bound=msgspec.Struct)
_HINT = "Send a JSON object with `model`."


class StreamOptions(msgspec.Struct, frozen=True, gc=False):
    include_usage: bool | None = None


class BodyFields(msgspec.Struct, frozen=True, gc=False):
    """What every request to a model is asked for.

    Attributes:
        model: never empty.
        stream: None where the client left it out.
    """

    model: str = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether the client asked for `usage` at the end of its stream."""
        return self.stream_options is not None and self.stream_options.include_usage is True


class MoreFields(msgspec.Struct, frozen=True, gc=False):
    """What only some routes ask for: by whom, how much, and what keeps its prompts apart."""

    user: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int | None = None
    priority: int | None = None
    prompt_cache_key: str | None = None

    @property
    def most_tokens(self) -> int | None:
        """Tokens that each answer may have, by whichever name the API gives it."""
        return self.max_completion_tokens or self.max_output_tokens or self.max_tokens


def _decoders(kind: type[_Fields]) -> tuple[msgspec.json.Decoder[_Fields], msgspec.json.Decoder[Any]]:
    """One that insists on the types, and one that leaves every field as it is."""
    loose = msgspec.defstruct(f"Raw{kind.__name__}", [(name, msgspec.Raw, b"") for name in kind.__struct_fields__])
    return msgspec.json.Decoder(kind), msgspec.json.Decoder(loose)


_FIELDS, _LOOSE_FIELDS = _decoders(BodyFields)
_MORE, _LOOSE_MORE = _decoders(MoreFields)


def read_fields(body: bytes) -> BodyFields:
    """Return the fields of a request's body.

    Raises:
        InvalidError: it is no JSON object, or names no model.
    """
    try:
        found = _FIELDS.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        found = _loosely(body, BodyFields, _LOOSE_FIELDS)
    if not found.model:
        raise InvalidError("the request names no model", hint="Send `model`: the name of an instance or a route.")
    return found


def read_more_fields(body: bytes) -> MoreFields:
    """Return further fields of a body that `read_fields` accepted. This reads all of it again.

    Raises:
        InvalidError: it is no JSON object.
    """
    try:
        return _MORE.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return _loosely(body, MoreFields, _LOOSE_MORE)


def _loosely(body: bytes, kind: type[_Fields], loose: msgspec.json.Decoder[Any]) -> _Fields:
    """Read a body of which some field has an unusual type: `"true"` is true, as in vLLM, and what makes no sense counts
    as left out, since the engine knows better what to say about it. `model` is a string or an error."""
    try:
        raw = loose.decode(body.removeprefix(codecs.BOM_UTF8))
    except msgspec.ValidationError:
        raise InvalidError("the body is no JSON object", hint=_HINT) from None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidError(f"the body is no valid JSON: {error}", hint=_HINT) from None
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        value = getattr(raw, field.name)
        try:
            if value:
                found[field.name] = msgspec.json.decode(value, type=field.type, strict=field.name == "model")
        except (msgspec.MsgspecError, RecursionError):
            if field.name == "model":
                raise InvalidError("`model` is no string", hint=_HINT) from None
    return kind(**found)
