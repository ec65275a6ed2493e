from dataclasses import replace

from plan_samples import action
from rendered import in_a_pipe

from garrison.cli.views.applied import show_applied
from garrison.fleet.operations.apply import Applied
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.instance_change import InstanceChange, InstanceKind, InstanceOutcome
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
