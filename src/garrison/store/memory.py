"""The in-memory twin of `SqlStore`: for tests, and for what need not outlive a process."""

import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, TypeVar

from garrison.base.errors import ConflictError, InternalError
from garrison.store.records import (
    ActionRecord,
    CommandRecord,
    CommandState,
    Event,
    Key,
    Lease,
    Observation,
    Operation,
    Resource,
    StackRecord,
    TargetRecord,
)
from garrison.store.rules import can_take, declared_targets, observation_of, refuse_changed, seen_otherwise

__all__ = ["MemoryStore"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _locked(
    method: "Callable[Concatenate[MemoryStore, _P], _R]",
) -> "Callable[Concatenate[MemoryStore, _P], _R]":
    def call(self: "MemoryStore", /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with self._lock:
            return method(self, *args, **kwargs)

    update_wrapper(call, method)
    return call


class MemoryStore:
    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._identity = secrets.token_hex(16)
        self._revision = 0
        self._stacks: dict[str, StackRecord] = {}
        self._targets: dict[str, TargetRecord] = {}
        self._observations: list[Observation] = []
        self._versions: defaultdict[Key, list[Resource]] = defaultdict(list)
        self._commands: dict[str, CommandRecord] = {}
        self._actions: defaultdict[str, dict[int, ActionRecord]] = defaultdict(dict)
        self._leases: dict[str, Lease] = {}
        self._events: list[Event] = []
        self._last_event = 0
        self._contents: dict[str, tuple[str, str]] = {}

    # --- stacks

    @_locked
    def stacks(self) -> list[StackRecord]:
        return [self._stacks[name] for name in sorted(self._stacks)]

    @_locked
    def stack(self, name: str) -> StackRecord | None:
        return self._stacks.get(name)

    @_locked
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
        refuse_changed(targets, self._targets, seen)
        self._begin(command, actions)
        before = self._stacks.get(stack.name)
        stored = replace(stack, version=before.version + 1 if before else 1)
        self._stacks[stack.name] = stored
        for target in targets:
            known = self._targets.get(target.name)
            if known is not None:
                target = replace(known, spec=target.spec, declared_at=target.declared_at)
            elif target.state != "new":
                self._observations.append(observation_of(target))
            self._targets[target.name] = target
        self._revision += 1
        self._add(events)
        return stored

    @_locked
    def drop_stack(self, name: str) -> None:
        if owned := len(self.resources(stack=name)):
            raise ConflictError(f"the stack {name} still owns {owned} resources", hint="Destroy it first.")
        if self._stacks.pop(name, None):
            self._revision += 1

    # --- targets

    @_locked
    def targets(self, names: Collection[str] | None = None) -> list[TargetRecord]:
        return [
            self._targets[name] for name in sorted(self._targets if names is None else self._targets.keys() & names)
        ]

    @_locked
    def respecify(self, targets: Sequence[TargetRecord], events: Sequence[Event] = ()) -> None:
        for target in targets:
            known = self._targets.get(target.name)
            if known is not None:
                self._targets[target.name] = replace(known, spec=target.spec, declared_at=target.declared_at)
        self._revision += 1
        self._add(events)

    @_locked
    def sight(self, targets: Sequence[TargetRecord], events: Sequence[Event] = ()) -> None:
        for target in targets:
            known = self._targets.get(target.name)
            if known is None:
                continue
            if seen_otherwise(known, target):
                self._observations.append(observation_of(target))
            self._targets[target.name] = replace(target, spec=known.spec, declared_at=known.declared_at)
        self._add(events)

    @_locked
    def touch(self, names: Collection[str], at: datetime) -> list[str]:
        known = [self._targets[name] for name in sorted(set(names) & self._targets.keys())]
        away = [one.name for one in known if one.state == "unreachable"]
        for one in known:
            if one.state != "unreachable":
                self._targets[one.name] = replace(one, last_seen=at, last_checked=at)
        return away

    @_locked
    def forget(self, target: str, at: datetime, event: Event) -> int:
        owned = self.resources(target=target)
        self._put(
            replace(one, operation=Operation.FORGOTTEN, at=at, command=event.command, cause=event.cause)
            for one in owned
        )
        self._targets.pop(target, None)
        self._revision += 1
        self._add([event])
        return len(owned)

    @_locked
    def drop_targets(self, names: Collection[str]) -> None:
        needed = {one.key.target for one in self.resources()} | declared_targets(self._stacks.values())
        gone = [self._targets.pop(name) for name in names if name in self._targets and name not in needed]
        if gone:
            self._revision += 1

    @_locked
    def observations(
        self, *, target: str | None = None, since: datetime | None = None, limit: int = 200
    ) -> list[Observation]:
        found = [
            one
            for one in reversed(self._observations)
            if (target is None or one.target == target) and (since is None or one.at >= since)
        ]
        return found[:limit]

    # --- resources

    @_locked
    def resources(self, *, stack: str | None = None, target: str | None = None) -> list[Resource]:
        return [
            versions[-1]
            for key, versions in sorted(self._versions.items())
            if versions
            and versions[-1].operation.owned
            and (stack is None or versions[-1].stack == stack)
            and (target is None or key.target == target)
        ]

    @_locked
    def versions(self, key: Key) -> list[Resource]:
        return list(self._versions.get(key, ()))

    @_locked
    def put(self, resources: Sequence[Resource], events: Sequence[Event] = ()) -> None:
        self._put(resources)
        self._add(events)

    # --- commands and actions

    @_locked
    def begin(self, command: CommandRecord, actions: Sequence[ActionRecord], events: Sequence[Event] = ()) -> None:
        self._begin(command, actions)
        self._add(events)

    @_locked
    def save_action(
        self, action: ActionRecord, resources: Sequence[Resource] = (), events: Sequence[Event] = ()
    ) -> None:
        self._known(action.command)
        self._actions[action.command][action.seq] = action
        self._put(resources)
        self._add(events)

    @_locked
    def finish(self, command: CommandRecord, events: Sequence[Event] = ()) -> None:
        known = self._known(command.id)
        self._commands[command.id] = replace(
            known, state=command.state, ended_at=command.ended_at, summary=command.summary
        )
        self._add(events)

    @_locked
    def commands(self, *, stack: str | None = None, limit: int = 50) -> list[CommandRecord]:
        return [one for one in reversed(self._commands.values()) if stack is None or one.stack == stack][:limit]

    @_locked
    def unfinished(self, stack: str) -> list[tuple[CommandRecord, list[ActionRecord]]]:
        return [
            (one, self.actions(one.id))
            for one in self._commands.values()
            if one.stack == stack and one.state is CommandState.RUNNING
        ]

    @_locked
    def actions(self, command: str) -> list[ActionRecord]:
        return [action for _, action in sorted(self._actions.get(command, {}).items())]

    # --- leases

    @_locked
    def acquire(self, lease: Lease, now: datetime, *, instead_of: str | None = None) -> Lease | None:
        held = self._leases.get(lease.stack)
        if not can_take(held, lease, now, instead_of):
            return held
        self._leases[lease.stack] = lease
        return None

    @_locked
    def renew(self, token: str, expires_at: datetime) -> bool:
        for stack, lease in self._leases.items():
            if lease.token == token:
                self._leases[stack] = replace(lease, expires_at=expires_at)
                return True
        return False

    @_locked
    def release(self, token: str) -> None:
        self._leases = {stack: lease for stack, lease in self._leases.items() if lease.token != token}

    @_locked
    def leases(self) -> list[Lease]:
        return [self._leases[stack] for stack in sorted(self._leases)]

    # --- events

    @_locked
    def add_events(self, events: Iterable[Event]) -> None:
        self._add(events)

    @_locked
    def events(
        self,
        *,
        stack: str | None = None,
        target: str | None = None,
        name: str | None = None,
        kinds: Collection[str] | None = None,
        since: datetime | None = None,
        after_id: int | None = None,
        limit: int = 200,
    ) -> list[Event]:
        found = [
            one
            for one in self._events
            if (stack is None or one.stack == stack)
            and (target is None or one.target == target)
            and (name is None or one.name == name)
            and (kinds is None or one.kind in kinds)
            and (since is None or one.at >= since)
            and (after_id is None or one.id > after_id)
        ]
        return (found if after_id is not None else found[::-1])[:limit]

    # --- upkeep

    @_locked
    def revision(self) -> int:
        return self._revision

    def identity(self) -> str:
        return self._identity

    @_locked
    def content(self, path: str, stamp: str) -> str | None:
        known, digest = self._contents.get(path, (None, None))
        return digest if known == stamp else None

    @_locked
    def put_content(self, path: str, stamp: str, digest: str) -> None:
        self._contents[path] = (stamp, digest)

    @_locked
    def prune(self, before: datetime) -> int:
        size = self._size()
        self._events = [one for one in self._events if one.at >= before]
        last = {one.target: one for one in self._observations if one.target in self._targets}
        self._observations = [one for one in self._observations if one.at >= before or one is last.get(one.target)]
        running = {one.id for one in self._commands.values() if one.state is CommandState.RUNNING}
        for key, versions in list(self._versions.items()):
            owned = versions[-1] if versions and versions[-1].operation.owned else None
            kept = (n for n, one in enumerate(versions) if one is owned or one.at >= before or one.command in running)
            self._versions[key] = versions[next(kept, len(versions)) :]
        used = {one.command for one in self.resources()} | {one.command for one in self._stacks.values()}
        for one in list(self._commands.values()):
            if one.id not in used | running and one.ended_at is not None and one.ended_at < before:
                del self._commands[one.id]
                self._actions.pop(one.id, None)
        return size - self._size()

    def close(self) -> None: ...

    def _size(self) -> int:
        lists = [*self._versions.values(), *self._actions.values()]
        return len(self._events) + len(self._observations) + len(self._commands) + sum(map(len, lists))

    def _begin(self, command: CommandRecord, actions: Sequence[ActionRecord]) -> None:
        if command.id in self._commands:
            raise InternalError(f"there is a command {command.id} already")
        self._commands[command.id] = command
        self._actions[command.id] = {action.seq: action for action in actions}

    def _known(self, command: str) -> CommandRecord:
        if command not in self._commands:
            raise InternalError(f"there is no command {command}")
        return self._commands[command]

    def _put(self, resources: Iterable[Resource]) -> None:
        for one in resources:
            versions = self._versions[one.key]
            versions.append(replace(one, version=versions[-1].version + 1 if versions else 1))
            self._revision += 1

    def _add(self, events: Iterable[Event]) -> None:
        for one in events:
            self._last_event += 1
            self._events.append(replace(one, id=self._last_event))
