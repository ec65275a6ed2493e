"""What Ollama's clients send. What a field means is said where it is translated; unknown fields are ignored."""

import re
from typing import Any, TypeVar

import msgspec

from garrison.base.errors import InvalidError

__all__ = [
    "ChatBody", "EmbedBody", "EmbeddingsBody", "GenerateBody", "Message", "NamedBody", "ToolCall", "is_zero",
    "read_body",
]  # fmt: skip

_ZERO = re.compile(r"[+-]?(?:0+|(?:0+(?:\.0*)?(?:ns|us|µs|μs|ms|s|m|h))+)\Z")

KeepAlive = float | str | None
"""Seconds, or a duration such as `5m`; negative for ever."""


class CalledFunction(msgspec.Struct, frozen=True):
    name: str = ""
    arguments: Any = None


class ToolCall(msgspec.Struct, frozen=True):
    function: CalledFunction
    id: str | None = None


class Message(msgspec.Struct, frozen=True):
    """One message. Images are base64. A call of a tool has its arguments as an object."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class NamedBody(msgspec.Struct, frozen=True):
    """What names a model and no more. `name` is the older spelling of `model`."""

    model: str = ""
    name: str = ""
    stream: bool | None = None


class ChatBody(msgspec.Struct, frozen=True):
    model: str = ""
    messages: list[Message] | None = None
    tools: list[dict[str, Any]] | None = None
    format: Any = None
    options: dict[str, Any] | None = None
    stream: bool | None = None
    keep_alive: KeepAlive = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class GenerateBody(msgspec.Struct, frozen=True):
    model: str = ""
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[str] | None = None
    format: Any = None
    options: dict[str, Any] | None = None
    stream: bool | None = None
    keep_alive: KeepAlive = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class EmbedBody(msgspec.Struct, frozen=True):
    model: str = ""
    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: int | None = None
    options: dict[str, Any] | None = None
    keep_alive: KeepAlive = None


class EmbeddingsBody(msgspec.Struct, frozen=True):
    """The older call, for one text."""

    model: str = ""
    prompt: str | None = None
    options: dict[str, Any] | None = None
    keep_alive: KeepAlive = None


BodyT = TypeVar("BodyT", bound=msgspec.Struct)


def read_body(data: bytes, kind: type[BodyT]) -> BodyT:
    """Return a body. Its content type does not matter: `curl -d` sends another one.

    Raises:
        InvalidError: there is none, it is no JSON object, or a field has another type.
    """
    if not data.strip():
        raise InvalidError("missing request body", hint="Send a JSON object with `model`.")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidError(f"the body cannot be read: {error}", hint="Send a JSON object with `model`.") from None


def is_zero(keep_alive: KeepAlive) -> bool:
    """Whether a model is to be unloaded at once."""
    if isinstance(keep_alive, str):
        return _ZERO.match(keep_alive.strip()) is not None
    return keep_alive == 0
