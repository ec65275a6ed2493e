"""Typed client for the vLLM routes that Garrison uses, over one connection.

`load_inplace` is never sent: it makes every later batch read the adapter from disk. `base_model_name` is not sent
either, since vLLM ignores it: an adapter is attached to the served base model, and the list is checked afterwards.
"""

from dataclasses import dataclass, replace

from garrison.base.clock import Clock
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.observation import Cause, Sighting, cause_of
from garrison.fleet.values.target import TargetSpec
from garrison.fleet.vllm.answers import (
    Completion,
    completion_of,
    load_failure,
    load_timeout,
    transport_failure,
    unload_failure,
)
from garrison.fleet.vllm.model_list import judge
from garrison.net.transport import Answer, Connection, TransportError

__all__ = ["Reply", "VllmApi"]


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to a request that changes the server.

    Attributes:
        failure: None if the server confirmed the request; only the list shows what it did.
        sent: the request was sent.
        uncertain: the request was sent, and the answer does not tell whether it was carried out.
    """

    failure: Failure | None = None
    sent: bool = True
    uncertain: bool = False


class VllmApi:
    """The routes of one server. No call raises for errors of the server or the network."""

    def __init__(self, connection: Connection, target: TargetSpec, clock: Clock) -> None:
        self._connection = connection
        self._target = target
        self._clock = clock

    async def list(self, base: str | None) -> Sighting:
        """Request and judge `GET /v1/models`. The list must contain the base model `base`; None accepts any."""
        started, now = self._clock.monotonic(), self._clock.now()
        try:
            answer = await self._connection.request("GET", "/v1/models", timeout=self._target.timeout)
        except TransportError as error:
            return Sighting(target=self._target.name, at=now, cause=cause_of(error), detail=error.detail)
        verdict = judge(answer, base, now)
        return Sighting(
            target=self._target.name,
            at=now,
            cause=verdict.cause,
            detail=verdict.detail,
            served=verdict.served,
            base=verdict.base,
            retry_after=verdict.retry_after,
            seconds=self._clock.monotonic() - started,
        )

    async def load(self, name: str, path: str, *, is_3d: bool = False, staged: bool = False) -> Reply:
        """Send `POST /v1/load_lora_adapter`, within the target's `load_timeout`."""
        body: dict[str, object] = {"lora_name": name, "lora_path": path}
        if is_3d:
            body["is_3d_lora_weight"] = True
        answer = await self._post("/v1/load_lora_adapter", body, self._target.load_timeout)
        if isinstance(answer, Reply):
            late = answer.sent and answer.failure is not None and answer.failure.cause is Cause.TIMEOUT
            if late and answer.failure is not None:
                return replace(answer, failure=load_timeout(answer.failure, self._target.load_timeout))
            return answer
        return _reply(load_failure(answer, path=path, staged=staged, now=self._clock.now()))

    async def unload(self, name: str) -> Reply:
        """Send `POST /v1/unload_lora_adapter`. The failure `NotFound` means that the name is not loaded."""
        answer = await self._post("/v1/unload_lora_adapter", {"lora_name": name}, self._target.timeout)
        if isinstance(answer, Reply):
            return answer
        return _reply(unload_failure(answer, now=self._clock.now()))

    async def complete(
        self, model: str, prompt: str, *, seed: int, timeout: float, logprob: bool = False
    ) -> Completion | Failure:
        """Request one token with `POST /v1/completions` at temperature 0.

        `logprob` also requests its log probability, which the server may omit. vLLM 0.32 compiles for the first such
        request, and serves no other requests for 5 to 14 s meanwhile.
        """
        body = {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0, "seed": seed}
        answer = await self._post("/v1/completions", body | ({"logprobs": 1} if logprob else {}), timeout)
        if logprob and isinstance(answer, Answer) and answer.status == 400:  # `--max-logprobs 0`
            answer = await self._post("/v1/completions", body, timeout)
        if isinstance(answer, Answer):
            return completion_of(answer, now=self._clock.now())
        assert answer.failure is not None
        return answer.failure

    async def _post(self, path: str, body: dict[str, object], timeout: float) -> Answer | Reply:
        try:
            return await self._connection.request("POST", path, json=body, timeout=timeout)
        except TransportError as error:
            return Reply(transport_failure(error), sent=error.sent, uncertain=error.sent)


def _reply(failure: Failure | None) -> Reply:
    """Mark 5xx and timeouts as uncertain: they may come from a proxy whose upstream completed the request."""
    unsure = failure is not None and failure.recoverable and failure.code is not FailureCode.THROTTLING
    return Reply(failure, uncertain=unsure)
