import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base import values
from garrison.base.settings import SOURCES

TAKEN: list[tuple[str, values.Parser, str, Any]] = [
    ("text", values.text(), "a b", "a b"),
    ("text without white space", values.text(whitespace=False), "fp8", "fp8"),
    ("integer", values.integer(1, 9), "9", 9),
    ("integer, lowest", values.integer(1, 9), "1", 1),
    ("integer, white space around", values.integer(), " 7\n", 7),
    ("integer, signed", values.integer(), "-3", -3),
    ("number", values.number(0), "0", 0.0),
    ("number, fraction", values.number(0), "3.5", 3.5),
    ("number, bare fraction", values.number(0), ".5", 0.5),
    ("number above", values.number(above=0), "0.001", 0.001),
    ("flag 1", values.flag, "1", True),
    ("flag 0", values.flag, "0", False),
    ("flag TRUE", values.flag, "TRUE", True),
    ("flag off", values.flag, "off", False),
    ("word yes", values.word_flag, "yes", True),
    ("word no", values.word_flag, "no", False),
    ("csv", values.csv(), "a, b,c", ("a", "b", "c")),
    ("csv, empty parts", values.csv(), ",a,,b,", ("a", "b")),
    ("csv, nothing", values.csv(), " , ", ()),
    ("csv of sources", values.csv(SOURCES), "hf-cache,local", ("hf-cache", "local")),
    ("host v4", values.host, "0.0.0.0", "0.0.0.0"),
    ("host v6", values.host, "::1", "::1"),
    ("host v6 in brackets", values.host, "[::1]", "::1"),
    ("host v6 with zone", values.host, "fe80::1%eth0", "fe80::1%eth0"),
    ("host name", values.host, "node-1.example", "node-1.example"),
    ("path", values.path, "/a/b", Path("/a/b")),
    ("path with ~", values.path, "~/a", Path("~/a").expanduser()),
]

REFUSED: list[tuple[str, values.Parser, str, str]] = [
    ("text, empty", values.text(), "", "non-empty"),
    ("text, white space", values.text(whitespace=False), "fp8 e4", "free of white space"),
    ("integer, too low", values.integer(1, 9), "0", "an integer from 1 to 9"),
    ("integer, too high", values.integer(1, 9), "10", "an integer from 1 to 9"),
    ("integer, at least", values.integer(1), "0", "an integer of at least 1"),
    ("integer, text", values.integer(), "x", "an integer"),
    ("integer, fraction", values.integer(), "1.5", "an integer"),
    ("integer, underscore", values.integer(), "1_000", "an integer"),
    ("integer, other digits", values.integer(), "٣", "an integer"),
    ("integer, empty", values.integer(), "", "an integer"),
    ("number, negative", values.number(0), "-0.5", "a number of at least 0"),
    ("number, zero", values.number(above=0), "0", "a number above 0"),
    ("number, nan", values.number(0), "nan", "a number of at least 0"),
    ("number, inf", values.number(0), "inf", "a number of at least 0"),
    ("number, exponent", values.number(0), "1e3", "a number of at least 0"),
    ("flag 2", values.flag, "2", "0 or 1"),
    ("flag, empty", values.flag, "", "0 or 1"),
    ("word maybe", values.word_flag, "maybe", "true, false, 1, 0, yes or no"),
    ("csv, unknown", values.csv(("a", "b")), "a,c", "a comma-separated list of a, b (not 'c')"),
    ("host, empty", values.host, "", "an IP address or a host name"),
    ("host, slash", values.host, "http://x", "an IP address or a host name"),
    ("host, white space", values.host, "a b", "an IP address or a host name"),
    ("path, empty", values.path, "", "a path"),
    ("path of a user who is not there", values.path, "~nosuchuser/x", "a path"),
]


@pytest.mark.parametrize(("parse", "raw", "expected"), [row[1:] for row in TAKEN], ids=[row[0] for row in TAKEN])
def test_taken(parse: values.Parser, raw: str, expected: Any) -> None:
    found = parse(raw)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(("parse", "raw", "rule"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(parse: values.Parser, raw: str, rule: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(raw)
    assert str(caught.value).startswith(rule)


PARSERS = {
    "text": values.text(),
    "integer": values.integer(0, 10),
    "number": values.number(above=0),
    "flag": values.flag,
    "csv": values.csv(SOURCES),
    "host": values.host,
    "path": values.path,
}


@pytest.mark.parametrize("parse", PARSERS.values(), ids=PARSERS)
@given(raw=st.text())
def test_any_text_gives_a_value_or_a_value_error(parse: values.Parser, raw: str) -> None:
    with contextlib.suppress(ValueError):
        parse(raw)


@given(st.integers())
def test_integers_survive(number: int) -> None:
    assert values.integer()(str(number)) == number


SIZES = [(0, "0 B"), (1023, "1023 B"), (602 * 1024, "602 KiB"), (1.4 * 1024**3, "1.4 GiB"), (150 * 1024**2, "150 MiB"),
         (5 * 1024**4, "5120 GiB"), (-2 * 1024**2, "-2.0 MiB")]  # fmt: skip


@pytest.mark.parametrize(("count", "text"), SIZES, ids=[text for _, text in SIZES])
def test_size_text(count: float, text: str) -> None:
    assert values.size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1800.0, "30m"),
        (5400, "90m"),
        (7200, "2h"),
        (30.0, "30s"),
        (90, "90s"),
        (0.5, "0.5s"),
        (0, "0s"),
        (86400, "24h"),
    ],
)
def test_a_duration_is_written_as_it_is_read(seconds: float, text: str) -> None:
    assert values.duration_text(seconds) == text
    assert values.duration()(text) == seconds
