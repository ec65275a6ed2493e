"""Completion in the shells themselves."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from garrison.cli.table import COMMANDS
from garrison.cli.views.completion import SCRIPTS
from garrison.cli.words import every_node

BASH = """
source {script}
ask() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _garrison; printf '%s\\n' "${{COMPREPLY[@]}}"; }}
ask {words}
"""
ZSH = """
compdef() {{ : }}
_files() {{ : }}
compadd() {{ print -rl -- ${{(M)found:#$PREFIX*}} }}
source {script}
ask() {{ words=("$@"); CURRENT=$#; PREFIX=$words[-1]; _garrison }}
ask {words}
"""
FISH = """
source {script}
complete -C {line} | string split -f 1 \\t
"""


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
