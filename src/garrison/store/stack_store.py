"""Stacks: what each was last applied with, whole or only where it concerns some targets."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from garrison.store.records import ActionRecord, CommandRecord, Declared, Event, StackRecord, TargetRecord

__all__ = ["StackStore"]


class StackStore(Protocol):
    def stacks(self, *, at: Collection[str] | None = None) -> list[StackRecord]:
        """By name.

        Args:
            at: narrow every declaration to these targets. What that costs does not depend on what else is declared;
                `at=()` reads policies and hooks alone. A narrowed record must not be declared again.
        """

    def stack(self, name: str, *, at: Collection[str] | None = None) -> StackRecord | None:
        """One stack; `at` as for `stacks`."""

    def declared(self, targets: Collection[str]) -> list[Declared]:
        """What stacks declare at these targets, by target and stack."""

    def declare(
        self,
        stack: StackRecord,
        targets: Sequence[TargetRecord],
        command: CommandRecord,
        actions: Sequence[ActionRecord],
        events: Sequence[Event] = (),
        *,
        seen: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> StackRecord:
        """Store the intention, before any effect: the stack (its version is incremented), the specs of `targets` (how
        they were last seen is kept; a new one is stored whole), the command and its actions. Targets that the stack no
        longer declares are added to `to_tidy`.

        Args:
            seen: the specs on record when this was decided, by target.

        Returns:
            The stack as stored.

        Raises:
            ConflictError: another command has since declared one of `targets` differently. Nothing is written.
        """

    def drop_stack(self, name: str) -> None:
        """Remove the stack's row; its history stays. Its targets are added to `to_tidy`.

        Raises:
            ConflictError: it still owns something.
        """
