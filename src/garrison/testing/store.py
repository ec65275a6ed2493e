"""The twin of the database: `SqlStore` in memory."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from garrison.base.errors import ConflictError
from garrison.store.records import (
    ActionRecord,
    ActionResult,
    ActionState,
    AgentRecord,
    Changes,
    CommandRecord,
    CommandState,
    Declared,
    Event,
    Key,
    Lease,
    Observation,
    Operation,
    Resource,
    StackRecord,
    TargetRecord,
)
from garrison.store.rules import (
    can_take,
    is_elsewhere,
    observation_of,
    parts,
    refuse_changed,
    seen_otherwise,
    without_news_of,
)
from garrison.testing.store_access import AccessInMemory
from garrison.testing.store_instances import InstancesInMemory
from garrison.testing.store_state import locked
from garrison.testing.store_usage import UsageInMemory

__all__ = ["MemoryStore"]


class MemoryStore(InstancesInMemory, AccessInMemory, UsageInMemory):
    """`FleetStore` in memory, as strict as the real one: the same suite of tests runs on both."""

    # --- stacks

    @locked
    def stacks(self, *, at: Collection[str] | None = None) -> list[StackRecord]:
        found = [self._stacks[name] for name in sorted(self._stacks)]
        return found if at is None else [self._narrowed(one, at) for one in found]

    @locked
    def stack(self, name: str, *, at: Collection[str] | None = None) -> StackRecord | None:
        found = self._stacks.get(name)
        return found if at is None or found is None else self._narrowed(found, at)

    @locked
    def declared(self, targets: Collection[str]) -> list[Declared]:
        return [
            Declared(stack=stack, target=target, spec=part["spec"], adapters=tuple(part["adapters"]))
            for target in sorted(set(targets))
            for stack, some in sorted(self._parts.items())
            if (part := some.get(target)) is not None
        ]

    @locked
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
        refuse_changed(targets, {name: one.spec for name, one in self._targets.items()}, seen)
        self._begin(command, actions)
        before = self._stacks.get(stack.name)
        stored = replace(stack, version=before.version + 1 if before else 1)
        self._stacks[stack.name] = stored
        old, new = self._parts.get(stack.name, {}), parts(stack.declaration)
        self._parts[stack.name] = new
        changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
        self._to_tidy |= (old.keys() - new.keys()) & self._targets.keys()
        for target in targets:
            known = self._targets.get(target.name)
            if known is None or known.spec != target.spec:
                changed.add(target.name)
            if known is not None:
                target = replace(known, spec=target.spec, declared_at=target.declared_at)
            elif target.state != "new":
                self._observations.append(observation_of(target))
            self._targets[target.name] = target
            self._to_tidy.discard(target.name)
        self._record(stacks=[stack.name], targets=changed)
        self._add(events)
        return stored

    @locked
    def drop_stack(self, name: str) -> None:
        if owned := len(self.resources(stack=name)):
            raise ConflictError(f"stack {name} still owns {owned} resources", hint="Destroy it first.")
        if self._stacks.pop(name, None):
            targets = self._parts.pop(name).keys()
            self._to_tidy |= targets & self._targets.keys()
            self._record(stacks=[name], targets=targets)

    # --- targets

    @locked
    def targets(self, names: Collection[str] | None = None) -> list[TargetRecord]:
        return [
            self._targets[name] for name in sorted(self._targets if names is None else self._targets.keys() & names)
        ]

    @locked
    def targets_at(self, base_urls: Collection[str]) -> list[TargetRecord]:
        return [one for one in self.targets() if one.spec.get("base_url") in base_urls]

    @locked
    def unreachable(self, names: Collection[str]) -> list[TargetRecord]:
        return [one for one in self.targets(names) if one.state == "unreachable"]

    @locked
    def respecify(self, targets: Sequence[TargetRecord], events: Sequence[Event] = ()) -> None:
        for target in targets:
            known = self._targets.get(target.name)
            if known is not None:
                self._targets[target.name] = replace(known, spec=target.spec, declared_at=target.declared_at)
        if targets:
            self._record(targets=[target.name for target in targets])
        self._add(events)

    @locked
    def sight(self, targets: Sequence[TargetRecord], events: Sequence[Event] = ()) -> None:
        moved = set()
        for target in targets:
            known = self._targets.get(target.name)
            if known is None:
                continue
            if is_elsewhere(known, target):
                moved.add(target.name)
                continue
            if seen_otherwise(known, target):
                self._observations.append(observation_of(target))
            self._targets[target.name] = replace(target, spec=known.spec, declared_at=known.declared_at)
        self._add(without_news_of(moved, events))

    @locked
    def touch(self, times: Mapping[str, datetime]) -> list[str]:
        known = self.targets(times)
        away = [one.name for one in known if one.state == "unreachable"]
        for one in known:
            if one.state != "unreachable":
                at = times[one.name]
                self._targets[one.name] = replace(one, last_seen=at, last_checked=at)
        return away

    @locked
    def forget(self, target: str, at: datetime, event: Event) -> int:
        owned = self.resources(targets=[target])
        self._put(
            replace(one, operation=Operation.FORGOTTEN, at=at, command=event.command, cause=event.cause)
            for one in owned
        )
        self._targets.pop(target, None)
        self._to_tidy.discard(target)
        self._record(targets=[target])
        self._add([event])
        return len(owned)

    @locked
    def to_tidy(self) -> list[str]:
        return sorted(self._to_tidy)

    @locked
    def tidied(self, names: Collection[str]) -> None:
        self._to_tidy -= set(names)

    @locked
    def drop_targets(self, names: Collection[str]) -> None:
        needed = {one.key.target for one in self.resources()} | {name for some in self._parts.values() for name in some}
        gone = (set(names) & self._targets.keys()) - needed
        for name in gone:
            del self._targets[name]
        self._to_tidy -= gone
        if gone:
            self._record(targets=gone)

    @locked
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

    @locked
    def resources(self, *, stack: str | None = None, targets: Collection[str] | None = None) -> list[Resource]:
        return [
            versions[-1]
            for key, versions in sorted(self._versions.items())
            if versions
            and versions[-1].operation.owned
            and (stack is None or versions[-1].stack == stack)
            and (targets is None or key.target in targets)
        ]

    @locked
    def versions(self, key: Key) -> list[Resource]:
        return list(self._versions.get(key, ()))

    @locked
    def put(self, resources: Sequence[Resource], events: Sequence[Event] = ()) -> None:
        self._put(resources)
        self._add(events)

    # --- commands and actions

    @locked
    def begin(self, command: CommandRecord, actions: Sequence[ActionRecord], events: Sequence[Event] = ()) -> None:
        self._begin(command, actions)
        self._add(events)

    @locked
    def save_actions(self, results: Sequence[ActionResult]) -> None:
        for one in results:
            self._known(one.action.command)
        for one in results:
            self._actions[one.action.command][one.action.seq] = one.action
        self._put([resource for one in results for resource in one.resources])
        self._add([event for one in results for event in one.events])

    @locked
    def finish(self, command: CommandRecord, events: Sequence[Event] = ()) -> None:
        known = self._known(command.id)
        self._commands[command.id] = replace(
            known, state=command.state, ended_at=command.ended_at, summary=command.summary
        )
        self._add(events)

    @locked
    def commands(self, *, stack: str | None = None, limit: int = 50) -> list[CommandRecord]:
        return [one for one in reversed(self._commands.values()) if stack is None or one.stack == stack][:limit]

    @locked
    def unfinished(
        self, stack: str | None = None, *, besides: Collection[str] = ()
    ) -> list[tuple[CommandRecord, list[ActionRecord]]]:
        return [
            (one, self.actions(one.id))
            for one in self._commands.values()
            if stack in (None, one.stack) and one.state is CommandState.RUNNING and one.id not in besides
        ]

    @locked
    def begun(self) -> dict[str, set[str]]:
        found: defaultdict[str, set[str]] = defaultdict(set)
        for command, actions in self.unfinished():
            found[command.stack] |= {one.key.target for one in actions if one.state is ActionState.STARTED}
        return dict(found)

    @locked
    def actions(self, command: str) -> list[ActionRecord]:
        return [action for _, action in sorted(self._actions.get(command, {}).items())]

    # --- leases

    @locked
    def acquire(self, lease: Lease, now: datetime, *, instead_of: str | None = None) -> Lease | None:
        held = self._leases.get(lease.stack)
        if not can_take(held, lease, now, instead_of):
            return held
        self._leases[lease.stack] = lease
        return None

    @locked
    def renew(self, token: str, expires_at: datetime, now: datetime) -> bool:
        for stack, lease in self._leases.items():
            if lease.token == token:
                self._leases[stack] = replace(lease, expires_at=expires_at)
                return True
        return False

    @locked
    def release(self, token: str) -> None:
        self._leases = {stack: lease for stack, lease in self._leases.items() if lease.token != token}

    @locked
    def leases(self, *, now: datetime | None = None) -> list[Lease]:
        return [
            self._leases[stack] for stack in sorted(self._leases) if now is None or self._leases[stack].expires_at > now
        ]

    # --- agents

    @locked
    def beat(self, agent: AgentRecord) -> None:
        known = self._agents.get(agent.token, agent)
        self._agents[agent.token] = replace(known, alive_at=agent.alive_at, looked_at=agent.looked_at)

    @locked
    def agents(self) -> list[AgentRecord]:
        return sorted(self._agents.values(), key=lambda one: (one.since, one.token))

    @locked
    def drop_agents(self, tokens: Collection[str]) -> None:
        for token in tokens:
            self._agents.pop(token, None)

    # --- events

    @locked
    def add_events(self, events: Iterable[Event]) -> None:
        self._add(events)

    @locked
    def events(
        self,
        *,
        stack: str | None = None,
        target: str | None = None,
        name: str | None = None,
        kinds: Collection[str] | None = None,
        subject: tuple[str, str] | None = None,
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
            and (subject is None or (one.subject_kind, one.subject_name) == subject)
            and (since is None or one.at >= since)
            and (after_id is None or one.id > after_id)
        ]
        return (found if after_id is not None else found[::-1])[:limit]

    @locked
    def last_times(self, kind: str, targets: Collection[str]) -> dict[str, datetime]:
        found: dict[str, datetime] = {}
        for one in self._events:
            if one.kind == kind and one.target is not None and one.target in targets:
                found[one.target] = max(one.at, found.get(one.target, one.at))
        return found

    # --- upkeep

    @locked
    def revision(self) -> int:
        return self._revision

    @locked
    def changes(self, since: int) -> Changes:
        found = [one for one, revision in self._changed.items() if revision > since]
        return Changes(
            revision=self._revision,
            stacks=frozenset(name for kind, name in found if kind == "stack"),
            targets=frozenset(name for kind, name in found if kind == "target"),
        )

    def identity(self) -> str:
        return self._identity

    @locked
    def content(self, path: str, stamp: str) -> str | None:
        known, digest = self._contents.get(path, (None, None))
        return digest if known == stamp else None

    @locked
    def put_content(self, path: str, stamp: str, digest: str) -> None:
        self._contents[path] = (stamp, digest)

    @locked
    def prune(self, before: datetime) -> int:
        size = self._size()
        self._events = [one for one in self._events if one.at >= before]
        self._audit = [one for one in self._audit if one.at >= before]
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
