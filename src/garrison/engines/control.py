"""How an engine is put to sleep, woken and drained, as values. Nothing here sends a request.

Requests go to the engine's own port. New requests must be kept away before a drain or a sleep: that is the work of
whatever routes them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import urlencode

from garrison.engines.memory import Release
from garrison.engines.metrics import Reading

__all__ = ["NO_DRAIN", "Call", "Drain", "SleepControl", "SleepLevel", "is_asleep", "is_idle"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request. A status other than 200 means that it had no effect that can be relied on.

    Attributes:
        query: in order.
        body: JSON to send; None for an empty body.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: str | None = None

    @property
    def target(self) -> str:
        """Path and query, as they stand in the request line."""
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path


@dataclass(frozen=True, slots=True)
class SleepLevel:
    """One depth of sleep.

    Attributes:
        level: the engine's own number.
        weights: where they are meanwhile: `host`, in memory of the machine, or `dropped`, to be read again.
        sleep, wake: the calls, in order; each is answered when it has taken effect.
        release: what counts as freed GPU memory afterwards.
    """

    level: int
    weights: str
    sleep: tuple[Call, ...]
    wake: tuple[Call, ...]
    release: Release


@dataclass(frozen=True, slots=True)
class SleepControl:
    """How an engine sleeps.

    Attributes:
        levels: the lightest first.
        state: asks whether it is asleep; `is_asleep` reads the response.
        arguments, environment: what the engine must be started with.
        finishes_requests: the sleep waits for requests in progress, however long they take. False: it aborts them, or
            nothing is known of it; drain first.
        loopback_only: what it must be started with also opens routes that run code for anybody who reaches the port.
    """

    levels: tuple[SleepLevel, ...]
    state: Call
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    finishes_requests: bool = False
    loopback_only: bool = False

    def level(self, number: int) -> SleepLevel | None:
        return next((level for level in self.levels if level.level == number), None)


@dataclass(frozen=True, slots=True)
class Drain:
    """How an engine finishes the requests that it has.

    Attributes:
        by_metrics: its metrics show when it is idle; see `is_idle`. False: only whoever routes its requests knows.
        grace_option: the option with which it also finishes requests after SIGTERM, for that many seconds. None:
            SIGTERM aborts them.
    """

    by_metrics: bool
    grace_option: str | None = None


NO_DRAIN = Drain(by_metrics=False)


def is_asleep(status: int, body: bytes) -> bool | None:
    """Read the response to `SleepControl.state`; None when it does not tell. Pure."""
    if status != 200:
        return None
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    found = content.get("is_sleeping") if isinstance(content, dict) else None
    return found if isinstance(found, bool) else None


def is_idle(reading: Reading) -> bool | None:
    """Whether no request runs or waits; None when the metrics do not tell. Pure."""
    if reading.running is None or reading.waiting is None:
        return None
    return reading.running == 0 and reading.waiting == 0
