"""Chat and text completions: answered at once if nothing delays them, otherwise after a wait or as a stream."""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from garrison.sim.api.bodies import dumps, error, error_body, ok
from garrison.sim.api.calls import Call, chat_call, check_lengths, completion_call, json_object
from garrison.sim.engine import Refusal
from garrison.sim.http.messages import ConnectionDroppedError, Later, Request, Response
from garrison.sim.state import ServerState
from garrison.sim.text import Answer, answer, answer_key

__all__ = ["generate"]

_YIELD_EVERY = 32
"""Tokens after which a stream without a pace yields to the event loop."""


def generate(state: ServerState, request: Request, *, chat: bool) -> Response | Later:
    """Answer `/v1/chat/completions` and `/v1/completions`."""
    shape = state.config.error_shape
    body = json_object(request)
    if isinstance(body, Refusal):
        return error(body, shape)
    call = chat_call(body) if chat else completion_call(body)
    if isinstance(call, Refusal):
        return error(call, shape)
    refusal = _served(state, call.model) or check_lengths(call, state.config.max_model_len)
    if refusal is not None:
        return error(refusal, shape)
    if call.stream:
        return Response(200, _stream(state, call), "text/event-stream; charset=utf-8")
    paced = state.faults.ttft or state.faults.tokens_per_second
    if paced or not state.awake.is_set() or state.slots.locked():
        return partial(_whole_later, state, call)
    return _whole(state, call, _answers(state, call))


def _served(state: ServerState, model: str) -> Refusal | None:
    if state.faults.disguise == "wrong-base" and model not in ("", *state.base_names):
        return Refusal(404, "NotFoundError", f"The model `{model}` does not exist.", "model")
    return None if model in state.base_names else state.engine.serves(model)


def _answers(state: ServerState, call: Call) -> list[Answer] | Refusal:
    """Return one answer per prompt and choice, in that order. Reads adapters; reports to the server if that killed the
    engine."""
    config = state.config
    found: list[Answer] = []
    for prompt in call.prompts:
        weights = state.engine.weights(call.model, prompt.tokens)
        if isinstance(weights, Refusal):
            if state.engine.dead:
                state.counters.finished["error"] += 1
                state.died()
            return weights
        room = config.max_model_len - len(prompt.tokens)
        limit = room if call.max_tokens is None else min(room, call.max_tokens)
        for choice in range(call.choices):
            key = answer_key(prompt.text, config.model, weights, config.seed + call.seed + choice)
            found.append(answer(key, limit, stop=call.stop, ignore_eos=call.ignore_eos, at_least=call.min_tokens))
    return found


async def _whole_later(state: ServerState, call: Call) -> Response:
    async with state.slot(call.model, call.prompt_tokens):
        answers = _answers(state, call)
        if not isinstance(answers, Refusal):
            longest = max(len(one.tokens) for one in answers)
            pace = state.faults.tokens_per_second
            await state.sleep(state.faults.ttft + ((longest - 1) / pace if pace else 0.0))
        return _whole(state, call, answers)


def _whole(state: ServerState, call: Call, answers: list[Answer] | Refusal) -> Response:
    if isinstance(answers, Refusal):
        return error(answers, state.config.error_shape)
    for one in answers:
        state.counters.finished[one.finish_reason] += 1
    usage = _usage(call, sum(len(one.tokens) for one in answers))
    _count(state, usage)
    choices = [_choice(call, at, one) for at, one in enumerate(answers)]
    body: dict[str, Any] = {
        "id": ("chatcmpl-" if call.chat else "cmpl-") + state.identity(),
        "object": "chat.completion" if call.chat else "text_completion",
        "created": int(time.time()),
        "model": call.model or state.base_names[0],
        "choices": choices,
        "service_tier": None,
        "system_fingerprint": _fingerprint(state),
        "usage": usage | {"prompt_tokens_details": None, "completion_tokens_details": None},
    }
    if call.chat:
        body |= {"prompt_logprobs": None, "prompt_token_ids": None, "prompt_text": None}
    return ok(body | {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None})


def _choice(call: Call, at: int, one: Answer) -> dict[str, Any]:
    end = {"logprobs": None, "finish_reason": one.finish_reason, "stop_reason": one.stop_reason, "token_ids": None}
    if not call.chat:
        more = {"prompt_logprobs": None, "prompt_token_ids": None, "routed_experts": None}
        return {"index": at, "text": one.text} | end | more
    empty = {"refusal": None, "annotations": None, "audio": None, "function_call": None, "reasoning": None}
    return {"index": at, "message": {"role": "assistant", "content": one.text} | empty} | end | {"routed_experts": None}


async def _stream(state: ServerState, call: Call) -> AsyncIterator[bytes]:
    """Yield server-sent events. The head is sent already, so the death of the engine is an event, not a status."""
    shell = _shell(state, call)
    finished = False
    try:
        async with state.slot(call.model, call.prompt_tokens):
            answers = _answers(state, call)
            if isinstance(answers, Refusal):
                finished = True
                yield b"data: " + error_body(answers, state.config.error_shape) + b"\n\n"
                yield b"data: [DONE]\n\n"
                return
            if state.faults.ttft:
                await state.sleep(state.faults.ttft)
            if call.chat:
                for at in range(len(answers)):
                    yield _event(shell, _opening(at))
            async for event in _tokens(state, call, shell, answers):
                yield event
            usage = _usage(call, sum(len(one.tokens) for one in answers))
            _count(state, usage)
            finished = True
            if call.include_usage:
                yield _event(shell, {"choices": [], "usage": usage, "system_fingerprint": _fingerprint(state)})
            yield b"data: [DONE]\n\n"
    finally:
        if not finished:
            state.counters.finished["abort"] += 1


def _shell(state: ServerState, call: Call) -> bytes:
    """Return what every event of a stream begins with: an open JSON object."""
    fields = {
        "id": ("chatcmpl-" if call.chat else "cmpl-") + state.identity(),
        "object": "chat.completion.chunk" if call.chat else "text_completion",
        "created": int(time.time()),
        "model": call.model or state.base_names[0],
    }
    return dumps(fields)[:-1] + b","


async def _tokens(state: ServerState, call: Call, shell: bytes, answers: list[Answer]) -> AsyncIterator[bytes]:
    sent = 0
    for at, one in enumerate(answers):
        # An answer that a stop string removed entirely still needs an event with the finish reason.
        pieces = one.tokens or ("",)
        for nth, piece in enumerate(pieces, 1):
            if sent == state.faults.cut_after_tokens:
                state.counters.injected["cut"] += 1
                raise ConnectionDroppedError
            if sent and state.faults.tokens_per_second:
                await state.sleep(1 / state.faults.tokens_per_second)
            elif sent % _YIELD_EVERY == _YIELD_EVERY - 1:
                await asyncio.sleep(0)
            asleep = state.engine.sleep_level is not None
            reason = "abort" if asleep else one.finish_reason if nth == len(pieces) else None
            yield _event(shell, _delta(call, at, piece, reason, one.stop_reason))
            sent += 1
            if reason is not None:
                state.counters.finished[reason] += 1
                break


def _event(shell: bytes, rest: dict[str, Any]) -> bytes:
    return b"data: " + shell + dumps(rest)[1:] + b"\n\n"


def _opening(at: int) -> dict[str, Any]:
    delta = {"role": "assistant", "content": ""}
    choice = {"index": at, "delta": delta, "logprobs": None, "finish_reason": None}
    return {"choices": [choice], "prompt_token_ids": None, "prompt_text": None}


def _delta(call: Call, at: int, piece: str, reason: str | None, stop_reason: str | None) -> dict[str, Any]:
    why = {"stop_reason": stop_reason if reason == "stop" else None}
    if not call.chat:
        choice = {"index": at, "text": piece, "logprobs": None, "finish_reason": reason} | why
        return {"choices": [choice | {"prompt_token_ids": None, "token_ids": None}]}
    choice = {"index": at, "delta": {"content": piece}, "logprobs": None, "finish_reason": reason}
    return {"choices": [choice | (why if reason else {}) | {"token_ids": None}]}


def _usage(call: Call, generated: int) -> dict[str, Any]:
    asked = call.prompt_tokens
    return {"prompt_tokens": asked, "total_tokens": asked + generated, "completion_tokens": generated}


def _count(state: ServerState, usage: dict[str, Any]) -> None:
    state.counters.prompt_tokens += usage["prompt_tokens"]
    state.counters.generation_tokens += usage["completion_tokens"]


def _fingerprint(state: ServerState) -> str:
    return f"vllm-{state.config.version}-{zlib.crc32(state.config.model.encode()):08x}"
