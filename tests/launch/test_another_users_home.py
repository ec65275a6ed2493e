"""A service, or `docker run --user`, often has the `HOME` of another user, below which it may not even look."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

COMMANDS = {
    "doctor": ("doctor",),
    "engine list": ("engine", "list"),
    "models list": ("models", "list"),
    "resolve": ("resolve", "acme/none", "--offline"),
    "resolve a path": ("resolve", "{home}/model"),
    "models import": ("models", "import", "{home}/model"),
    "adapters import": ("adapters", "import", "{home}/adapter"),
    "serve": ("serve", "{model}", "-e", "sim", "--dry-run", "-p", "1025"),
    "serve with an adapter": ("serve", "{model}", "-e", "sim", "--dry-run", "-p", "1025", "-a", "x={home}/a"),
    "serve with a program": ("serve", "{model}", "--executable", "{home}/vllm", "--dry-run", "-p", "1025"),
    "serve from a manifest": ("serve", "-f", "{home}/garrison.yaml"),
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_home_below_which_nobody_may_look_is_no_bug(
    clean_environ: Mapping[str, str], tmp_path: Path, tiny_model: Path, words: tuple[str, ...]
) -> None:
    home = tmp_path / ("x" * 300)  # refused for everybody, root included
    dropped = ("GARRISON_DATA_DIR", "GARRISON_MODELS_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "HF_HOME")
    environ = {name: value for name, value in clean_environ.items() if name not in dropped} | {"HOME": str(home)}
    given = [word.format(home=home, model=tiny_model) for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "garrison.cli.main", *given],
        env=environ, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1, 10, 11, 20), done.stderr
    assert "this is a bug" not in done.stderr
    assert "Traceback" not in done.stderr
