import signal

import pytest

from garrison.launch.run.failure import ended_text, signal_name, stop_cause


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (9, "SIGKILL"),
        (15, "SIGTERM"),
        (int(signal.SIGRTMIN), "SIGRTMIN"),
        (int(signal.SIGRTMIN) + 3, "SIGRTMIN+3"),
        (int(signal.SIGRTMAX) - 1, f"SIGRTMIN+{int(signal.SIGRTMAX) - 1 - int(signal.SIGRTMIN)}"),
        (int(signal.SIGRTMAX), "SIGRTMAX"),
        (32, "signal 32"),  # glibc keeps it for itself
        (99, "signal 99"),
    ],
)
def test_every_signal_has_a_name(number: int, name: str) -> None:
    assert signal_name(number) == name


def test_how_it_ended() -> None:
    assert ended_text(3, "at its start") == "exited with 3 at its start"
    assert ended_text(-37, "while it was serving") == "was killed by SIGRTMIN+3 while it was serving"
    assert ended_text(None, "x") == "did not exit after a fatal error"
    assert ended_text(None, "while it was serving", lost=True) == "lost its supervising process while it was serving"


@pytest.mark.parametrize(
    ("code", "lost", "fatal", "given_up", "said"),
    [
        (-9, False, False, False, "its main process was killed by SIGKILL"),
        (3, False, True, False, "its main process exited with 3"),
        (0, False, False, False, "its main process exited with 0"),
        (None, True, False, False, "its supervising process was killed"),
        (None, False, True, False, "it reported a fatal error"),
        (None, False, False, True, "it did not become ready"),
        (None, False, False, False, "the run was cancelled"),
    ],
)
def test_why_what_is_left_is_stopped(code: int | None, lost: bool, fatal: bool, given_up: bool, said: str) -> None:
    assert stop_cause(code, lost=lost, fatal=fatal, given_up=given_up) == said
