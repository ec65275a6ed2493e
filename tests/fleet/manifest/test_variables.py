import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.fleet.manifest.variables import escape, has_variable, only_variable, substitute

ENVIRON = {"A": "one", "EMPTY": "", "NESTED": "${A}"}

TEXTS = {
    "none": ("plain $A $ {A}", "plain $A $ {A}"),
    "one": ("${A}", "one"),
    "in text": ("x${A}y${A}", "xoneyone"),
    "empty": ("[${EMPTY}]", "[]"),
    "default, unset": ("${B:-two}", "two"),
    "default, empty": ("${EMPTY:-two}", "two"),
    "default, set": ("${A:-two}", "one"),
    "empty default": ("[${B:-}]", "[]"),
    "default with signs": ("${B:-http://h:80/x?a=b}", "http://h:80/x?a=b"),
    "literal": ("$${A}", "${A}"),
    "literal before a variable": ("$${${A}", "${one"),
    "literal after a dollar": ("$$${A}", "$${A}"),
    "what a variable holds is not looked at": ("${NESTED}", "${A}"),
}


@pytest.mark.parametrize(("text", "made"), TEXTS.values(), ids=TEXTS)
def test_texts(text, made):
    assert substitute(text, ENVIRON) == made


WRONG = {
    "unset": ("${B}", "variable B is not set"),
    "no name": ("${}", "invalid variable"),
    "no end": ("${A", "invalid variable"),
    "another operator": ("${A-x}", "invalid variable"),
    "nested": ("${B:-${A}}", "not nested"),
    "a name with a dash": ("${A-B}", "invalid variable"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_wrong(text, message):
    with pytest.raises(ValueError, match=message):
        substitute(text, ENVIRON)


@given(st.text("${}A:-", max_size=12) | st.text())
def test_escaped_text_comes_back(text):
    assert substitute(escape(text), {}) == text
    assert not has_variable(escape(text))


def test_only_variable():
    assert only_variable("${KEY}") == "KEY"
    assert [only_variable(text) for text in ("${KEY}x", "x${KEY}", "$${KEY}", "${KEY:-a}", "${KEY}\n")] == [None] * 5
