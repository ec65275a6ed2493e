"""Try each API of an endpoint once, as a client would, and report what works.

Each step is one value. A step that needs something that an earlier one did not find is skipped, with the reason.
"""

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from garrison.base.redaction import excerpt
from garrison.launch.run.address import Place, place
from garrison.launch.run.ready import no_answer, open_place, other_scheme
from garrison.net.client import HttpConnection, HttpDialer
from garrison.net.errors import TransportCause, TransportError
from garrison.net.sse import server_events

__all__ = ["SmokeReport", "SmokeStep", "smoke"]

_MLX_DEFAULT = "default_model"
_PROMPT = "The capital of France is"


@dataclass(frozen=True, slots=True)
class SmokeStep:
    """`outcome` is `ok`, `failed` or `skipped`; `detail` is what was seen, or the reason."""

    name: str
    outcome: str
    seconds: float
    detail: str


@dataclass(frozen=True, slots=True)
class SmokeReport:
    """`hint` is what to do where the endpoint could not be asked."""

    url: str
    model: str | None
    steps: tuple[SmokeStep, ...]
    hint: str | None = None

    @property
    def ok(self) -> bool:
        return all(step.outcome != "failed" for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "url": self.url, "model": self.model, "steps": [asdict(step) for step in self.steps]}


class _Failed(Exception):  # noqa: N818 - ends a step; it never leaves this module
    """The step failed; the text says how."""


class _Skipped(Exception):  # noqa: N818 - as above
    """The step does not apply; the text says why."""


async def smoke(
    url: str,
    *,
    model: str | None = None,
    served: str | None = None,
    key: str | None = None,
    timeout: float = 60.0,
    insecure: bool = False,
    on_step: Callable[[SmokeStep], None] = lambda _: None,
) -> SmokeReport:
    """Run the steps in order: health, models, completion, chat, streaming chat, and one chat for each adapter.

    Args:
        model: the base model to ask; `served` when None, or the first that is listed.
        served: the name of the model, where that is known. It is asked for although the list fails.
        key: the bearer token; it goes to this origin alone, redirects are not followed.
        timeout: seconds for each answer.
        insecure: accept any certificate.

    Raises:
        InvalidError: `url` is not an address.
    """
    target = place(url)
    dialer = HttpDialer()
    # The client writes headers in latin-1. This keeps the bytes of any other key, which is the server's to refuse.
    authorization = f"Bearer {key}".encode(errors="surrogateescape").decode("latin-1") if key else None
    async with open_place(dialer, target, authorization=authorization, insecure=insecure) as connection:
        run = _Run(dialer, connection, target, model=model, has_key=key is not None, timeout=timeout, on_step=on_step)
        run.served = served
        await run.all()
        return SmokeReport(str(target), run.model, tuple(run.steps), run.hint)


class _Run:
    def __init__(
        self,
        dialer: HttpDialer,
        connection: HttpConnection,
        target: Place,
        *,
        model: str | None,
        has_key: bool,
        timeout: float,
        on_step: Callable[[SmokeStep], None],
    ) -> None:
        self.model = model
        self.served: str | None = None
        self.steps: list[SmokeStep] = []
        self.hint: str | None = None
        self._dialer = dialer
        self._connection = connection
        self._target = target
        self._has_key = has_key
        self._timeout = timeout
        self._on_step = on_step
        self._adapters: list[str] = []
        self._listed = False

    async def all(self) -> None:
        await self._step("health", self._health)
        await self._step("models", self._models)
        self.model = self.model or self.served
        await self._step("completion", self._completion)
        await self._step("chat", self._chat)
        await self._step("streaming chat", self._streaming_chat)
        if not self._adapters:
            await self._step("adapters", self._no_adapters)
        for adapter in self._adapters:
            await self._step(f"adapter {adapter}", partial(self._chat_with, adapter))

    async def _step(self, name: str, act: Callable[[], Awaitable[str]]) -> None:
        begun = time.perf_counter()
        try:
            outcome, detail = "ok", await act()
        except _Skipped as skipped:
            outcome, detail = "skipped", str(skipped)
        except _Failed as failed:
            outcome, detail = "failed", str(failed)
        except TransportError as error:
            outcome, detail = "failed", await self._why(error)
        step = SmokeStep(name, outcome, round(time.perf_counter() - begun, 4), detail)
        self.steps.append(step)
        self._on_step(step)

    async def _why(self, error: TransportError) -> str:
        if error.cause is TransportCause.TIMEOUT:
            return "no answer in time"
        answer = no_answer(error, timeout=self._timeout, tls=self._target.url.startswith("https:"))
        self.hint = self.hint or answer.hint
        if answer.heard and not answer.unsure:
            return f"{answer.reason}; --insecure accepts any certificate"
        if answer.heard and not self.steps and (reason := await other_scheme(self._dialer, self._target)):
            return reason
        return answer.reason

    async def _health(self) -> str:
        answer = await self._connection.request("GET", "/health", timeout=self._timeout)
        if answer.status == 404:
            raise _Skipped("this server has no /health")
        self._expect_200(answer.status, answer.body)
        return "200"

    async def _models(self) -> str:
        if self.model == _MLX_DEFAULT:
            # mlx_lm.server lists the hub cache, not what it serves, and tries to fetch any name but this one.
            raise _Skipped(f"{_MLX_DEFAULT} is never listed")
        body = await self._json("GET", "/v1/models")
        listed = body.get("data")
        if not isinstance(listed, list):
            raise _Failed("the list of models is not a list")
        if not listed:
            raise _Failed("the list of models is empty")
        # Engines other than vLLM list no `parent`: then all entries are base models.
        named = [entry for entry in listed if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
        bases = [entry["id"] for entry in named if not entry.get("parent")]
        self._adapters = [entry["id"] for entry in named if entry.get("parent")]
        self._listed = True
        if not bases:
            raise _Failed(f"the list of models names no model: {excerpt(str(listed), 80)}")
        wanted = self.model
        known = self.served if self.served in (_MLX_DEFAULT, *bases) else None
        self.model = wanted or known or bases[0]
        if wanted and wanted not in bases + self._adapters:
            raise _Failed(f"{wanted!r} is not listed; listed are: {', '.join(bases + self._adapters)}")
        return ", ".join(bases) + (f" and adapters {', '.join(self._adapters)}" if self._adapters else "")

    async def _completion(self) -> str:
        body = await self._json("POST", "/v1/completions", {"prompt": _PROMPT, "max_tokens": 8, "temperature": 0})
        return _quoted(_first_choice(body).get("text"))

    async def _chat(self) -> str:
        return await self._chat_with(self._needed_model())

    async def _no_adapters(self) -> str:
        raise _Skipped("none are served" if self._listed else "could not ask: there is no list of models")

    async def _chat_with(self, model: str) -> str:
        body = await self._json("POST", "/v1/chat/completions", {**_CHAT, "model": model})
        message = _first_choice(body).get("message")
        if not isinstance(message, dict):
            raise _Failed("the answer has no message")
        return _quoted(message.get("content"))

    async def _streaming_chat(self) -> str:
        text, chunks, begun, first = "", 0, time.perf_counter(), 0.0
        request = {**_CHAT, "model": self._needed_model(), "stream": True}
        async with self._connection.stream(
            "POST", "/v1/chat/completions", json=request, timeout=self._timeout
        ) as response:
            if response.status != 200:
                self._expect_200(response.status, await response.read())
            async for event in server_events(response):
                if event.data == "[DONE]":
                    break
                piece = _parsed(event.data)
                if "error" in piece:
                    raise _Failed(f"the stream reports an error: {excerpt(str(piece['error']), 200)}")
                if content := _delta(piece):
                    first = first or time.perf_counter() - begun
                    chunks += 1
                    text += content
            else:
                raise _Failed("the stream ended without [DONE]")
        if not text:
            raise _Failed("the stream had no text")
        return f"{_quoted(text)} in {chunks} chunks, the first after {first * 1000:.0f} ms"

    async def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        if body is not None:
            body = {"model": self._needed_model(), **body}
        answer = await self._connection.request(method, path, json=body, timeout=self._timeout)
        self._expect_200(answer.status, answer.body)
        return _parsed(answer.body.decode("utf-8", "replace"))

    def _needed_model(self) -> str:
        if self.model is None:
            raise _Skipped("no model found")
        return self.model

    def _expect_200(self, status: int, body: bytes) -> None:
        if status == 200:
            return
        if status in (401, 403):
            what = "the key was rejected" if self._has_key else "a key is required; name its variable with --key-env"
            raise _Failed(f"{status}: {what}")
        text = body.decode("utf-8", "replace")
        message = excerpt(text, 200)
        try:
            parsed = json.loads(text)
            error = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
            message = excerpt(str(error.get("message", error) if isinstance(error, dict) else error), 300)
        except (ValueError, RecursionError):
            pass
        raise _Failed(f"{status}: {message}")


_CHAT = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16, "temperature": 0}


def _parsed(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise _Failed(f"the answer is not JSON: {excerpt(text, 80)!r}") from None
    if not isinstance(body, dict):
        raise _Failed(f"the answer is not a JSON object: {excerpt(text, 80)!r}")
    return body


def _first_choice(body: dict[str, Any]) -> dict[str, Any]:
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise _Failed("the answer has no choices")
    return choices[0]


def _delta(piece: dict[str, Any]) -> str:
    """The text that a chunk adds; chunks with a role, usage or the finish reason add none."""
    choices = piece.get("choices")
    if not choices:
        return ""
    choice = choices[0] if isinstance(choices, list) else None
    delta = choice.get("delta") or {} if isinstance(choice, dict) else None
    content = (delta.get("content") or "") if isinstance(delta, dict) else None
    if not isinstance(content, str):
        raise _Failed(f"a chunk of the stream is not one: {excerpt(str(piece), 80)}")
    return content


def _quoted(text: object) -> str:
    if not isinstance(text, str) or not text:
        raise _Failed("the answer has no text")
    flat = " ".join(text.split())
    return f"“{excerpt(flat, 60)}{'…' if len(flat) > 60 else ''}”"
