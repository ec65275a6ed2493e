"""The rows, as values. Specs are plain JSON here; the fleet knows what they mean.

Times are UTC. A `Key` is the identity of a resource: the same adapter name on two targets is two resources.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

__all__ = [
    "ActionRecord",
    "ActionResult",
    "ActionState",
    "AgentRecord",
    "Changes",
    "CommandRecord",
    "CommandState",
    "Declared",
    "Event",
    "Holder",
    "Key",
    "Lease",
    "Observation",
    "Operation",
    "Resource",
    "StackRecord",
    "TargetRecord",
]


@dataclass(frozen=True, slots=True, order=True)
class Key:
    target: str
    type: str
    name: str


class Operation(StrEnum):
    """What made a version of a resource."""

    CREATED = "created"
    UPDATED = "updated"
    ADOPTED = "adopted"
    LOST = "lost"
    """The tombstone: declared, and proved absent. The stack still owns it."""
    DELETED = "deleted"
    RELEASED = "released"
    """No longer owned, and left where it is."""
    FORGOTTEN = "forgotten"

    @property
    def owned(self) -> bool:
        """Whether the stack still owns it."""
        return self in (Operation.CREATED, Operation.UPDATED, Operation.ADOPTED, Operation.LOST)

    @property
    def serves(self) -> bool:
        """Whether the target served it after this operation."""
        return self in (Operation.CREATED, Operation.UPDATED, Operation.ADOPTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One version of what was last applied under a key. Versions are appended, from 1, and never changed.

    Attributes:
        label: the manifest's key.
        spec: the adapter as it was declared (JSON).
        served_path: the path it was loaded from, which is what the target's list shows as `root`.
        parent: the base model it was attached to when it was observed.
        cause: the reason for a tombstone, or for a version that no command made.
    """

    key: Key
    stack: str
    label: str
    operation: Operation
    spec: Mapping[str, Any]
    served_path: str
    parent: str | None
    at: datetime
    version: int = 0
    command: str | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StackRecord:
    """A stack as it was last applied.

    Attributes:
        declaration: the whole manifest, what the targets are to serve (JSON).
        version: counts the applies.
        ending: it was destroyed, and an unload is still owed on a target out of reach.
    """

    name: str
    declaration: Mapping[str, Any]
    at: datetime
    version: int = 0
    command: str | None = None
    ending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What one stack declares at one target (JSON). `spec` is None where only adapters are declared for it."""

    stack: str
    target: str
    spec: Mapping[str, Any] | None
    adapters: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRecord:
    """A target: how it is declared, and how it was last seen. Only `forget` removes one on which something is owed.

    Attributes:
        spec: as declared (JSON, references to secrets only).
        state: `new` (never observed), `reachable` (the last list was believed) or `unreachable`.
        cause, detail: why it is not reachable.
        since: when `state` last changed.
        last_seen: the last time a list was believed.
        last_checked: the last time it was observed, whatever the result.
        base: the base model by which lists are believed.
        served: the last believed list: entries {name, root, parent}.
        capabilities: the result of the last probe.
    """

    name: str
    spec: Mapping[str, Any]
    declared_at: datetime
    state: str = "new"
    cause: str | None = None
    detail: str = ""
    since: datetime | None = None
    last_seen: datetime | None = None
    last_checked: datetime | None = None
    base: str | None = None
    served: tuple[Mapping[str, Any], ...] = ()
    capabilities: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """How a target was seen from `at` until its next observation: one row per change of state, cause, base or list.

    The fields are those of `TargetRecord`.
    """

    target: str
    at: datetime
    state: str
    cause: str | None = None
    detail: str = ""
    base: str | None = None
    served: tuple[Mapping[str, Any], ...] = ()


class CommandState(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    OWED = "owed"
    """Nothing failed, and actions are still owed on targets out of reach."""
    INTERRUPTED = "interrupted"
    """It was killed, and a later command or the agent settled its actions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRecord:
    """`kind`: apply, destroy, adopt, forget, restore (the agent). `by`: `user@host pid`."""

    id: str
    kind: str
    stack: str
    started_at: datetime
    by: str
    mode: str | None = None
    state: CommandState = CommandState.RUNNING
    ended_at: datetime | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)


class ActionState(StrEnum):
    PLANNED = "planned"
    STARTED = "started"
    """The intention is recorded; its effect may or may not have happened."""
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not begun, because its target was out of reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRecord:
    """One action of a command.

    Attributes:
        step: the last step that was begun.
        before, after: {spec, served_path, parent} before the action and as intended; None where there is nothing. If
            a replacement has another name, `before` also has the old `name`.
        error: a failure (JSON).
        gap_ms: milliseconds during which the name was not served, for an update.
    """

    command: str
    seq: int
    key: Key
    label: str
    kind: str
    reason: str
    state: ActionState = ActionState.PLANNED
    step: str = ""
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    gap_ms: float | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The writer of a stack.

    (`host`, `pid`, `started`) identifies a process: `started` is its start time in clock ticks after boot, and `host`
    includes the boot id, so that two machines of one name differ.
    """

    host: str
    pid: int
    started: int | None
    user: str
    purpose: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to write a stack until `expires_at`. `token` identifies this acquisition."""

    stack: str
    token: str
    holder: Holder
    acquired_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRecord:
    """An agent that keeps the fleet. Times are those of its machine's clock.

    Attributes:
        token: identifies this run of it.
        alive_at: when it last said that it lives.
        looked_at: when it last looked at a target; None for not yet.
        stacks: those it keeps; None for all.
    """

    token: str
    holder: Holder
    since: datetime
    alive_at: datetime
    looked_at: datetime | None = None
    stacks: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that changed, or was done.

    Attributes:
        kind: what happened; see `garrison.fleet.values.events`.
        stack, target, name: where in the fleet; `name` is an adapter's. None where it does not apply.
        subject_kind, subject_name: what it happened to: `adapter` (`TARGET/NAME`), `target` or `stack` by default, from
            the most specific of the fields above, and `fleet` without any; other rooms name their own, such as
            `instance` or `route`.
        before, after: JSON.
        id: its place in the history; 0 before it is stored.
    """

    at: datetime
    kind: str
    stack: str | None = None
    target: str | None = None
    name: str | None = None
    cause: str | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    command: str | None = None
    subject_kind: str = ""
    subject_name: str = ""
    id: int = 0

    def __post_init__(self) -> None:
        if self.subject_kind:
            return
        kind, name = _subject(self.stack, self.target, self.name)
        object.__setattr__(self, "subject_kind", kind)
        object.__setattr__(self, "subject_name", name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionResult:
    """The new state of an action, with the resource versions and events to store in the same transaction."""

    action: ActionRecord
    resources: tuple[Resource, ...] = ()
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Names of stacks and targets that changed up to `revision`.

    A target has changed if its spec, what is owned there, or what any stack declares there is different.
    """

    revision: int
    stacks: frozenset[str] = frozenset()
    targets: frozenset[str] = frozenset()


def _subject(stack: str | None, target: str | None, name: str | None) -> tuple[str, str]:
    if target is not None:
        return ("target", target) if name is None else ("adapter", f"{target}/{name}")
    return ("fleet", "") if stack is None else ("stack", stack)
