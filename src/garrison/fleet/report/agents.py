"""The agents that keep the fleet, as `garrison status` shows them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from garrison.store.records import AgentRecord

__all__ = ["MOST_AHEAD", "AgentStatus", "agent_statuses"]

_SILENT_FOR = timedelta(seconds=60)
"""Four missed signs of life. A store that fails for a moment makes no agent stale."""

MOST_AHEAD = timedelta(minutes=10)
"""How far the clocks of two machines may differ. A sign of life from later than that was given by a clock that was
wrong, and says nothing: an agent that lives gives another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStatus:
    """One agent.

    Attributes:
        holder: `user@host`.
        state: `working`; `stale`, if it has not said for long that it lives; or `dead`, if its process is gone.
        alive_at: when it last said so.
        looked_at: when it last looked at a target; None for not yet.
        stacks: those it keeps; None for all.
    """

    holder: str
    pid: int
    state: str
    since: datetime
    alive_at: datetime
    looked_at: datetime | None = None
    stacks: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "holder": self.holder,
            "pid": self.pid,
            "state": self.state,
            "since": self.since.isoformat(),
            "alive_at": self.alive_at.isoformat(),
            "looked_at": self.looked_at.isoformat() if self.looked_at else None,
            "stacks": None if self.stacks is None else list(self.stacks),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "AgentStatus":
        return cls(
            holder=body["holder"],
            pid=body["pid"],
            state=body["state"],
            since=datetime.fromisoformat(body["since"]),
            alive_at=datetime.fromisoformat(body["alive_at"]),
            looked_at=datetime.fromisoformat(body["looked_at"]) if body["looked_at"] else None,
            stacks=None if body["stacks"] is None else tuple(body["stacks"]),
        )


def agent_statuses(
    records: Iterable[AgentRecord], now: datetime, dead: Collection[str], *, stack: str | None = None
) -> tuple[AgentStatus, ...]:
    """Return the agents that keep `stack`, or all of them. Pure.

    Args:
        dead: tokens of those whose processes are known to be gone.
    """
    return tuple(
        AgentStatus(
            holder=f"{one.holder.user}@{one.holder.host.partition('/')[0]}",
            pid=one.holder.pid,
            state=_state(one, now, dead),
            since=one.since,
            alive_at=one.alive_at,
            looked_at=one.looked_at,
            stacks=one.stacks,
        )
        for one in records
        if stack is None or one.stacks is None or stack in one.stacks
    )


def _state(one: AgentRecord, now: datetime, dead: Collection[str]) -> str:
    if one.token in dead:
        return "dead"
    return "working" if -MOST_AHEAD <= now - one.alive_at <= _SILENT_FOR else "stale"
