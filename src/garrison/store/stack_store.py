"""Stacks: the declaration each was last applied with, whole or narrowed to some targets."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from garrison.store.records import ActionRecord, CommandRecord, Declared, Event, StackRecord, TargetRecord

__all__ = ["StackStore"]


class StackStore(Protocol):
    def stacks(self, *, at: Collection[str] | None = None) -> list[StackRecord]:
        """Return all stacks, by name.

        Args:
            at: narrow every declaration to these targets. The cost does not depend on what else is declared; `at=()`
                reads only policies and hooks. A narrowed record must not be passed to `declare`.
        """

    def stack(self, name: str, *, at: Collection[str] | None = None) -> StackRecord | None:
        """Return one stack; `at` as for `stacks`."""

    def declared(self, targets: Collection[str]) -> list[Declared]:
        """Return what stacks declare at these targets, by target and stack."""

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
        """Store the intention, before any effect: the stack, whose version is incremented, the specs of `targets`, the
        command and its actions.

        A target on record keeps its observation; a new one is stored whole. Targets that the stack no longer declares
        are added to `to_tidy`.

        Args:
            seen: the specs on record when the caller decided, by target.

        Returns:
            The stack as stored.

        Raises:
            ConflictError: another command has since declared one of `targets` differently. Nothing is written.
        """

    def drop_stack(self, name: str) -> None:
        """Remove the stack's row; its history stays. Its targets are added to `to_tidy`.

        Raises:
            ConflictError: it still owns a resource.
        """
