"""Where an instance is in its life, and which steps lead from one state to another."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

__all__ = ["Condition", "State"]


class State(StrEnum):
    """`RUNNING` means that the readiness probe was answered, never merely that a process exists. One that is being
    woken is `STARTING`."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    SLEEPING = "sleeping"
    DRAINING = "draining"
    RESTARTING = "restarting"
    FAILED = "failed"

    @property
    def holds_engine(self) -> bool:
        """Whether there may be a process that holds memory."""
        return self in (State.STARTING, State.RUNNING, State.SLEEPING, State.DRAINING)

    def may_become(self, other: "State") -> bool:
        """Whether an instance may go from this state to `other` in one step."""
        return other in _STEPS[self]


_STEPS: dict[State, frozenset[State]] = {
    State.STOPPED: frozenset({State.STARTING}),
    State.STARTING: frozenset(
        {State.RUNNING, State.STOPPED, State.FAILED, State.RESTARTING, State.DRAINING, State.SLEEPING}
    ),
    State.RUNNING: frozenset({State.DRAINING, State.SLEEPING, State.RESTARTING, State.FAILED, State.STOPPED}),
    State.SLEEPING: frozenset({State.STARTING, State.DRAINING, State.RESTARTING, State.FAILED, State.STOPPED}),
    State.DRAINING: frozenset({State.STOPPED, State.SLEEPING, State.RUNNING, State.FAILED, State.RESTARTING}),
    State.RESTARTING: frozenset({State.STARTING, State.STOPPED, State.FAILED}),
    State.FAILED: frozenset({State.STARTING, State.STOPPED}),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """A state, since when (UTC), and why, in words for people."""

    state: State
    since: datetime
    reason: str = ""
