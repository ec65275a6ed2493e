"""Commands and their actions: the intention first, then what became of it."""

from collections.abc import Collection, Sequence
from typing import Protocol

from garrison.store.records import ActionRecord, ActionResult, CommandRecord, Event

__all__ = ["CommandStore"]


class CommandStore(Protocol):
    def begin(self, command: CommandRecord, actions: Sequence[ActionRecord], events: Sequence[Event] = ()) -> None:
        """Store a command that changes no declaration."""

    def save_actions(self, results: Sequence[ActionResult]) -> None:
        """Store the new state of actions, and what they made of resources, in one transaction. An action that its
        command did not begin with is added to it.

        Raises:
            InternalError: there is no such command. Nothing is written.
        """

    def finish(self, command: CommandRecord, events: Sequence[Event] = ()) -> None:
        """Store a command's state, end and summary.

        Raises:
            InternalError: there is no such command.
        """

    def commands(self, *, stack: str | None = None, limit: int = 50) -> list[CommandRecord]:
        """Newest first."""

    def unfinished(
        self, stack: str | None = None, *, besides: Collection[str] = ()
    ) -> list[tuple[CommandRecord, list[ActionRecord]]]:
        """Commands in state `running`, oldest first, with their actions in order; of one stack where given.

        Args:
            besides: ids of commands to leave out.
        """

    def begun(self) -> dict[str, set[str]]:
        """Stacks with commands in state `running`, and the targets on which those have started an action that has not
        ended. Cheap enough to ask every few seconds."""

    def actions(self, command: str) -> list[ActionRecord]:
        """In order."""
