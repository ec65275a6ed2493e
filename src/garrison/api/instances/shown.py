"""An instance as JSON: llamactl's fields, and what Garrison knows beyond them."""

import asyncio
from typing import TYPE_CHECKING, Any

from garrison.api.instances.options import options_of
from garrison.api.instances.own_options import FOLLOWS
from garrison.instances.live import Live
from garrison.instances.values.state import State

if TYPE_CHECKING:
    from garrison.api.services import Services

__all__ = ["etag", "shown"]

_STATUS = {
    State.STOPPED: "stopped",
    State.STARTING: "restarting",  # llamactl has no state between stopped and running
    State.RUNNING: "running",
    State.SLEEPING: "stopped",
    State.DRAINING: "shutting_down",
    State.RESTARTING: "restarting",
    State.FAILED: "failed",
}


def shown(live: Live, given: "Services") -> dict[str, Any]:
    """Return an instance. `status` is llamactl's word for `state`."""
    record = live.record
    condition = record.condition
    found: dict[str, Any] = {
        "id": record.id,
        "name": live.name,
        "status": _STATUS[condition.state],
        "created": int(record.created.timestamp()),
        "options": options_of(live.spec, given.settings),
        FOLLOWS: ["idle_timeout"] if live.spec.idle_seconds is None else [],
        "state": str(condition.state),
        "since": condition.since.isoformat(),
        "reason": condition.reason,
        "port": record.port,
        "pid": live.engine.pid if live.engine is not None else None,
        "memory": dict(live.held) if live.held else {},
        "devices": list(live.devices),
        "wanted": record.wanted,
        "requests": live.leases,
        "waiting": len(live.waiters),
        "revision": record.revision,
        "stack": live.spec.stack,
        "node": given.settings.node_name,
        "costs": _costs(live),
    }
    if live.start is not None:
        found["loading"] = given.instances.loading(live)
    if live.engine is not None and live.leases == 0:
        found["idle_seconds"] = round(max(0.0, asyncio.get_running_loop().time() - live.used_at), 1)
    if (models := given.routers.models(live.name)) is not None:
        found["models"] = [one.to_json() for one in models]
    if live.failure is not None:
        found["failure"] = live.failure.to_json()
    return found


def etag(live: Live) -> str:
    """The entity tag of what an instance is; its state does not change it."""
    return f'"{live.record.id}-{live.record.revision}"'


def _costs(live: Live) -> dict[str, Any]:
    costs = live.record.costs
    return {
        "start_seconds": costs.start_seconds,
        "phases": dict(costs.phases),
        "memory": dict(costs.memory_bytes),
        "sleep_seconds": costs.sleep_seconds,
        "wake_seconds": costs.wake_seconds,
    }
