"""Tables: whole in a pipe, and without broken words on a terminal."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from garrison.cli.views.table import print_table, shown_columns

ROWS = [("qwen", "running", "/srv/models/Qwen/Qwen2.5-0.5B-Instruct"), ("llama", "stopped", "/srv/models/llama.gguf")]
TITLES = ("name", "state", "path")


def shown(width: int | None, rows: list[tuple[str, ...]] = ROWS) -> list[str]:
    out = io.StringIO()
    terminal = width is not None
    print_table(
        TITLES, rows, empty="none", console=Console(file=out, width=width, force_terminal=terminal, color_system=None)
    )
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_in_a_pipe_a_row_is_a_line() -> None:
    long = "x" * 500
    assert shown(None, [("a", "b c", long)]) == ["name  state  path", f"a     b c    {long}"]


def test_a_narrow_terminal_leaves_a_column_out() -> None:
    assert len(shown(60)[0].split()) == 3
    assert shown(40) == [
        "name   state", "qwen   running", "llama  stopped", "path: shown on a wider terminal, and", "with --json",
    ]  # fmt: skip


def test_no_rows() -> None:
    assert shown(80, []) == ["none"]


@given(st.lists(st.integers(0, 90), min_size=1, max_size=6), st.integers(10, 200))
def test_what_is_shown_fits_if_anything_does(least: list[int], width: int) -> None:
    found = shown_columns(least, width)
    assert found[0] == 0
    assert len(found) == 1 or sum(least[at] for at in found) + 2 * (len(found) - 1) <= width
    if sum(least) + 2 * (len(least) - 1) <= width:
        assert found == tuple(range(len(least)))


@pytest.mark.parametrize("width", range(20, 80, 7))
def test_no_word_is_broken(width: int) -> None:
    words = set(" ".join(shown(width)).split())
    told = ["path:", "state:", "state,", "path:", "shown", "on", "a", "wider", "terminal,", "and", "with", "--json"]
    assert words <= {*TITLES, *told, *(cell for row in ROWS for cell in row)}
