"""The script that the documentation names says what it needs, to whoever has not got it."""

import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "tiny_model.py"


def test_without_numpy(run: Any, tmp_path: Path) -> None:
    done = run("-S", SCRIPT, "model", tmp_path / "tiny")  # without site-packages
    assert done.code == 1
    assert done.err == f"error: tiny_model.py needs numpy\nhint: {sys.executable} -m pip install numpy\n"
    assert not (tmp_path / "tiny").exists()


def test_without_gguf(run: Any, tmp_path: Path) -> None:
    program = f"import runpy, sys; sys.modules['gguf'] = None; sys.argv = ['x', 'gguf', {str(tmp_path / 'a')!r}]\n"
    done = run("-c", f"{program}runpy.run_path({str(SCRIPT)!r}, run_name='__main__')")
    assert (done.code, done.err) == (
        1,
        f"error: tiny_model.py needs gguf\nhint: {sys.executable} -m pip install gguf\n",
    )


def test_without_arguments(run: Any) -> None:
    done = run(SCRIPT)
    assert done.code == 2
    assert done.err.splitlines()[-1] == "error: say what to make, and where: tiny_model.py model ./tiny"
    assert "scripts/tiny_model.py gguf FILE" in done.err
    assert max(map(len, done.err.splitlines())) <= 120


@pytest.mark.parametrize("what", ["model", "gguf"])
def test_with_both(run: Any, tmp_path: Path, what: str) -> None:
    done = run(SCRIPT, what, tmp_path / "tiny")
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "tiny").exists()
