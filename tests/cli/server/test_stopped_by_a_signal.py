"""Commands that go on until somebody stops them: the exit code is that of the signal."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from garrison.cli.server.instance.logs import print_logs
from garrison.cli.server.instance.looking import _watch
from garrison.cli.server.logs import _print_file
from garrison.cli.signals import StopSignal, code_of

STOPS = [(KeyboardInterrupt(), 130), (StopSignal(15), 143), (StopSignal(1), 129)]


class Server:
    """A server whose events a signal ends."""

    place = "here"

    def __init__(self, stop: KeyboardInterrupt) -> None:
        self._stop = stop

    def events(self, path: str, **_: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "line", {"text": "x"}
        raise self._stop


def watch(stop: KeyboardInterrupt, path: Any) -> int:
    return _watch(Server(stop), None, json=False)  # type: ignore[arg-type]


def follow(stop: KeyboardInterrupt, path: Any) -> int:
    return print_logs(Server(stop), "a", 1, follow=True)  # type: ignore[arg-type]


def follow_file(stop: KeyboardInterrupt, path: Any) -> int:
    def alive() -> bool:
        raise stop

    path.write_text("x\n")
    return _print_file(path, 1, follow=True, alive=alive)


@pytest.mark.parametrize(("stop", "code"), STOPS, ids=["INT", "TERM", "HUP"])
@pytest.mark.parametrize("command", [watch, follow, follow_file])
def test_the_code_is_that_of_the_signal(
    command: Callable[[KeyboardInterrupt, Any], int], stop: KeyboardInterrupt, code: int, tmp_path: Any
) -> None:
    assert command(stop, tmp_path / "log") == code == code_of(stop)


def test_the_end_of_the_engine_is_said(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").write_text("x\n")
    assert _print_file(tmp_path / "log", 1, follow=True, alive=lambda: False) == 0
    assert capsys.readouterr() == ("x\n", "the engine has ended, and its log with it\n")
