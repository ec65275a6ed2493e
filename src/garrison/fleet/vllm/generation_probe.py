"""Probes whether a loaded adapter generates text, by comparing one token of the adapter with one of its base model."""

import math
from dataclasses import dataclass, replace

from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.vllm.answers import Completion
from garrison.fleet.vllm.api import VllmApi

__all__ = ["BaseAnswers", "ProbeVerdict", "judge_probe", "probe"]

BaseAnswers = dict[tuple[str, bool], Completion | Failure]
"""Answers by (base model, whether the log probability was requested)."""

PROMPT = "The quick brown fox jumps over the lazy dog, and the dog looks up at the fox and does not move at all."
"""Must not be shorter: on a CPU with AMX, vLLM 0.32 dies of an illegal instruction if the first prompt after its start
has four tokens, and the probe may be that first prompt."""
SEED = 7
SHORT_SECONDS = 5.0
"""Deadline of a probe that need not be answered."""
LONG_SECONDS = 60.0
"""Deadline of a probe that must be answered."""
_SAME = 1e-6

_NO_ANSWER = frozenset(
    {FailureCode.SERVICE_TIMEOUT, FailureCode.NETWORK_FAILURE, FailureCode.THROTTLING, FailureCode.NOT_STABILIZED}
)


@dataclass(frozen=True, slots=True)
class ProbeVerdict:
    """The result of a probe. With a `failure` the adapter must be unloaded; a `note` is no reason to unload it."""

    failure: Failure | None = None
    note: str | None = None


async def probe(api: VllmApi, name: str, base: str, *, must_answer: bool, base_answers: BaseAnswers) -> ProbeVerdict:
    """Request a token from adapter `name`, and one from its base model to compare it with.

    Args:
        must_answer: treat no answer in time as a failure instead of a note, and compare the tokens' probabilities too,
            for which vLLM pauses for some seconds once after its start.
        base_answers: earlier answers of this target's base models; read and updated.
    """
    seconds = LONG_SECONDS if must_answer else SHORT_SECONDS
    adapter = await api.complete(name, PROMPT, seed=SEED, timeout=seconds, logprob=must_answer)
    if isinstance(adapter, Failure) and adapter.code in _NO_ANSWER:
        return judge_probe(adapter, None, must_answer=must_answer)
    key = (base, must_answer)
    if key not in base_answers:
        base_answers[key] = await api.complete(base, PROMPT, seed=SEED, timeout=seconds, logprob=must_answer)
    return judge_probe(adapter, base_answers[key], must_answer=must_answer)


def judge_probe(adapter: Completion | Failure, base: Completion | Failure | None, *, must_answer: bool) -> ProbeVerdict:
    """Judge the two answers; `base` is None if the base model was not asked.

    A server that refuses its base model in the same way does not generate text at all (an embedding model, a key for
    management only), which is not the adapter's fault.
    """
    if isinstance(adapter, Failure):
        if adapter.code in _NO_ANSWER:
            told = f"no answer to the probe: {adapter.message}"
            return ProbeVerdict(failure=_probe_failure(adapter, told)) if must_answer else ProbeVerdict(note=told)
        if not must_answer and _refused_alike(adapter, base):
            return ProbeVerdict(note=f"not probed: the server refuses its base model too: {adapter.message}")
        return ProbeVerdict(failure=_probe_failure(adapter, f"loaded, but the probe failed: {adapter.message}"))
    if isinstance(base, Completion) and _same(adapter, base):
        return ProbeVerdict(note="answers like the base model: same token, same probability")
    if isinstance(base, Completion) and adapter.token == base.token and not must_answer:
        return ProbeVerdict(note="same first token as the base model; `probe: true` also compares the probability")
    return ProbeVerdict()


def _probe_failure(failure: Failure, message: str) -> Failure:
    """Blame the adapter, not the target, and rule out a retry: another load would have the same result."""
    return replace(failure, message=message, recoverable=False, cause=None)


def _refused_alike(adapter: Failure, base: Completion | Failure | None) -> bool:
    if not isinstance(base, Failure) or adapter.code is FailureCode.SERVICE_INTERNAL_ERROR:
        return False
    return base.code is adapter.code


def _same(one: Completion, other: Completion) -> bool:
    if one.logprob is None or other.logprob is None or one.token != other.token:
        return False
    return math.isclose(one.logprob, other.logprob, abs_tol=_SAME)
