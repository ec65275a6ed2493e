import io
from dataclasses import replace

import pytest
from plan_samples import action, full_plan, large_plan, plan_facts
from rendered import in_a_pipe, on_a_terminal

from garrison.base.output.any_encoding import READABLE, never_fail
from garrison.cli.views.glyphs import CONFLICT, MARKS, OWED, STATE_MARKS
from garrison.cli.views.plan import show_plan
from garrison.cli.views.status import STATE_LOOKS
from garrison.fleet.values.failure import Failure, FailureCode, unknown_message
from garrison.fleet.values.observation import Cause
from garrison.fleet.values.plan import ActionKind, Change, Plan
from garrison.store.records import ActionState


def show(plan, **facts):
    return lambda page: show_plan(plan, page, plan_facts(**facts))


@pytest.mark.parametrize("width", [80, 120])
def test_everything_a_plan_can_hold(golden, width):
    golden(f"plan-{width}.txt", on_a_terminal(show(full_plan()), width))


def test_in_a_pipe_a_line_is_a_line(golden):
    text = in_a_pipe(show(full_plan()))
    assert "\x1b" not in text
    golden("plan-pipe.txt", text)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("plan", [full_plan(), large_plan()], ids=["full", "large"])
def test_no_line_is_wider_than_the_terminal(plan, width):
    lines = on_a_terminal(show(plan), width).splitlines()
    assert [line for line in lines if len(line) > width] == []
    assert [line for line in lines if line != line.rstrip()] == []


def test_words_suffice_without_colours():
    coloured = on_a_terminal(show(full_plan()), color=True)
    assert "\x1b[32m+ create" in coloured
    assert "\x1b[31m✕ delete" in coloured
    for word in ("create", "update", "delete", "replace", "keep", "blocked", "owed", "conflict", "adopt", "release"):
        assert word in in_a_pipe(show(full_plan()))


def test_thousands_of_actions_stay_readable():
    """What is done alike at many targets is one block, with its targets; so are targets that are unknown alike."""
    text = on_a_terminal(show(large_plan()))
    assert "+ 2,000 create" in text
    assert text.count("── 200 targets ─") == 1
    names = " ".join(text.partition("── 200 targets")[2].split()).partition("node-0000")[2]
    assert names.startswith(", node-0001, node-0002")
    assert " and 188 more" in names
    assert all(text.count(f"+ create   adapter-{one}  not served yet") == 1 for one in range(10))
    assert text.count("how  ") == 1
    assert "? 100 targets  timeout: 5 s: away-0000, away-0001" in text
    assert text.count("raise the target's `timeout`") == 1
    assert len(text.splitlines()) < 30
    assert all(len(line) <= 80 for line in text.splitlines())


def test_what_differs_at_a_target_stays_by_itself():
    alike = [action(ActionKind.CREATE, "sql", f"edge-{one}") for one in range(5)]
    other = [
        action(ActionKind.UPDATE, "sql", "odd", changes=(Change("path", "/a", "/b"),)),
        replace(action(ActionKind.CREATE, "sql", "slow"), reason="it was unloaded"),
        action(ActionKind.CREATE, "chat", "edge-0"),
        action(ActionKind.CREATE, "chat", "edge-1"),
    ]
    plan = Plan(stack="s", mode="reconcile", actions=(*alike, *other))
    text = in_a_pipe(show(plan, insecure=frozenset()))
    assert text.splitlines()[2:5] == [
        "",
        "5 targets",
        "  edge-0, edge-1, edge-2, edge-3, edge-4",
    ]
    for name in ("odd", "slow"):
        assert any(line.startswith(name) for line in text.splitlines())
    assert text.count("+ create   chat") == 2, "two targets are shown one by one"
    insecure = in_a_pipe(show(plan, insecure=frozenset({"edge-0"})))
    assert "4 targets" in insecure
    assert any(line.startswith("edge-0") and "INSECURE" in line for line in insecure.splitlines())


def test_more_blocks_than_fit_are_counted():
    actions = [action(ActionKind.CREATE, f"a{name}", f"edge-{one}") for name in range(30) for one in range(5)]
    plan = Plan(stack="s", mode="reconcile", actions=tuple(actions))
    text = in_a_pipe(show(plan, insecure=frozenset()))
    assert text.count("+ create   a") == 12
    assert "… and 90 more create (--all shows them, or --json)" in text


def test_blocked_and_owed_have_signs_of_their_own():
    assert len({MARKS[ActionKind.BLOCKED].glyph, OWED.glyph, CONFLICT.glyph}) == 3
    assert STATE_MARKS[ActionState.SKIPPED] == OWED
    assert STATE_LOOKS["owed"][0] == OWED.glyph
    signs = [STATE_MARKS[state].glyph for state in ActionState]
    assert len(set(signs)) == len(signs)
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    never_fail(out, READABLE)
    shown = {sign.encode("ascii", out.errors) for sign in (MARKS[ActionKind.BLOCKED].glyph, OWED.glyph)}
    assert len(shown) == 2, "where the terminal knows ASCII alone, too"


def test_all_shows_all():
    text = on_a_terminal(show(large_plan(), everything=True))
    assert text.count("not served yet") == 2000
    assert text.count("timeout: 5 s") == 100
    assert "more" not in text


NOTHING = {
    "all kept": (Plan(stack="s", mode="reconcile", actions=(action(ActionKind.KEEP, "a"),)),
                 "No changes needed: everything is as declared."),
    "nothing at all": (Plan(stack="s", mode="reconcile"), "the stack declares and owns no adapters"),
    "not all seen": (Plan(stack="s", mode="reconcile", actions=(action(ActionKind.KEEP, "a"),),
                          unknown={"b": unknown_message("b", Cause.REFUSED, "gone")}),
                     "as far as can be seen: 1 target out of reach"),
}  # fmt: skip


@pytest.mark.parametrize(("plan", "said"), NOTHING.values(), ids=NOTHING)
def test_nothing_to_do(plan, said):
    assert said in in_a_pipe(show(plan))


def test_a_name_cannot_move_the_cursor_or_be_markup():
    plan = full_plan()
    evil = replace(plan.actions[3], name="[red]x\x1b[2J\nfake line", reason="[bold]r\r")
    text = in_a_pipe(show(replace(plan, actions=(evil,))))
    assert "\x1b" not in text
    assert "[red]x" in text
    assert "\nfake line" not in text


def test_recoverable_failures_are_owed_not_blocked():
    passing = Failure(code=FailureCode.NOT_STABILIZED, message="its files are being written", recoverable=True)
    lasting = Failure(code=FailureCode.INVALID_REQUEST, message="rank 128")
    actions = (action(ActionKind.BLOCKED, "sql", failure=passing), action(ActionKind.BLOCKED, "wide", failure=lasting))
    told = in_a_pipe(lambda page: show_plan(Plan(stack="s", mode="reconcile", actions=actions), page, plan_facts()))
    assert "⊘ 1 blocked   ○ 1 owed" in told
    assert "○ owed     sql" in told
    assert "⊘ blocked  wide" in told
