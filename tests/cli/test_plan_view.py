from dataclasses import replace

import pytest
from plan_samples import action, full_plan, large_plan, plan_facts
from rendered import in_a_pipe, on_a_terminal

from garrison.cli.views.plan import show_plan
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.plan import ActionKind, Plan


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
    text = on_a_terminal(show(large_plan()))
    assert "+ 2,000 create" in text
    assert "… and 1,988 more create (--all shows them, or --json)" in text
    assert "… and 92 more targets (--all shows them, or --json)" in text
    assert len(text.splitlines()) < 50


def test_all_shows_all():
    text = on_a_terminal(show(large_plan(), everything=True))
    assert text.count("not served yet") == 2000
    assert text.count("timeout: 5 s") == 100
    assert "more" not in text


NOTHING = {
    "all kept": (Plan(stack="s", mode="reconcile", actions=(action(ActionKind.KEEP, "a"),)),
                 "No changes needed: everything is as declared."),
    "nothing at all": (Plan(stack="s", mode="reconcile"), "the stack declares and owns no adapters"),
    "not all seen": (Plan(stack="s", mode="reconcile", actions=(action(ActionKind.KEEP, "a"),), unknown={"b": "gone"}),
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
    assert "⊘ 1 blocked   ⊘ 1 owed" in told
    assert "⊘ owed     sql" in told
    assert "⊘ blocked  wide" in told
