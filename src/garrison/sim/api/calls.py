"""Parse a request body: which model, which prompts, how many tokens. Pure; the messages are vLLM's."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from garrison.sim.api.bodies import invalid
from garrison.sim.engine import Refusal
from garrison.sim.http.messages import Request
from garrison.sim.text import split

__all__ = ["Call", "Prompt", "chat_call", "check_lengths", "completion_call", "json_object", "prompts_of"]

_COMPLETION_DEFAULT = 16
"""`max_tokens` of `/v1/completions` if the client sets none."""


@dataclass(frozen=True, slots=True)
class Prompt:
    text: str
    tokens: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One generation request.

    Attributes:
        model: "" for the base model.
        max_tokens: None for as many as fit.
        choices: answers per prompt (`n`).
    """

    chat: bool
    model: str
    prompts: tuple[Prompt, ...]
    max_tokens: int | None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    ignore_eos: bool = False
    seed: int = 0
    choices: int = 1

    @property
    def prompt_tokens(self) -> int:
        return sum(len(prompt.tokens) for prompt in self.prompts)


def json_object(request: Request) -> dict[str, Any] | Refusal:
    """Return the body, or a refusal unless it is a JSON object with the right content type."""
    media = request.headers.get("content-type", "").lower().partition(";")[0].strip()
    if media != "application/json":
        text = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        return Refusal(400, "Bad Request", text)
    try:
        body = json.loads(request.body)
    except UnicodeDecodeError:
        return Refusal(400, "Bad Request", "There was an error parsing the body")
    except json.JSONDecodeError as error:
        return invalid("json_invalid", f"body.{error.pos}", "JSON decode error", {}, error=error.msg)
    except RecursionError:
        return invalid("json_invalid", "body.0", "JSON decode error", {}, error="nested too deeply")
    if isinstance(body, dict):
        return body
    text = "Input should be a valid dictionary or object to extract fields from"
    return invalid("model_attributes_type", "body", text, body)


def chat_call(body: Mapping[str, Any]) -> Call | Refusal:
    messages = body.get("messages")
    if "messages" not in body:
        return invalid("missing", "body.messages", "Field required", body)
    if not isinstance(messages, list):
        return invalid("list_type", "body.messages", "Input should be a valid list", messages)
    if not messages:
        text = "Cannot apply chat template to an empty conversation. Provide at least one message."
        return Refusal(400, "BadRequestError", text)
    lines: list[str] = []
    for at, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            return invalid("missing", f"body.messages.{at}.role", "Field required", message)
        lines.append(f"<|{message['role']}|>\n{_content(message.get('content'))}\n")
    lines.append("<|assistant|>\n")
    text = "".join(lines)
    limit = body.get("max_completion_tokens")
    return _call(
        body, (Prompt(text, tuple(split(text))),), limit if limit is not None else body.get("max_tokens"), True
    )


def completion_call(body: Mapping[str, Any]) -> Call | Refusal:
    prompts = prompts_of(body.get("prompt"))
    if not prompts:
        text = "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"
        return Refusal(400, "BadRequestError", text, "prompt")
    return _call(body, prompts, body.get("max_tokens", _COMPLETION_DEFAULT), False)


def prompts_of(given: Any) -> tuple[Prompt, ...]:
    """Parse a text, a list of texts, token ids, or lists of token ids; return an empty tuple for anything else."""
    if isinstance(given, str):
        return (Prompt(given, tuple(split(given))),) if given else ()
    if not isinstance(given, list) or not given:
        return ()
    if all(isinstance(item, int) for item in given):
        tokens = tuple(map(str, given))
        return (Prompt(" ".join(tokens), tokens),)
    parts = [prompts_of(item) if isinstance(item, str | list) else () for item in given]
    return tuple(part[0] for part in parts) if all(len(part) == 1 for part in parts) else ()


def check_lengths(call: Call, longest: int) -> Refusal | None:
    """Return a refusal if the context is too short. A `max_tokens` that only exceeds what the prompt leaves is cut."""
    if call.max_tokens is not None and call.max_tokens > longest:
        text = f"max_tokens={call.max_tokens} cannot be greater than max_model_len={longest}."
        return _bad(f"{text} Please request fewer output tokens.", "max_tokens", call.max_tokens)
    for prompt in call.prompts:
        count = len(prompt.tokens)
        if count > longest:
            return _bad(
                f"This model's maximum context length is {longest} tokens. However, your prompt contains {count} input "
                "tokens, which exceeds this limit even without any output tokens. Please reduce the length of the "
                "input prompt.",
                "input_tokens",
                count,
            )
        if count == longest:
            return _bad("max_tokens must be at least 1, got 0.", "max_tokens", 0)
    return None


def _call(body: Mapping[str, Any], prompts: tuple[Prompt, ...], limit: Any, chat: bool) -> Call | Refusal:
    numbers = {"max_tokens": limit, "min_tokens": body.get("min_tokens"), "seed": body.get("seed"), "n": body.get("n")}
    for name, value in numbers.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            if isinstance(value, str):
                text = "Input should be a valid integer, unable to parse string as an integer"
                return invalid("int_parsing", f"body.{name}", text, value)
            return invalid("int_type", f"body.{name}", "Input should be a valid integer", value)
    for name, low in (("max_tokens", 1), ("n", 1)):
        value = numbers[name]
        if value is not None and value < low:
            return _bad(f"{name} must be at least {low}, got {value}.", name, value)
    model = body.get("model") or ""
    if not isinstance(model, str):
        return invalid("string_type", "body.model", "Input should be a valid string", model)
    stop = body.get("stop") or ()
    words = (stop,) if isinstance(stop, str) else stop
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        return invalid("string_type", "body.stop", "Input should be a valid string", stop)
    options = body.get("stream_options")
    return Call(
        chat=chat,
        model=model,
        prompts=prompts,
        max_tokens=limit,
        min_tokens=numbers["min_tokens"] or 0,
        stop=tuple(words),
        stream=bool(body.get("stream")),
        include_usage=isinstance(options, dict) and bool(options.get("include_usage")),
        ignore_eos=bool(body.get("ignore_eos")),
        seed=numbers["seed"] or 0,
        choices=numbers["n"] or 1,
    )


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(text for text in texts if isinstance(text, str))
    return ""


def _bad(message: str, parameter: str, value: object) -> Refusal:
    return Refusal(400, "BadRequestError", f"{message} (parameter={parameter}, value={value})", parameter)
