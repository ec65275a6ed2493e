"""Asking a person at the terminal whether a plan shall be applied."""

import select
import sys

from garrison.base.errors import UsageError
from garrison.cli.fleet.wiring import Stop
from garrison.cli.views.page import counted
from garrison.fleet.values.plan import ActionKind, Plan

__all__ = ["Question", "asked", "permission", "question_of"]

_POLL_SECONDS = 0.1


class Question:
    """Whether to go on with a plan; `apply` calls it on a thread of its own, once, when something would change.

    Args:
        yes: the answer was given on the command line.
        json: the plan has not been shown.
    """

    def __init__(self, stop: Stop, *, yes: bool, json: bool) -> None:
        self._stop = stop
        self._yes = yes
        self._json = json

    def __call__(self, plan: Plan) -> bool:
        """
        Raises:
            UsageError: nobody can be asked.
        """
        if self._yes:
            return True
        if self._json:
            details = {"plan": plan.to_json()}
            raise UsageError("not applied: --json does not ask", hint="--yes says yes.", details=details)
        return asked(question_of(plan), self._stop)


def permission(question: str, stop: Stop, *, yes: bool, json: bool) -> bool:
    """For what is no plan.

    Raises:
        UsageError: nobody can be asked.
    """
    if yes:
        return True
    if json:
        raise UsageError("not done: --json does not ask", hint="--yes says yes.")
    return asked(question, stop)


def question_of(plan: Plan) -> str:
    work = [action for action in plan.actions if action.acts or action.kind is ActionKind.BLOCKED]
    targets = counted(len({action.target for action in work}), "target")
    if plan.mode == "destroy":
        return f"Unload {counted(len(work), 'adapter')} from {targets}?"
    return f"Apply {counted(len(work), 'action')} to {targets}?"


def asked(question: str, stop: Stop) -> bool:
    """Whether somebody says yes; False as soon as `stop` is asked for, so that a thread that waits here ends.

    Raises:
        UsageError: there is no terminal to ask at.
    """
    if not sys.stdin.isatty():
        raise UsageError(f"not done: {question}", hint="There is no terminal to ask at; --yes says yes.")
    print(f"\n{question} [y/N] ", end="", file=sys.stderr, flush=True)
    while not stop.asked:
        ready, _, _ = select.select([sys.stdin], [], [], _POLL_SECONDS)
        if ready:
            return sys.stdin.readline().strip().lower() in ("y", "yes")
    return False
