"""Commands and their actions: first the intention, then the outcome."""

from collections.abc import Collection, Sequence
from typing import Protocol

from garrison.store.records import ActionRecord, ActionResult, CommandRecord, Event

__all__ = ["CommandStore"]


class CommandStore(Protocol):
    def begin(self, command: CommandRecord, actions: Sequence[ActionRecord], events: Sequence[Event] = ()) -> None:
        """Store a command that changes no declaration."""

    def save_actions(self, results: Sequence[ActionResult]) -> None:
        """Store new states of actions, with the resource versions and events they made, in one transaction.

        An action that its command did not begin with is added to it.

        Raises:
            InternalError: the command does not exist. Nothing is written.
        """

    def finish(self, command: CommandRecord, events: Sequence[Event] = ()) -> None:
        """Store a command's state, end and summary.

        Raises:
            InternalError: the command does not exist.
        """

    def commands(self, *, stack: str | None = None, limit: int = 50) -> list[CommandRecord]:
        """Return commands, newest first."""

    def unfinished(
        self, stack: str | None = None, *, besides: Collection[str] = ()
    ) -> list[tuple[CommandRecord, list[ActionRecord]]]:
        """Return commands in state `running`, oldest first, with their actions in order.

        Args:
            stack: only commands of this stack.
            besides: ids of commands to leave out.
        """

    def begun(self) -> dict[str, set[str]]:
        """Return, for each stack with commands in state `running`, the targets on which one of their actions has
        started and not ended. Cheap enough to call every few seconds."""

    def actions(self, command: str) -> list[ActionRecord]:
        """Return the actions of a command, in order."""
