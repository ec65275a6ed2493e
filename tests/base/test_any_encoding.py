import io
import json

import pytest

from garrison.base.output.any_encoding import EXACT, READABLE, never_fail


def written(text: str, encoding: str, errors: str) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    never_fail(stream, errors)
    stream.write(text)
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("✓ ready – 2 °C → x…", "ascii", "+ ready - 2  deg C -> x..."),
        ("│ é 😀", "ascii", "| \\u00e9 \\ud83d\\ude00"),
        ("é ✓", "latin-1", "é +"),
        ("é ✓ 😀", "utf-8", "é ✓ 😀"),
        ("a file \udcff of no text", "utf-8", "a file \\udcff of no text"),
    ],
)
def test_text_for_people(text: str, encoding: str, expected: str) -> None:
    assert written(text, encoding, READABLE) == expected


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_keeps_its_value(encoding: str) -> None:
    value = {"name": "✓ é 😀 \udcff", "–": 1}
    assert json.loads(written(json.dumps(value, ensure_ascii=False), encoding, EXACT)) == value


def test_a_stream_of_another_kind_is_left_alone() -> None:
    stream = io.StringIO()
    never_fail(stream, READABLE)
    assert stream.write("✓") == 1
