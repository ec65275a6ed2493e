import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.engines.parse.shell_words import split_commands


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("a b\tc", [["a", "b", "c"]]),
        ("a \\\n  b \\\r\n c", [["a", "b", "c"]]),
        ("a b\\\nc", [["a", "bc"]]),
        ("a 'x y' \"p q\" r\\ s", [["a", "x y", "p q", "r s"]]),
        ("a '' \"\"", [["a", "", ""]]),
        ("a 'it'\\''s'", [["a", "it's"]]),
        ('a "say \\"hi\\" \\n"', [["a", 'say "hi" \\n']]),
        ("a # the rest\nb", [["a"], ["b"]]),
        ("a x#y", [["a", "x#y"]]),
        ("# only words", []),
        ("a; b\n\nc && d &", [["a"], ["b"], ["c"], ["d"]]),
        ("a '$HOME' \\$HOME \"\\$HOME\" $", [["a", "$HOME", "$HOME", "$HOME", "$"]]),
        ("a '{\"mode\": 3}'", [["a", '{"mode": 3}']]),
        ("a\r\nb", [["a"], ["b"]]),
    ],
)
def test_words_are_a_shells(text: str, commands: list[list[str]]) -> None:
    assert split_commands(text) == commands


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a $MODEL", r"\$MODEL"),
        ('a "${X}"', "shell"),
        ("a $(date)", "shell"),
        ("a `date`", "backtick"),
        ("a | tee log", r"'\|'"),
        ("a > log", "'>'"),
        ("a 2>&1", "'2>'"),
        ("(a)", r"'\('"),
        ("a &> log", "'&'"),
        ("a 'open", "line 1 is not closed"),
        ('a\nb "open', "line 2 is not closed"),
        ("a $'x'", "shell"),
    ],
)
def test_what_needs_a_shell_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        split_commands(text)


def test_a_home_directory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    assert split_commands("a ~/m '~/m' x~") == [["a", "/home/u/m", "~/m", "x~"]]


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
def test_what_shlex_joins_is_split_again(words: list[str]) -> None:
    assert split_commands(shlex.join(words)) == [words]
