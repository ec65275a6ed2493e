"""What a token from the adapter and one from its base tell."""

from typing import Any

import pytest

from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.target import TargetSpec
from garrison.fleet.vllm.answers import Completion
from garrison.fleet.vllm.api import VllmApi
from garrison.fleet.vllm.generation_probe import PROMPT, BaseAnswers, judge_probe, probe
from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError
from garrison.testing.clock import FakeClock
from garrison.testing.targets import MemoryFault, MemoryTarget, MemoryTargets, refusal

A = Completion(" a", -1.5)


def failure(code: FailureCode) -> Failure:
    return Failure(code=code, message="no")


SLOW, BROKEN = failure(FailureCode.SERVICE_TIMEOUT), failure(FailureCode.SERVICE_INTERNAL_ERROR)
REFUSED = failure(FailureCode.INVALID_REQUEST)

TABLE: list[tuple[str, Completion | Failure, Completion | Failure | None, bool, bool, str]] = [
    ("another token", A, Completion(" b", -1.5), False, False, ""),
    ("the same token, less likely, asked for", A, Completion(" a", -1.6), True, False, ""),
    ("the same token, as likely", A, A, False, False, "answers like the base"),
    ("the same token, nobody asked how likely", Completion(" a"), Completion(" a"), False, False, "first token"),
    ("the same token, nobody knows how likely", Completion(" a"), Completion(" a"), True, False, ""),
    ("the base does not answer", A, SLOW, False, False, ""),
    ("no answer in time", SLOW, None, False, False, "no answer to the probe"),
    ("no answer in time, and it must", SLOW, None, True, True, ""),
    ("throttled", failure(FailureCode.THROTTLING), None, False, False, "no answer to the probe"),
    ("refused", REFUSED, A, False, True, ""),
    ("refused, and the base too", REFUSED, REFUSED, False, False, "not probed"),
    ("refused, and the base too, and it must", REFUSED, REFUSED, True, True, ""),
    ("broken", BROKEN, A, False, True, ""),
    ("broken, and the base too", BROKEN, BROKEN, False, True, ""),
]


@pytest.mark.parametrize(
    ("adapter", "base", "must", "fails", "note"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_judge(adapter: Any, base: Any, must: bool, fails: bool, note: str) -> None:
    verdict = judge_probe(adapter, base, must_answer=must)
    assert (verdict.failure is not None) == fails
    assert (note in (verdict.note or "")) if note else verdict.note is None
    if verdict.failure:
        assert not verdict.failure.recoverable


async def run(server: MemoryTarget, answers: BaseAnswers | None = None, *, must: bool = False) -> tuple[Any, list[str]]:
    targets, spec = MemoryTargets({"edge": server}), TargetSpec(name="edge", base_url="http://edge")
    async with targets.open(spec) as connection:
        api = VllmApi(connection, spec, FakeClock())
        kept = {} if answers is None else answers
        verdict = await probe(api, "sql", "acme/tiny", must_answer=must, base_answers=kept)
    return verdict, [one.json["model"] for one in targets.requests]


@pytest.mark.parametrize(("must", "note"), [(False, "first token as the base model"), (True, "answers like the base")])
async def test_an_adapter_that_changes_nothing_is_noted(must: bool, note: str) -> None:
    verdict, asked = await run(MemoryTarget(served={"sql": "/m"}, idle={"/m"}), must=must)
    assert note in verdict.note
    assert asked == ["sql", "acme/tiny"]


async def test_the_base_is_asked_once_a_target() -> None:
    answers: dict[str, Completion | Failure] = {}
    await run(MemoryTarget(served={"sql": "/m"}), answers)
    verdict, asked = await run(MemoryTarget(served={"sql": "/m"}), answers)
    assert verdict.failure is verdict.note is None
    assert asked == ["sql"]


async def test_after_no_answer_the_base_is_not_asked() -> None:
    fault = MemoryFault("/v1/completions", TransportError(TransportCause.TIMEOUT, "5 s", sent=True))
    verdict, asked = await run(MemoryTarget(served={"sql": "/m"}, faults=[fault]))
    assert "no answer to the probe" in verdict.note
    assert asked == ["sql"]


async def test_an_adapter_that_breaks_the_engine_fails() -> None:
    dead = refusal(500, "InternalServerError", "EngineCore encountered an issue.")
    verdict, _ = await run(MemoryTarget(served={"sql": "/m"}, faults=[MemoryFault("/v1/completions", dead)]))
    assert verdict.failure is not None


def test_the_prompt_is_not_a_short_one() -> None:
    """A token is a word at most: a first prompt of four kills a vLLM on a CPU with AMX."""
    assert len(PROMPT.split()) >= 16
