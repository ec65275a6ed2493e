"""Counters of a running agent, for views and tests."""

from dataclasses import dataclass
from datetime import datetime

__all__ = ["AgentState"]


@dataclass(slots=True)
class AgentState:
    """What the agent has done so far.

    Attributes:
        out_of_reach: number of targets that cannot be observed, or cannot load an adapter that is missing there.
        looked_at: when a target was last looked at.
        stepped_at: monotonic seconds, by the clock, of the end of the last step that worked.
        last_believed: monotonic seconds, by the clock, of the last look that was believed.
        bugs: number of unexpected errors; each is counted in `failed` too.
    """

    stacks: int = 0
    targets: int = 0
    out_of_reach: int = 0
    looks: int = 0
    looked_at: datetime | None = None
    stepped_at: float | None = None
    last_believed: float = 0.0
    repaired: int = 0
    failed: int = 0
    store_failures: int = 0
    bugs: int = 0
    stopping: bool = False

    def facts(self) -> dict[str, int]:
        """Return the counters for a log, under names that need no knowledge of Garrison."""
        return {
            "stacks": self.stacks,
            "targets": self.targets,
            "targets_unknown": self.out_of_reach,
            "looks": self.looks,
            "actions_done": self.repaired,
            "actions_failed": self.failed,
            "store_failures": self.store_failures,
            "unexpected_errors": self.bugs,
        }
