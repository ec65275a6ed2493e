import re
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.models.adapters.patterns import MAX_PATTERN, MAX_TEXT, Allowance, Pattern, PatternError

NAME = "model.layers.0.self_attn.q_proj"
TEXTS = st.text("ab.0_-A", min_size=1, max_size=12)

SIGNS = ["a", "b", "A", ".", "0", "_", "-", "^", "$", "{", "}", "a{", "{,2}", "]", "(?:)"]
ESCAPES = [r"\.", r"\d", r"\w", r"\D", r"\W", r"\s", r"\S", r"\b", r"\B", r"\Z", r"\x61", r"\x2e"]
CLASSES = ["[ab]", "[^a]", "[a-z0-9_.]", r"[\w.]", "[]a]", "[a-]", "[[:alpha:]_]", r"[\d-]"]
ATOMS = st.sampled_from([*SIGNS, *ESCAPES, *CLASSES])
REPEATS = st.sampled_from(["", "*", "+", "?", "*?", "+?", "??", "{2}", "{,2}", "{1,}", "{0,3}", "{1,2}?"])
GROUPS = st.sampled_from(["(", "(?:", "(?P<name>", "(?i:", "(?-i:", "(?s:"])


def _wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        # The inner repetitions are single, so that Python's own answer comes in no time.
        st.tuples(GROUPS, st.lists(ATOMS, max_size=4).map("".join), REPEATS).map(
            lambda made: f"{made[0]}{made[1]}){made[2]}"
        ),
    )


PATTERNS = st.recursive(st.tuples(ATOMS, REPEATS).map("".join), _wider, max_leaves=6)


@given(PATTERNS, TEXTS)
def test_the_answer_is_pythons(pattern: str, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = re.fullmatch(pattern, text) is not None
        except re.error:
            with pytest.raises(PatternError):
                Pattern(pattern)
            return
    asked = Pattern(pattern)
    assert asked.matches(text) is (expected if asked.beyond is None else None)


READ_DIFFERENTLY_BY_RE2 = {
    "no lower bound": ("a{,3}", "aaa", True),
    "no bounds": ("a{,}", "aaaa", True),
    "a class in a class": ("[[:alpha:]_]", "a_]", True),
    "a colon in a class": ("[[:alpha:]_]", "a", False),
    "the end": (r"ab\Z", "ab", True),
    "octal": (r"\141", "a", True),
    "a comment": ("a(?#b)c", "ac", True),
    "verbose": ("(?x) a b # c", "ab", True),
    "unicode by name": (r"\N{LATIN SMALL LETTER A}", "a", True),
    "unicode by number": (r"a", "a", True),
    "ignoring case": ("(?i)Q_Proj", "q_pROJ", True),
    "inside only": ("(?i:q)_proj", "Q_PROJ", False),
    "a name": ("(?P<x>a)b", "ab", True),
}


@pytest.mark.parametrize(("pattern", "text", "expected"), READ_DIFFERENTLY_BY_RE2.values(), ids=READ_DIFFERENTLY_BY_RE2)
def test_what_re2_reads_differently(pattern: str, text: str, expected: bool) -> None:
    assert Pattern(pattern).matches(text) is expected


@pytest.mark.parametrize(
    "pattern", ["(", "[a", "*", "a**", r"\pL", r"\z", r"\Qa\E", "a(?i)b", "(?<n>a)", r"(?P=x)", "^*"]
)
def test_what_python_refuses_is_refused(pattern: str) -> None:
    with pytest.raises(re.error):
        re.compile(pattern)
    with pytest.raises(PatternError) as caught:
        Pattern(pattern)
    assert caught.value.pattern == pattern


@pytest.mark.parametrize("pattern", ["a{" + "9" * 4000 + "}", "a{" + "9" * 5000 + "}", "(?L)a"])
def test_what_makes_python_fail_otherwise_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError) as caught:
        Pattern(pattern)
    assert len(str(caught.value)) <= 100


BEYOND = {
    "ms-swift": (r"^(language_model|model)(?=\.).*\.(q_proj|k_proj)$", "looks ahead"),
    "no vision": (r"^(?!.*visual).*(q_proj|v_proj)$", "looks ahead"),
    "behind": (r"(?<=a)b", "looks ahead or behind"),
    "back": (r"(a)\1", "refers to a group"),
    "condition": (r"(a)?(?(1)b|c)", "refers to a group"),
    "possessive": ("a*+b", "possessive"),
    "atomic": ("(?>a)", "atomic"),
    "many": ("a{1001}", "repeats too much"),
    "many of many": ("((a{100}){100}){100}", "repeats too much"),
    "deep": ("(" * 3000 + "a" + ")" * 3000, "nested too deeply"),
    "long": ("a|" * MAX_PATTERN, "is longer than"),
    "letters": ("(?i)é", "ignores the case"),
    "range of letters": (r"(?i)[\x00-\U0010ffff]" + r"[\x00-\U0010ffff]" * 500, "ignores the case"),
    "half a character": ("\ud800", "half a character"),
}


@pytest.mark.parametrize(("pattern", "why"), BEYOND.values(), ids=BEYOND)
def test_what_cannot_be_told(pattern: str, why: str, capfd: pytest.CaptureFixture[str]) -> None:
    asked = Pattern(pattern)
    assert why in (asked.beyond or "")
    assert asked.matches(NAME) is None
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("text", ["", "a" * (MAX_TEXT + 1), "a\nb", "é", "a\x00", "ﬀ"])
def test_a_text_that_is_no_name_is_not_asked_about(text: str) -> None:
    assert Pattern(".*").matches(text) is None


def test_flags_before_a_key_are_what_python_refuses_too() -> None:
    """PEFT puts its own pattern before a key, and Python takes flags only at the start."""
    assert "flag" in (Pattern("(?i)q_proj", after="(?:.*)").beyond or "")


@pytest.mark.parametrize(
    "pattern", ["([a-z_.0-9]+)+!", "(a*)*b", "(.*)*(.*)*(.*)*!", "(a|a)*b", "(.*a){20}!", "(a?){900}a{900}"]
)
def test_what_python_would_take_years_for(pattern: str) -> None:
    assert Pattern(pattern).matches("a" * MAX_TEXT) is False


def test_an_allowance_ends() -> None:
    now = 100.0
    allowance = Allowance(5, lambda: now)
    assert not allowance.spent()
    now = 105.0
    assert allowance.spent()
