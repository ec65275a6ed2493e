"""Ollama's requests as requests of OpenAI's API."""

from dataclasses import dataclass, replace
from typing import Any

from garrison.base.errors import InvalidError
from garrison.gateway.ollama.translation.bodies import ChatBody, EmbedBody, GenerateBody, Message
from garrison.gateway.ollama.translation.messages import openai_messages, openai_tools
from garrison.gateway.ollama.translation.options import read_options

__all__ = ["Asked", "chat_request", "embed_request", "generate_request"]

_CHAT = "/v1/chat/completions"
_COMPLETIONS = "/v1/completions"
_EMBEDDINGS = "/v1/embeddings"
_LEVELS = ("low", "medium", "high", "max")
_MOST_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for the engine, without the name of its model.

    Attributes:
        num_ctx: as in `Options`.
        endless: it sets no limit to its answer, where vLLM would end after 16 tokens.
    """

    path: str
    body: dict[str, Any]
    num_ctx: int | None = None
    endless: bool = False

    def of(self, model: str, served: int | None = None) -> dict[str, Any]:
        """Return the whole body.

        Args:
            served: the context of the model in tokens, where it is known.
        """
        limit = {"max_tokens": served} if self.endless and served is not None else {}
        return {"model": model, **self.body, **limit}


def chat_request(body: ChatBody) -> Asked:
    """Translate `POST /api/chat`. Raises InvalidError."""
    given = body.messages or []
    found = _common(_CHAT, body, {"messages": openai_messages(given)})
    if body.tools:
        found.body["tools"] = openai_tools(body.tools)
    return found


def generate_request(body: GenerateBody) -> Asked:
    """Translate `POST /api/generate`: a chat of one message, or a completion where the prompt is not to be formatted.

    Raises:
        InvalidError: it asks for what no engine does.
    """
    if body.template:
        raise InvalidError("template is not supported: the engine has its own", hint="Send raw: true, or leave it out.")
    if body.context:
        raise InvalidError("context is not supported", hint="Send the conversation to /api/chat.")
    if body.raw or body.suffix:
        return _completion(body)
    system = [Message("system", body.system)] if body.system else []
    prompt = Message("user", body.prompt, images=body.images)
    return _common(_CHAT, body, {"messages": openai_messages([*system, prompt])})


def embed_request(body: EmbedBody) -> Asked:
    """Translate `POST /api/embed`. An input that is too long is cut, unless the client refuses that."""
    texts = [body.input] if isinstance(body.input, str) and body.input else list(body.input or ())
    options = read_options(body.options)
    told: dict[str, Any] = {"input": texts, "encoding_format": "float"}
    if body.truncate is not False:
        told["truncate_prompt_tokens"] = -1  # vLLM: to what the model takes
    return Asked(_EMBEDDINGS, told, options.num_ctx)


def _completion(body: GenerateBody) -> Asked:
    if body.raw and body.system:
        raise InvalidError("raw mode does not support system", hint="Write it into the prompt.")
    if body.images:
        raise InvalidError("images need the model's template", hint="Leave out raw and suffix.")
    if body.logprobs:
        raise InvalidError("logprobs need the model's template", hint="Leave out raw and suffix.")
    prompt = "\n".join(one for one in (body.system, body.prompt) if one)
    told = {"prompt": prompt} | ({"suffix": body.suffix} if body.suffix else {})
    found = _common(_COMPLETIONS, body, told)
    return replace(found, endless="max_tokens" not in found.body)


def _common(path: str, body: ChatBody | GenerateBody, told: dict[str, Any]) -> Asked:
    options = read_options(body.options)
    told = {**told, **options.parameters, **_response_format(body.format), "stream": body.stream is not False}
    if told["stream"]:
        told["stream_options"] = {"include_usage": True}
    if path == _CHAT:
        told |= _thinking(body.think) | _logprobs(body)
    return Asked(path, told, options.num_ctx)


def _response_format(given: Any) -> dict[str, Any]:
    if given is None or given == "":
        return {}
    if given == "json":
        return {"response_format": {"type": "json_object"}}
    if isinstance(given, dict):
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "format", "schema": given}}}
    raise InvalidError(f"format is {repr(given)[:80]}", hint='Send "json" or a JSON schema.')


def _thinking(think: bool | str | None) -> dict[str, Any]:
    """How a model is told whether to think: by the variables of its template. Templates have two names for it."""
    if think is None:
        return {}
    if isinstance(think, str) and think not in _LEVELS:
        raise InvalidError(f"think is {think[:80]!r}", hint='Send true, false, "low", "medium", "high" or "max".')
    on = think is not False
    variables: dict[str, Any] = {"enable_thinking": on, "thinking": on}
    if isinstance(think, bool):
        return {"chat_template_kwargs": variables}
    return {"reasoning_effort": think, "chat_template_kwargs": {**variables, "reasoning_effort": think}}


def _logprobs(body: ChatBody | GenerateBody) -> dict[str, Any]:
    most = body.top_logprobs or 0
    if not 0 <= most <= _MOST_LOGPROBS:
        raise InvalidError("top_logprobs must be between 0 and 20", hint="Leave it out for none.")
    return {"logprobs": True, "top_logprobs": most} if body.logprobs else {}
