"""Files and directories that this user may not look at: an error that says so, and not a bug.

A name that is too long for a file stands for them: looking at it raises, also for root.
"""

from pathlib import Path
from typing import Any

import pytest

UNSEEN = "x" * 300


@pytest.mark.parametrize(
    "words",
    [
        ("extract", "--output", f"{UNSEEN}/x.yaml"),
        ("migrate", "llama-swap", "config.yaml", "--output", f"{UNSEEN}/x.yaml"),
        ("example", f"{UNSEEN}/x"),
        ("serve", f"{UNSEEN}/x.yaml"),
    ],
    ids=lambda words: words[0],
)
def test_a_file(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("models:\n  a:\n    cmd: llama-server -m ./a.gguf --port ${PORT}\n")
    done = cli(*words)
    assert (done.code, "x" * 300 in done.err, "too long" in done.err.lower()) == (1, True, True), done.err


@pytest.mark.parametrize(
    "words",
    [("ps",), ("logs", "a"), ("down", "--all"), ("up", "--detach")],
    ids=lambda words: words[0],
)
def test_the_data_directory(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    monkeypatch.setenv("GARRISON_DATA_DIR", str(tmp_path / UNSEEN))
    done = cli(*words)
    assert (done.code, UNSEEN in done.err) == (1, True), done.err
