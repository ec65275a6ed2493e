"""What a person sees of long work on a terminal of 80 columns: the step, a clock that runs, the last line of output."""

import io
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from screens import Screen

from garrison.cli.engines.views.install_steps import LineSteps, LiveSteps, install_steps
from garrison.cli.views.spinning import spinning
from garrison.engines.install.installer import Progress
from garrison.models.files.hashing import RECORDED_NAME

pytestmark = pytest.mark.system

HELP = """\
usage: vllm serve [options]

options:
  --max-model-len N     The context.
"""


@pytest.fixture
def slow_engine(tmp_path: Path) -> Path:
    """A program that takes its time before it prints its help."""
    path = tmp_path / "vllm"
    text = HELP.replace("\n", "\\n")
    path.write_text(
        f"#!{sys.executable}\nimport sys, time\n"
        "if '--version' in sys.argv:\n    print('0.32.0'); sys.exit()\n"
        f"time.sleep(2.5)\nprint('''{text}''')\n"
    )
    path.chmod(0o755)
    return path


def clocks(screen: Screen, what: str) -> set[int]:
    """The seconds that a spinner showed."""
    return {int(found) for line in screen.lines() for found in re.findall(rf"{what} … (\d+) s", line)}


def test_describe_shows_a_clock(clean_environ: Mapping[str, str], slow_engine: Path) -> None:
    with Screen(clean_environ, "engine", "describe", "vllm", "--executable", slow_engine) as screen:
        assert screen.end() == 0, screen.text()
    assert {0, 1, 2} <= clocks(screen, "reading the options of vLLM")
    assert "--max-model-len" in screen.lines()[-1]
    assert screen.gives_the_cursor_back


def test_describe_in_a_pipe_says_what_it_does_and_keeps_json_clean(run: Any, slow_engine: Path) -> None:
    done = run("-m", "garrison.cli.main", "engine", "describe", "vllm", "--executable", slow_engine, "--json")
    assert done.err == f"garrison: reading the options of vLLM: {slow_engine}\n"
    assert done.out.startswith('{"schema": 1, "ok": true')


def test_an_interrupted_describe_leaves_no_engine_and_no_spinner(
    clean_environ: Mapping[str, str], slow_engine: Path, until: Any
) -> None:
    with Screen(clean_environ, "engine", "describe", "vllm", "--executable", slow_engine) as screen:
        until(lambda: clocks(screen, "reading the options of vLLM"), what="the spinner")
        screen.type(b"\x03")
        assert screen.end() == 130
    assert screen.gives_the_cursor_back
    found = subprocess.run(["pgrep", "-f", str(slow_engine)], capture_output=True, text=True, check=False)
    assert found.stdout == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_installation_shows_step_clock_and_last_line(monkeypatch: pytest.MonkeyPatch, until: Any) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    out = Terminal()
    with install_steps("vllm", out) as steps:
        assert isinstance(steps, LiveSteps)
        steps(Progress("notice", "the CPU build is installed", 0.0))
        steps(Progress("creating the environment", "", 0.0))
        steps(Progress("installing packages", "", 1.5))
        steps(Progress("installing packages", "Downloading [torch] (180 MiB)", 3.0))
        steps(Progress("installing packages", "", 8.0))  # the tool is silent
        until(lambda: "packages … 9 s" in out.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", ""), what="clock")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "· the CPU build is installed" in shown
    assert "✓ creating the environment 1.5 s" in shown
    assert re.search(r"installing packages … 9 s  Downloading \[torch\]", shown), "the last line stays"


def test_an_installation_in_a_pipe_has_a_line_for_each_step() -> None:
    out = io.StringIO()
    with install_steps("vllm", out) as steps:
        assert isinstance(steps, LineSteps)
        for one in ("a", "b", ""):
            steps(Progress("installing packages", one, 0.0))
        steps(Progress("wait", "somebody installs it", 0.0))
        steps(Progress("wait", "somebody still does", 0.0))
    assert out.getvalue().splitlines() == [
        "vllm: installing packages a",
        "vllm: wait somebody installs it",
        "vllm: wait somebody still does",
    ]


def test_nothing_is_left_of_a_spinner_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with pytest.raises(ValueError, match="x"), spinning("working", out=out):
        raise ValueError("x")
    assert out.getvalue().rfind("\x1b[?25h") > out.getvalue().rfind("\x1b[?25l")


@pytest.fixture
def large(tmp_path: Path, tiny_model: Path) -> Path:
    """A model of a gigabyte, most of which is a file of zeros beside the weights."""
    import shutil

    path = tmp_path / "large"
    shutil.copytree(tiny_model, path)
    with (path / "notes.bin").open("wb") as file:
        file.truncate(1024**3)
    return path


def test_an_import_and_a_verification_are_never_silent(clean_environ: Mapping[str, str], large: Path) -> None:
    with Screen(clean_environ, "models", "import", large, "--as", "acme/large") as screen:
        assert screen.end() == 0, screen.text()
    lines = screen.lines()
    assert any(re.match(r"copying \d+ files \d+ s ━.* GiB ", line) for line in lines), screen.text()
    assert any(re.match(r"hashing \d+ files \d+ s ━.* GiB ", line) for line in lines)
    assert all(len(line) <= 80 for line in lines if "━" in line or " … " in line)
    assert screen.gives_the_cursor_back
    with Screen(clean_environ, "models", "verify", "acme/large") as screen:
        assert screen.end() == 0, screen.text()
    assert any(line.startswith("hashing") for line in screen.lines())
    assert RECORDED_NAME in screen.lines()[-1]
