"""What Garrison itself says is not taken for a secret: the texts of all errors and hints in its source."""

import ast
from collections.abc import Iterator
from pathlib import Path

import garrison
from garrison.base.redaction import redacted

SOURCE = Path(garrison.__file__).parent


def text_of(node: ast.expr) -> str:
    """A text with a plain word for each value in it."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(one) if isinstance(one, ast.Constant) else "a" for one in node.values)
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return "a"


def said() -> Iterator[tuple[str, str]]:
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            hints = [one.value for one in node.keywords if one.arg == "hint"]
            for one in (*(node.args[:1] if name.endswith("Error") else ()), *hints):
                yield f"{path.relative_to(SOURCE)}:{node.lineno}", text_of(one)


def test_no_word_of_ours_is_hidden() -> None:
    found = list(said())
    assert len(found) > 500
    assert [(where, redacted(text)) for where, text in found if redacted(text) != text] == []


def test_a_value_that_looks_like_a_placeholder_is_hidden_all_the_same() -> None:
    for text in ("KEY=VALUE9", "API_KEY=VALUES", "HF_TOKEN=value", "KEY=VALUE_1", "KEY=xVALUE", "--api-key VALUEx"):
        assert "VAL" not in redacted(text).upper().replace("NAME", "")
