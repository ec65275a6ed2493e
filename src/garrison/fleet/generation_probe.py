"""Whether a loaded adapter generates: one token with it, one with its base, and what the two tell."""

import math
from dataclasses import dataclass, replace

from garrison.fleet.failure import Failure, FailureCode
from garrison.fleet.vllm_answers import Completion
from garrison.fleet.vllm_api import VllmApi

__all__ = ["BaseAnswers", "ProbeVerdict", "judge_probe", "probe"]

BaseAnswers = dict[tuple[str, bool], Completion | Failure]
"""(base model, whether its probability was asked for) to what it answered."""

PROMPT = "The quick brown fox jumps over the lazy dog, and the dog looks up at the fox and does not move at all."
"""Not shorter: on a CPU with AMX, vLLM 0.32 dies of an illegal instruction when the first prompt since its start has
four tokens, and the probe may be that first prompt."""
SEED = 7
SHORT_SECONDS = 5.0
"""How long an answer is waited for that nobody insists on."""
LONG_SECONDS = 60.0
_SAME = 1e-6

_NO_ANSWER = frozenset(
    {FailureCode.SERVICE_TIMEOUT, FailureCode.NETWORK_FAILURE, FailureCode.THROTTLING, FailureCode.NOT_STABILIZED}
)


@dataclass(frozen=True, slots=True)
class ProbeVerdict:
    """`failure`: the adapter must not stay. `note`: what was seen and is no reason to unload it."""

    failure: Failure | None = None
    note: str | None = None


async def probe(api: VllmApi, name: str, base: str, *, must_answer: bool, base_answers: BaseAnswers) -> ProbeVerdict:
    """Ask the adapter `name` for a token, then its base for one to compare it with.

    Args:
        must_answer: a server that does not answer in time is a failure, not a note; and the tokens' probabilities are
            compared too, for which vLLM stops for some seconds once after its start.
        base_answers: what bases of this target answered before; read and filled.
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
    """What the two answers tell. The base's is None where it was not asked.

    A server that refuses its base in the same way does not generate text at all (an embedding model, a key for
    management only): that is no fault of the adapter.
    """
    if isinstance(adapter, Failure):
        if adapter.code in _NO_ANSWER:
            told = f"the probe had no answer: {adapter.message}"
            return ProbeVerdict(failure=_probe_failure(adapter, told)) if must_answer else ProbeVerdict(note=told)
        if not must_answer and _refused_alike(adapter, base):
            return ProbeVerdict(note=f"not probed: the server refuses its base model too: {adapter.message}")
        return ProbeVerdict(failure=_probe_failure(adapter, f"loaded, but it does not answer: {adapter.message}"))
    if isinstance(base, Completion) and _same(adapter, base):
        return ProbeVerdict(note="answers like the base: the same token with the same probability")
    if isinstance(base, Completion) and adapter.token == base.token and not must_answer:
        return ProbeVerdict(note="its first token is the base's; `probe: true` compares the probability too")
    return ProbeVerdict()


def _probe_failure(failure: Failure, message: str) -> Failure:
    """Of the adapter, not of the target, and not tried again: the load would be as before."""
    return replace(failure, message=message, recoverable=False, cause=None)


def _refused_alike(adapter: Failure, base: Completion | Failure | None) -> bool:
    if not isinstance(base, Failure) or adapter.code is FailureCode.SERVICE_INTERNAL_ERROR:
        return False
    return base.code is adapter.code


def _same(one: Completion, other: Completion) -> bool:
    if one.logprob is None or other.logprob is None or one.token != other.token:
        return False
    return math.isclose(one.logprob, other.logprob, abs_tol=_SAME)
