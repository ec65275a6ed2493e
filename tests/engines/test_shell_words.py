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
        ("a | b", r"'\|' to b"),
        ("a |", r"'\|'"),
        ("a || b", r"'\|\|'"),
        ("(a)", r"'\('"),
        ("a <<EOF\nx\nEOF", "'<<'"),
        ("a <<< x", "'<<<'"),
        ("a > >(tee log)", r"'>\('"),
        ("a <(b)", r"'<\('"),
        ("X=1 a $X", r"\$X"),
        ("X='1 2'; a $X", r"\$X"),
        ("a ${X:-8000}", r"\$\{X:-8000\}"),
        ("a HF_TOKEN=$HF_TOKEN", r"\$HF_TOKEN"),
        ("HF_TOKEN=$OTHER a", r"\$OTHER"),
        ("a 'open", "line 1 is not closed"),
        ('a\nb "open', "line 2 is not closed"),
        ("a $'x'", "shell"),
    ],
)
def test_what_needs_a_shell_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        split_commands(text)


@pytest.mark.parametrize(
    ("text", "words", "left_out"),
    [
        ("a > log", ["a"], ["> log"]),
        ("a >log 2>err </dev/null", ["a"], [">log", "2>err", "</dev/null"]),
        ("a > log 2>&1 &", ["a"], ["> log", "2>&1"]),
        ("a >> 'my log' b", ["a", "b"], [">> 'my log'"]),
        ('a > "$(date +%F).log" b', ["a", "b"], ['> "$(date +%F).log"']),
        ("a &> log &", ["a"], ["&> log"]),
        ("a &>> log", ["a"], ["&>> log"]),
        ("a >& log", ["a"], [">& log"]),
        ("a 2>&- b", ["a", "b"], ["2>&-"]),
        ("a >| log", ["a"], [">| log"]),
        ("a 2 > log", ["a", "2"], ["> log"]),
        ("a x2> log", ["a", "x2"], ["> log"]),
        ("a '>' \\> b", ["a", ">", ">", "b"], []),
        ("a | tee log", ["a"], ["| tee log"]),
        ("a 2>&1 | tee -a log", ["a"], ["2>&1", "| tee -a log"]),
        ("a |& /usr/bin/tee log &", ["a"], ["|& /usr/bin/tee log"]),
        ("a | grep -v x | tee log", ["a"], ["| grep -v x", "| tee log"]),
        ('X=1\na $X ${X}2 "-$X-"', ["a", "1", "12", "-1-"], None),
        ("export X='1 2' Y=3; a \"$X\" $Y", ["a", "1 2", "3"], None),
        ("HF_TOKEN=$HF_TOKEN a", ["a"], ["HF_TOKEN"]),
        ('env A=1 HF_TOKEN="$HF_TOKEN" a', ["env", "A=1", "a"], ["HF_TOKEN"]),
        ('d --env "HF_TOKEN=$HF_TOKEN" i', ["d", "--env", "HF_TOKEN", "i"], ["HF_TOKEN"]),
        ("d --env=HF_TOKEN=${HF_TOKEN} -e A=$A i", ["d", "--env=HF_TOKEN", "-e", "A", "i"], ["HF_TOKEN", "A"]),
    ],
)
def test_what_does_not_change_an_engine_is_left_out_and_said(
    text: str, words: list[str], left_out: list[str] | None
) -> None:
    notes: list[str] = []
    assert split_commands(text, notes)[-1] == words
    if left_out is not None:
        assert len(notes) == len(left_out)
        assert all(part in note for part, note in zip(left_out, notes, strict=True))


def test_a_home_directory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    assert split_commands("a ~/m '~/m' x~") == [["a", "/home/u/m", "~/m", "x~"]]


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
def test_what_shlex_joins_is_split_again(words: list[str]) -> None:
    assert split_commands(shlex.join(words)) == [words]
