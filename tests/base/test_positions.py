import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.positions.in_toml import toml_positions

FILES = {
    "key": ("a = 1", {("a",): (1, 1)}),
    "indented": ("  a = 1", {("a",): (1, 3)}),
    "table": ("[t]\na = 1", {("t",): (1, 2), ("t", "a"): (2, 1)}),
    "dotted table": ("[t.u]\na = 1", {("t", "u"): (1, 2), ("t", "u", "a"): (2, 1)}),
    "dotted key": ("a.b = 1", {("a", "b"): (1, 1)}),
    "quoted": ('["a.b".\'c\']\n"d e" = 1', {("a.b", "c"): (1, 2), ("a.b", "c", "d e"): (2, 1)}),
    "list of tables": (
        "[[h]]\nx = 1\n[[h]]\nx = 2",
        {("h", 0): (1, 3), ("h", 0, "x"): (2, 1), ("h", 1): (3, 3), ("h", 1, "x"): (4, 1)},
    ),
    "table in a list": ("[[h]]\n[h.y]\nz = 1", {("h", 0): (1, 3), ("h", 0, "y"): (2, 2), ("h", 0, "y", "z"): (3, 1)}),
    "list in a list": (
        "[[h]]\n[[h.y]]\n[[h.y]]",
        {("h", 0): (1, 3), ("h", 0, "y", 0): (2, 3), ("h", 0, "y", 1): (3, 3)},
    ),
    "comment": ('# a = 1\na = 2 # b = """\nb = 3', {("a",): (2, 1), ("b",): (3, 1)}),
    "text of several lines": ('a = """\nb = 1\n"""\nb = 2', {("a",): (1, 1), ("b",): (4, 1)}),
    "literal text of several lines": ("a = '''\nb = 1\n'''\nb = 2", {("a",): (1, 1), ("b",): (4, 1)}),
    "a quoted hash": ('a = "#"\nb = 1', {("a",): (1, 1), ("b",): (2, 1)}),
    "list of several lines": ("a = [\n  1,\n]\nb = 2", {("a",): (1, 1), ("b",): (4, 1)}),
}


@pytest.mark.parametrize(("text", "places"), FILES.values(), ids=FILES)
def test_files(text: str, places: dict[object, tuple[int, int]]) -> None:
    found = toml_positions(text, tomllib.loads(text))
    assert {path: place for path, place in found.items() if path} == places


@given(st.text("ab.[]=\"'\n# \\", max_size=60))
def test_any_text_gives_only_paths_that_are_there(text: str) -> None:
    assert set(toml_positions(text, {"a": [{"b": 1}]})) <= {(), ("a",), ("a", 0), ("a", 0, "b")}
