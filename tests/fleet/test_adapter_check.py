from dataclasses import replace

import pytest

from garrison.base.errors import ModelInvalidError
from garrison.fleet.artifacts.check import being_written, broken, refusal
from garrison.fleet.values.failure import FailureCode
from garrison.models.adapters.inspect import inspect_adapter


@pytest.fixture
def info(adapter):
    return inspect_adapter(adapter("sql", rank=16))


CASES = {
    "fits": ({}, 16, [], None, None),
    "limit-unknown": ({"max_rank": 512}, None, [], None, None),
    "rank-too-high": ({"max_rank": 17}, 16, [], "rank 17, and edge accepts ranks up to 16", "--max-lora-rank 32"),
    "rank-never": ({"max_rank": 600}, None, [], "vLLM accepts ranks up to 512", "lower rank"),
    "shape": ({}, 16, ["q has 32 inputs, and the base model has 64"], "q has 32 inputs", "trained on acme/tiny"),
    "shapes": ({}, 16, list("abcde"), "a; b; c; and 2 more", "declare"),
    "dora": ({"refused_by_vllm": ("use_dora",)}, 16, [], "vLLM does not load", "plain LoRA"),
}


@pytest.mark.parametrize(("changes", "limit", "misfits", "message", "hint"), CASES.values(), ids=CASES)
def test_refusal(info, changes, limit, misfits, message, hint):
    failure = refusal(replace(info, **changes), target="edge", max_lora_rank=limit, misfits=misfits)
    if message is None:
        assert failure is None
        return
    assert (failure.code, failure.recoverable) == (FailureCode.INVALID_REQUEST, False)
    assert message in failure.message
    assert hint.lower() in failure.hint.lower()


def test_a_broken_one_says_what_the_inspection_said():
    failure = broken(ModelInvalidError("x is cut off", hint="Copy it again."))
    assert (failure.code, failure.message, failure.hint) == ("InvalidRequest", "x is cut off", "Copy it again.")


def test_one_that_is_being_written_is_worth_another_try():
    assert being_written("/a/sql").recoverable
