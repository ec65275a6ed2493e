"""Asks a person at the terminal to confirm a change. Nothing is held meanwhile: no lease, lock, transaction or thread
of the store."""

import asyncio
from collections.abc import Mapping
from typing import Any

from garrison.base.errors import DeclinedError, UsageError
from garrison.cli.asker import asked
from garrison.cli.fleet.wiring import Stop, run
from garrison.cli.views.page import counted
from garrison.fleet.values.plan import ActionKind, Plan

__all__ = ["confirm", "question_of"]


def confirm(question: str, stop: Stop, *, json: bool, unshown: Mapping[str, Any] | None = None) -> None:
    """Ask a person, and return if the answer is yes.

    Args:
        json: nothing has been shown, so nobody can be asked.
        unshown: what would have been shown, for the error's details.

    Raises:
        UsageError: nobody can be asked.
        DeclinedError: the answer is not yes.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    if json:
        raise UsageError(
            "confirmation required, but --json does not ask", hint="Confirm with --yes (-y).", details=unshown
        )
    if not run(asyncio.to_thread(asked, question, stop.stopping), stop):
        raise DeclinedError("Nothing was done.")


def question_of(plan: Plan) -> str:
    """Return the question that confirms a plan."""
    work = [action for action in plan.actions if action.acts or action.kind is ActionKind.BLOCKED]
    targets = counted(len({action.target for action in work}), "target")
    instances = counted(len(plan.instance_work), "instance")
    if plan.mode == "destroy":
        also = f" and delete {instances}" if plan.instance_work else ""
        return f"Unload {counted(len(work), 'adapter')} from {targets}{also}?"
    if plan.instance_work and not work:
        return f"Change {instances}?"
    also = f"change {instances}, and " if plan.instance_work else ""
    question = f"{also}apply {counted(len(work), 'action')} to {targets}?"
    return question[:1].upper() + question[1:]
