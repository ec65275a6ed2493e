"""Messages, images, tools and calls of tools, from Ollama's form to OpenAI's."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from garrison.base.errors import InvalidError
from garrison.gateway.ollama.translation.bodies import Message, ToolCall

__all__ = ["image_url", "openai_messages", "openai_tools", "user_content"]

_encoded = msgspec.json.Encoder().encode
_SNIFFED = 16
"""Characters of base64 that hold what tells the formats apart: twelve bytes."""
_FORMATS = ((b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF8", "gif"), (b"BM", "bmp"))


def openai_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Translate a conversation.

    Ollama's clients need not give calls of tools an id, which OpenAI's API needs to tell which result belongs to which
    call. A result without one belongs to the first call of its tool, else to the first call, that has none yet.

    Raises:
        InvalidError: an image is no base64, or the arguments of a call are no object.
    """
    found: list[dict[str, Any]] = []
    open_calls: list[tuple[str, str]] = []  # id and name of each call without a result
    number = 0
    for message in messages:
        told: dict[str, Any] = {"role": message.role.lower(), "content": message.content or ""}
        if message.images:
            told["content"] = user_content(told["content"], message.images)
        if message.thinking:  # vLLM's name, and that of llama.cpp and of older vLLMs
            told |= {"reasoning": message.thinking, "reasoning_content": message.thinking}
        if message.tool_calls:
            calls = []
            for call in message.tool_calls:
                name = call.id or f"call_{number}"
                number += 1
                open_calls.append((name, call.function.name))
                calls.append(_tool_call(call, name))
            told["tool_calls"] = calls
        if told["role"] == "tool":
            told |= _result(message, open_calls)
        found.append(told)
    return found


def user_content(text: str, images: Sequence[str]) -> list[dict[str, Any]]:
    """Return a text and its images as the parts of one content. Raises InvalidError."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    return parts + [{"type": "image_url", "image_url": {"url": image_url(one)}} for one in images]


def image_url(image: str) -> str:
    """Return an image as a data URI, with the format that its first bytes show.

    Args:
        image: base64; a data URI is returned as it is.

    Raises:
        InvalidError: it is neither.
    """
    if image.startswith("data:"):
        return image
    try:
        start = base64.b64decode(image[:_SNIFFED], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidError("an image is not base64", hint="Send the base64 of the file, without white space.") from None
    kind = next((name for sign, name in _FORMATS if start.startswith(sign)), "jpeg")
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        kind = "webp"
    return f"data:image/{kind};base64,{image}"


def openai_tools(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return tools, which have the same form in both APIs but for a type that Ollama's clients may leave out."""
    return [{"type": "function", **one} for one in tools]


def _tool_call(call: ToolCall, name: str) -> dict[str, Any]:
    arguments = call.function.arguments
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict | str):
        raise InvalidError(f"the arguments of the call of {call.function.name!r} are no object", hint="Send an object.")
    text = arguments if isinstance(arguments, str) else _encoded(arguments).decode()
    return {"id": name, "type": "function", "function": {"name": call.function.name, "arguments": text}}


def _result(message: Message, open_calls: list[tuple[str, str]]) -> dict[str, Any]:
    """Say which call the result of a tool belongs to, and take that call out."""
    if message.tool_call_id:
        at = next((at for at, one in enumerate(open_calls) if one[0] == message.tool_call_id), None)
        found = message.tool_call_id
    else:
        named = (at for at, one in enumerate(open_calls) if one[1] == message.tool_name)
        at = next(named, 0 if open_calls else None)
        found = open_calls[at][0] if at is not None else "call_0"
    if at is not None:
        del open_calls[at]
    told = {"tool_call_id": found}
    return told | {"name": message.tool_name} if message.tool_name else told
