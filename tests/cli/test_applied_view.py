from dataclasses import replace

import pytest
from plan_samples import action
from rendered import in_a_pipe

from garrison.cli.views.applied import show_applied
from garrison.fleet.operations.apply import Applied
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.instance_change import InstanceChange, InstanceKind, InstanceOutcome
from garrison.fleet.values.observation import Cause
from garrison.fleet.values.plan import ActionKind, Plan
from garrison.fleet.values.view import Outcome
from garrison.store.records import ActionState


def test_what_became_of_instances_is_said():
    made = [InstanceChange(kind=kind, name=str(kind)) for kind in (InstanceKind.DELETE, InstanceKind.CREATE)]
    outcomes = (
        *(InstanceOutcome(change=one) for one in made),
        InstanceOutcome(change=replace(made[0], name="qwen"), error="no room", hint="Make some."),
    )
    applied = Applied(plan=Plan(stack="s", mode="reconcile"), instances=outcomes, command="c")
    assert in_a_pipe(lambda page: show_applied(applied, page)).splitlines()[1:] == [
        "✓ 1 instance deleted, 1 instance created",
        "✗ instance qwen: no room",
        "  → Make some.",
    ]
    assert applied.exit_code == 30


def failed(name, message, hint):
    failure = Failure(code=FailureCode.INVALID_REQUEST, message=message, hint=hint)
    return Outcome(action=action(ActionKind.CREATE, name), state=ActionState.FAILED, failure=failure)


def test_a_hint_is_printed_once_below_the_failures_that_share_it():
    outcomes = (
        failed("wide", "rank 128", "Train it lower."),
        failed("gone", "no such file", "Put it there."),
        failed("wider", "rank 256", "Train it lower."),
        failed("odd", "who knows", None),
    )
    applied = Applied(plan=Plan(stack="s", mode="reconcile"), outcomes=outcomes, command="c")
    assert in_a_pipe(lambda page: show_applied(applied, page)).splitlines()[1:] == [
        "✗ 4 failed",
        "  edge-2/wide  rank 128",
        "  edge-2/wider  rank 256",
        "    → Train it lower.",
        "  edge-2/gone  no such file",
        "    → Put it there.",
        "  edge-2/odd  who knows",
    ]


@pytest.mark.parametrize(
    ("state", "cause", "code"),
    [
        (ActionState.STARTED, None, 30),
        (ActionState.STARTED, Cause.RESET, 31),
        (ActionState.SKIPPED, Cause.REFUSED, 31),
        (ActionState.FAILED, None, 30),
    ],
    ids=["a load took too long", "the target was lost meanwhile", "out of reach", "failed"],
)
def test_what_took_too_long_at_a_target_that_answers_has_failed(state, cause, code):
    failure = Failure(code=FailureCode.SERVICE_TIMEOUT, message="late", recoverable=True, cause=cause)
    outcome = Outcome(action=action(ActionKind.CREATE, "sql", "edge-1"), state=state, failure=failure)
    applied = Applied(plan=Plan(stack="s", mode="reconcile"), outcomes=(outcome,), command="c")
    assert applied.exit_code == code
    shown = in_a_pipe(lambda page: show_applied(applied, page))
    assert ("cut short" in shown) is (state is ActionState.STARTED and cause is None)
    assert ("owed" in shown) is (cause is not None)
