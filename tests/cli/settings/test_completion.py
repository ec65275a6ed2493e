"""Completion in the shells themselves."""

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rendered import ESCAPE

from garrison.cli.settings.views.completion import SCRIPTS
from garrison.cli.settings.words import every_node
from garrison.cli.table import COMMANDS

BASH = """
source {script}
ask() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _garrison; printf '%s\\n' "${{COMPREPLY[@]}}"; }}
ask {words}
"""
ZSH = """
compdef() {{ : }}
_files() {{ : }}
compset() {{ PREFIX=${{PREFIX#*=}} }}
compadd() {{ print -rl -- ${{(M)found:#$PREFIX*}} }}
source {script}
ask() {{ words=("$@"); CURRENT=$#; PREFIX=$words[-1]; _garrison }}
ask {words}
"""
FISH = """
source {script}
complete -C {line} | string split -f 1 \\t
"""


class Prompt:
    """A shell at a terminal."""

    def __init__(self, name: str, flags: list[str], environ: Mapping[str, str], directory: Path) -> None:
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.chdir(directory)
            os.execvpe(name, [name, *flags], dict(environ))
        self._text = b""

    def __enter__(self) -> "Prompt":
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._terminal)

    def type(self, keys: str) -> None:
        self._text = b""
        os.write(self._terminal, keys.encode())

    def until(self, words: str) -> None:
        """Read until `words` were shown."""
        deadline = time.monotonic() + 30
        while words not in ESCAPE.sub("", self._text.decode(errors="replace")):
            assert time.monotonic() < deadline, self._text
            if select.select([self._terminal], [], [], 0.2)[0]:
                found = os.read(self._terminal, 65536)
                self._text += found
                if b"\x1b[c" in found or b"\x1b[0c" in found:  # fish asks what the terminal can do
                    os.write(self._terminal, b"\x1b[?62c")


def ask(shell: str, script: Path, *words: str) -> set[str]:
    """What the shell offers for the last of `words`."""
    quoted = [f"'{word}'" for word in words]
    program = {"bash": BASH, "zsh": ZSH, "fish": FISH}[shell].format(
        script=script, words=" ".join(quoted), line=f"'{' '.join(words)}'"
    )
    flags = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run([shell, *flags, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.fixture(params=["bash", "zsh", "fish"])
def shell(request: Any, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")  # fish offers files where nothing else fits
    script = tmp_path / ".script"
    script.write_text(cli("completion", request.param).out)
    return lambda *words: ask(request.param, script, *words)


@pytest.mark.system
def test_commands_options_and_values(shell: Any) -> None:
    assert {command.name for command in COMMANDS} <= shell("garrison", "")
    assert shell("garrison", "mo") == {"models"}
    assert shell("garrison", "models", "") == {"import", "list", "show", "verify", "remove"}
    assert {"--as", "--replace", "--json", "--help"} <= shell("garrison", "models", "import", "--")
    assert shell("garrison", "models", "import", "--mo") == {"--move"}
    assert shell("garrison", "completion", "") == {"bash", "zsh", "fish"}
    assert shell("garrison", "serve", "--log", "") == {"json", "console"}
    assert "--served-model-name" in shell("garrison", "serve", "x", "--port", "1", "--se")


@pytest.mark.system
def test_a_value_behind_an_equals_sign(shell: Any, request: Any) -> None:
    kind = request.node.callspec.params["shell"]
    # bash splits words at =; fish offers the whole word.
    words = ["--log", "=", "js"] if kind == "bash" else ["--log=js"]
    assert shell("garrison", "serve", *words) == ({"--log=json"} if kind == "fish" else {"json"})
    words = ["--log", "="] if kind == "bash" else ["--log="]
    assert {one.removeprefix("--log=") for one in shell("garrison", "serve", *words)} == {"json", "console"}


AT_A_PROMPT = {
    "bash": (["--norc", "-i"], 'eval "$(garrison completion bash)"'),
    "zsh": (
        ["-f", "-i"],
        "autoload -Uz compinit; mkdir f; garrison completion zsh > f/_garrison; fpath=($PWD/f $fpath); compinit -u",
    ),
    "fish": (["--no-config", "-i"], "garrison completion fish | source"),
}


@pytest.mark.system
@pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")
@pytest.mark.parametrize("name", AT_A_PROMPT)
@pytest.mark.parametrize(
    ("typed", "becomes"),
    [("garrison models imp", "garrison models import"), ("garrison serve --log=js", "garrison serve --log=json")],
)
def test_the_tab_key_at_a_prompt(
    clean_environ: Mapping[str, str], tmp_path: Path, name: str, typed: str, becomes: str
) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    flags, setup = AT_A_PROMPT[name]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with Prompt(name, flags, {**clean_environ, "PATH": path, "TERM": "xterm", "COLUMNS": "80"}, tmp_path) as prompt:
        prompt.type(f"{setup}; echo re''ady\n")
        prompt.until("ready")
        prompt.type(f"{typed}\t")
        prompt.until(becomes)


@pytest.mark.system
def test_what_belongs_to_the_engine_or_is_a_file_is_left_to_the_shell(shell: Any) -> None:
    assert shell("garrison", "serve", "") == set()
    assert shell("garrison", "serve", "x", "--", "--") == set()


def test_every_command_and_option_is_there() -> None:
    paths = {node.path: node for node in every_node()}
    assert {f"garrison {command.name}" for command in COMMANDS} <= set(paths)
    assert "garrison engine use" in paths
    assert {"--enable-lora", "--no-enable-lora"} <= {
        name for word in paths["garrison sim"].options for name in word.spellings
    }
    for name, script in SCRIPTS.items():
        text = script(tuple(paths.values()))
        assert all(path in text for path in paths), name


def test_another_shell(cli: Any) -> None:
    done = cli("completion", "tcsh")
    assert done.code == 64
    assert "'bash', 'zsh', 'fish'" in done.err


def test_a_shell_that_is_not_known(cli: Any) -> None:
    done = cli("completion", "tcsh")
    assert done.code == 64
    assert "error: Invalid value for 'shell': 'tcsh' is not one of 'bash', 'zsh', 'fish'." in done.err
