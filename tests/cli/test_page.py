from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendered import in_a_pipe, on_a_terminal
from rich.text import Text

from garrison.cli.views.age import ago, duration
from garrison.cli.views.page import counted, plain, sentence, shortened

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@given(st.text(max_size=300), st.text(max_size=60), st.integers(20, 200))
def test_wrapping_loses_no_word_and_keeps_to_the_width(body, head, width):
    text = on_a_terminal(lambda page: page.entry(Text(plain(head)), Text(plain(body))), width)
    squeezed = "".join(text.split())
    assert squeezed == "".join((plain(head) + plain(body)).split())
    assert all(Text(line).cell_len <= width for line in text.splitlines()) or Text(plain(head)).cell_len > width


@given(st.text(max_size=200))
def test_in_a_pipe_an_entry_is_one_printable_line(body):
    text = in_a_pipe(lambda page: page.line("x", body))
    assert text.endswith("\n")
    assert text[:-1].isprintable()


def test_a_flow_breaks_between_items():
    items = [Text("aaaa bbbb"), Text("cccc dddd"), Text("eeee ffff")]
    assert on_a_terminal(lambda page: page.flow(Text("  "), items), 26) == "  aaaa bbbb   cccc dddd\n  eeee ffff\n"
    assert in_a_pipe(lambda page: page.flow(Text("  "), items)) == "  aaaa bbbb   cccc dddd   eeee ffff\n"


def test_a_command_is_not_broken():
    body = "Restart the agent, or run `garrison apply --watch` once, and see `garrison history`."
    assert on_a_terminal(lambda page: page.line("→ ", body), 40).splitlines() == [
        "→ Restart the agent, or run", "  `garrison apply --watch` once, and see", "  `garrison history`.",
    ]  # fmt: skip


AGES = {0: "just now", 1: "1 s ago", 59: "59 s ago", 60: "1 m ago", 3599: "59 m ago", 3600: "1 h ago",
        172_799: "47 h ago", 172_800: "2 d ago", -5: "just now"}  # fmt: skip


@pytest.mark.parametrize(("seconds", "words"), AGES.items(), ids=map(str, AGES))
def test_ago(seconds, words):
    assert ago(NOW - timedelta(seconds=seconds), NOW) == words


def test_never():
    assert ago(None, NOW) == "never"
    assert duration(0.4) == "0 s"


def test_words():
    assert [counted(1, "target"), counted(2000, "target"), counted(2, "entry", "entries")] == [
        "1 target", "2,000 targets", "2 entries",
    ]  # fmt: skip
    assert sentence("abc") == "a, b, c"
    assert sentence("abcdefg") == "a, b, c, d, e and 2 more"
    assert shortened(f"/store/{'0a' * 32}/x") == "/store/0a0a0a0a0a0a…/x"
    assert shortened(f"/store/{'0a' * 20}/x") == f"/store/{'0a' * 20}/x"
