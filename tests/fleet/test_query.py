import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import UsageError
from garrison.fleet.report.query import EVERYTHING, Query, Term, parse_query

FIELDS = {"name": None, "target": None, "status": ("served", "drifted", "missing"), "managed": ("true", "false")}
ROW = {"name": "sql", "target": "edge-2", "status": "drifted", "managed": True, "labels": ("site=lab", "rack=3")}


def matches(text, row=ROW):
    return parse_query(text, FIELDS | {"labels": None, "stack": None}).matches(row)


MATCHES = {
    "everything": ("", True),
    "blanks": ("   ", True),
    "one": ("name:sql", True),
    "other": ("name:sq", False),
    "case": ("name:SQL", False),
    "all-fields-must-hold": ("name:sql status:served", False),
    "either": ("name:chat name:sql", True),
    "either-and-another": ("name:chat name:sql status:drifted", True),
    "neither": ("name:a name:b", False),
    "star-behind": ("target:edge*", True),
    "star-before": ("target:*-2", True),
    "star-between": ("target:e*-*2", True),
    "star-for-nothing": ("name:sql*", True),
    "two-stars": ("name:**q**", True),
    "any": ("name:*", True),
    "quoted-star-is-a-star": ('name:"s*"', False),
    "must": ("+name:sql", True),
    "must-by-itself": ("name:sql +name:chat", False),
    "must-not": ("-name:sql", False),
    "must-not-other": ("-name:chat", True),
    "only-must-not": ("name:* -status:served", True),
    "flag": ("managed:true", True),
    "flag-not": ("managed:false", False),
    "one-of-several": ("labels:site=lab", True),
    "none-of-several": ("labels:site=home", False),
    "must-of-several": ("+labels:site=lab +labels:rack=*", True),
    "nothing-there": ("stack:*", False),
    "not-where-nothing-is": ("-stack:a", True),
}


@pytest.mark.parametrize(("text", "expected"), MATCHES.values(), ids=MATCHES)
def test_matches(text, expected):
    assert matches(text) is expected


@pytest.mark.parametrize(
    ("text", "value"),
    [('name:"a b"', "a b"), (r'name:"a\"b\\"', 'a"b\\'), ('name:a" "b', "a b"), ("name:a:b", "a:b"), ('name:""', "")],
)
def test_quoted(text, value):
    assert parse_query(text, FIELDS).terms == (Term("name", (value,)),)


FAULTS = {
    "field": ("nmae:sql", 1, "unknown field 'nmae'", "Did you mean name?"),
    "second-field": ("name:sql  -tarket:x", 12, "unknown field 'tarket'", "Did you mean target?"),
    "unlike-any": ("zzz:1", 1, "unknown field 'zzz'", "Fields: name, target"),
    "value": ("status:driftet", 8, "invalid status driftet", "Did you mean drifted?"),
    "value-by-pattern": ("status:x*", 8, "invalid status x*", "served, drifted, missing"),
    "bare": ("sql", 1, "'sql' is not of the form field:value", "name:sql"),
    "quoted-bare": ('name:a "b c"', 8, "is not of the form field:value", "name:"),
    "empty": ("name:", 6, "name: has no value", "name:*"),
    "open-quote": ('name:"sql', 6, "unclosed quote", "Quote"),
    "sign-alone": ("name:a -", 8, "is not of the form field:value", "name:sql"),
}


@pytest.mark.parametrize(("text", "column", "message", "hint"), FAULTS.values(), ids=FAULTS)
def test_faults(text, column, message, hint):
    with pytest.raises(UsageError) as caught:
        parse_query(text, FIELDS)
    assert caught.value.message.startswith(f"query, column {column}: ")
    assert message in caught.value.message
    assert hint in caught.value.hint


PATTERNS = st.lists(st.text(), min_size=1, max_size=4).map(tuple)
TERMS = st.builds(Term, st.sampled_from(["name", "target"]), PATTERNS, st.sampled_from(["", "+", "-"]))


def normal(term):
    """Stars beside each other are one."""
    pattern = term.pattern[:1] + tuple(p for p in term.pattern[1:-1] if p) + term.pattern[1:][-1:]
    return Term(term.field, pattern, term.sign)


@given(st.lists(TERMS.map(normal).filter(lambda term: term.pattern != ("",))).map(tuple).map(Query))
def test_what_is_written_is_read_back(query):
    assert parse_query(str(query), FIELDS) == query


@given(st.text())
def test_any_text_is_a_query_or_a_clear_fault(text):
    fault = None
    try:
        parse_query(text, FIELDS)
    except UsageError as error:
        fault = error
    if fault is not None:
        column = int(re.match(r"query, column (\d+)", fault.message)[1])
        assert 1 <= column <= len(text) + 1
        assert fault.hint


@given(st.text("ab*", max_size=8), st.text("ab", max_size=8))
def test_stars_mean_what_they_mean_in_file_names(pattern, value):
    if pattern:
        query = parse_query(f"name:{pattern}", FIELDS)
        assert query.matches({"name": value}) is fnmatch.fnmatchcase(value, pattern)


@given(st.text(min_size=1), st.text())
def test_must_and_must_not_are_opposites(value, other):
    term = Term("name", (value,))
    row = {"name": other}
    assert Query((Term("name", (value,), "+"),)).matches(row) is term.matches(other)
    assert Query((Term("name", (value,), "-"),)).matches(row) is not term.matches(other)
    assert EVERYTHING.matches(row)
