"""What a running agent says about itself: its health as JSON, and metrics in Prometheus' text format. Values only."""

import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from garrison import __version__
from garrison.fleet.agent.state import AgentState

__all__ = ["AgentMetrics", "health"]

_SILENT_SECONDS = 60.0
"""A loop that works ends a step every second."""


def health(state: AgentState, now: float, since: datetime) -> tuple[bool, dict[str, Any]]:
    """Return whether the agent works, and what it says about itself.

    Args:
        now: monotonic seconds, by the agent's clock.
        since: when it began.
    """
    silent = None if state.stepped_at is None else now - state.stepped_at
    reason = None
    if silent is None:
        reason = "it has not begun to look yet"
    elif silent > _SILENT_SECONDS:
        reason = f"nothing was done for {silent:.0f} s: the store may not answer"
    body = {
        "ok": reason is None,
        "reason": reason,
        "since": since.isoformat(),
        "looked_at": state.looked_at.isoformat() if state.looked_at else None,
        **state.facts(),
    }
    return reason is None, body


class AgentMetrics(Collector):
    """The metrics of one agent, read from its counters at each scrape."""

    def __init__(self, state: AgentState, since: datetime) -> None:
        self._state = state
        self._since = since
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(namespace="garrison", registry=self._registry)
        self._registry.register(self)

    def text(self) -> bytes:
        """Return the metrics as they are now."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        state = self._state
        version = {"version": __version__, "python": sys.version.split()[0]}
        yield InfoMetricFamily("garrison_build", "What runs.", version)
        gauges = {
            "since_seconds": ("When this agent began, in Unix time.", self._since.timestamp()),
            "stacks": ("Stacks that it keeps.", state.stacks),
            "targets": ("Targets that it looks at.", state.targets),
            "targets_unknown": (
                "Targets that cannot be observed, or cannot load an adapter that is missing there.",
                state.out_of_reach,
            ),
        }
        if state.looked_at is not None:
            gauges["last_look_seconds"] = (
                "When it last looked at a target, in Unix time.",
                state.looked_at.timestamp(),
            )
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"garrison_agent_{name}", text, value)
        counters = {
            "looks": ("Looks at targets.", state.looks),
            "actions_done": ("Actions that were carried out.", state.repaired),
            "actions_failed": ("Actions that failed.", state.failed),
            "store_failures": ("Times that the store failed.", state.store_failures),
            "unexpected_errors": ("Errors that are bugs.", state.bugs),
        }
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(f"garrison_agent_{name}", text, value)
