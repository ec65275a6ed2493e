import pytest

from garrison.base.exit_codes import ExitCode

# The stable contract, written down a second time on purpose: scripts match on the numbers.
CONTRACT = {
    0: "ok",
    1: "invalid",
    2: "port-foreign",
    3: "port-other-user",
    4: "port-unattributable",
    5: "port-stuck",
    10: "model-not-found",
    11: "model-invalid",
    12: "fetch-failed",
    13: "locked",
    14: "disk-full",
    20: "engine-missing",
    21: "engine-died",
    22: "engine-timeout",
    30: "apply-failed",
    31: "unreachable",
    32: "drift",
    33: "conflict",
    40: "denied",
    41: "declined",
    64: "usage",
    70: "internal",
}


@pytest.mark.parametrize(("number", "label"), CONTRACT.items(), ids=CONTRACT.values())
def test_number_and_label(number: int, label: str) -> None:
    assert ExitCode(number).label == label


def test_no_other_numbers() -> None:
    assert {int(code) for code in ExitCode} == set(CONTRACT)


@pytest.mark.parametrize("code", list(ExitCode), ids=lambda code: code.label)
def test_every_code_has_a_meaning(code: ExitCode) -> None:
    assert code.meaning
    assert "\n" not in code.meaning
