"""Asks a person at the terminal to confirm a change. Nothing is held meanwhile: no lease, lock, transaction or thread
of the store."""

import asyncio
import select
import sys
from collections.abc import Mapping
from typing import Any

from garrison.base.errors import UsageError
from garrison.cli.fleet.wiring import Stop, run
from garrison.cli.views.page import counted
from garrison.fleet.values.plan import ActionKind, Plan

__all__ = ["asked", "confirmed", "question_of"]

_POLL_SECONDS = 0.1


def confirmed(question: str, stop: Stop, *, json: bool, unshown: Mapping[str, Any] | None = None) -> bool:
    """Return whether a person says yes.

    Args:
        json: nothing has been shown, so nobody can be asked.
        unshown: what would have been shown, for the error's details.

    Raises:
        UsageError: nobody can be asked.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    if json:
        said = "not applied" if unshown else "not done"
        raise UsageError(f"{said}: --json does not ask", hint="--yes says yes.", details=unshown)
    return run(asyncio.to_thread(asked, question, stop), stop)


def question_of(plan: Plan) -> str:
    """Return the question that confirms a plan."""
    work = [action for action in plan.actions if action.acts or action.kind is ActionKind.BLOCKED]
    targets = counted(len({action.target for action in work}), "target")
    if plan.mode == "destroy":
        return f"Unload {counted(len(work), 'adapter')} from {targets}?"
    return f"Apply {counted(len(work), 'action')} to {targets}?"


def asked(question: str, stop: Stop) -> bool:
    """Return whether a person says yes. False once a stop was requested, so that a thread that waits here ends.

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
