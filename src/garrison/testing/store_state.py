"""The state of the in-memory store, and how it is written."""

import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence, Sized
from dataclasses import replace
from datetime import date, datetime
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, TypeVar

from garrison.base.errors import InternalError
from garrison.store.audit_store import AuditRow
from garrison.store.instance_store import InstanceRow
from garrison.store.key_store import KeyRow
from garrison.store.records import (
    ActionRecord,
    AgentRecord,
    CommandRecord,
    Event,
    Key,
    Lease,
    Observation,
    Resource,
    StackRecord,
    TargetRecord,
)
from garrison.store.rules import head_of, narrowed
from garrison.store.usage_store import Usage

__all__ = ["MemoryState", "locked"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_S = TypeVar("_S", bound="MemoryState")


def locked(method: Callable[Concatenate[_S, _P], _R]) -> Callable[Concatenate[_S, _P], _R]:
    """Make a method one transaction: no other method runs meanwhile."""

    def call(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with self._lock:
            return method(self, *args, **kwargs)

    update_wrapper(call, method)
    return call


class MemoryState:
    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._identity = secrets.token_hex(16)
        self._revision = 0
        self._changed: dict[tuple[str, str], int] = {}
        """(kind, name) to the revision of its last change."""
        self._stacks: dict[str, StackRecord] = {}
        self._parts: dict[str, dict[str, dict[str, Any]]] = {}
        self._to_tidy: set[str] = set()
        self._targets: dict[str, TargetRecord] = {}
        self._observations: list[Observation] = []
        self._versions: defaultdict[Key, list[Resource]] = defaultdict(list)
        self._commands: dict[str, CommandRecord] = {}
        self._actions: defaultdict[str, dict[int, ActionRecord]] = defaultdict(dict)
        self._leases: dict[str, Lease] = {}
        self._agents: dict[str, AgentRecord] = {}
        self._events: list[Event] = []
        self._last_event = 0
        self._instances: dict[int, InstanceRow] = {}
        self._last_instance = 0
        self._keys: dict[int, KeyRow] = {}
        self._last_key = 0
        self._keys_revision = 0
        self._audit: list[AuditRow] = []
        self._last_audit = 0
        self._usage: dict[tuple[date, int, str], Usage] = {}
        self._usage_batches: dict[str, tuple[int, datetime]] = {}
        self._contents: dict[str, tuple[str, str]] = {}

    def _size(self) -> int:
        lists: list[Sized] = [*self._versions.values(), *self._actions.values()]
        lists += [self._events, self._audit]
        return len(self._observations) + len(self._commands) + sum(map(len, lists))

    def _begin(self, command: CommandRecord, actions: Sequence[ActionRecord]) -> None:
        if command.id in self._commands:
            raise InternalError(f"command {command.id} is already on record")
        self._commands[command.id] = command
        self._actions[command.id] = {action.seq: action for action in actions}

    def _known(self, command: str) -> CommandRecord:
        if command not in self._commands:
            raise InternalError(f"command {command} is not on record")
        return self._commands[command]

    def _put(self, resources: Iterable[Resource]) -> None:
        targets = set()
        for one in resources:
            versions = self._versions[one.key]
            versions.append(replace(one, version=versions[-1].version + 1 if versions else 1))
            targets.add(one.key.target)
        if targets:
            self._record(targets=targets)

    def _narrowed(self, stack: StackRecord, at: Collection[str]) -> StackRecord:
        some = {name: part for name, part in sorted(self._parts[stack.name].items()) if name in at}
        return replace(stack, declaration=narrowed(head_of(stack.declaration), some))

    def _record(self, *, stacks: Iterable[str] = (), targets: Iterable[str] = ()) -> None:
        self._revision += 1
        self._changed |= {("stack", name): self._revision for name in stacks}
        self._changed |= {("target", name): self._revision for name in targets}

    def _add(self, events: Iterable[Event]) -> None:
        for one in events:
            self._last_event += 1
            self._events.append(replace(one, id=self._last_event))
