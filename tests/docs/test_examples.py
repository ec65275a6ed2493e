"""The Python examples of the docs run, and the page on the twins names all of them."""

import ast
import re
from pathlib import Path

import pytest

import garrison.testing

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TWINS = ROOT / "docs" / "testing-against-garrison.md"
NOT_TWINS = {"MemoryState"}
"""What a twin is made of."""


def examples() -> list:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(pytest.param(page, line, match[1], id=f"{page.name}:{line}"))
    return found


@pytest.mark.parametrize(("page", "line", "code"), examples())
def test_an_example_runs(page, line, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(
        compile("\n" * line + code, page, "exec"), {"__name__": "__example__"}
    )  # the lines of the page, in a traceback


def test_every_twin_is_on_the_page():
    page = TWINS.read_text(encoding="utf-8")
    missing = []
    for module in sorted(Path(garrison.testing.__file__).parent.glob("*.py")):
        classes = {one.name for one in ast.parse(module.read_text()).body if isinstance(one, ast.ClassDef)}
        public = {name for name in classes - NOT_TWINS if not name.startswith("_")}
        missing += [f"{module.stem}.{name}" for name in public if f"`{name}`" not in page]
    assert missing == []


def test_every_example_asserts_something():
    assert [one.id for one in examples() if one.values[0] == TWINS and "assert " not in one.values[2]] == []
