"""Ends what takes too long: requests past their deadline, and clients that are slow to say what they want.

Each is a comparison, so that thousands of connections cost little.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol

from garrison.gateway.worker.connections.inbound import Inbound

__all__ = ["Timed", "sweep"]

_HEAD_SECONDS = 20.0
"""For a head, from its first byte to its last."""
_BODY_SECONDS = 60.0
"""Between two pieces of a body."""
_IDLE_SECONDS = 75.0
"""For an idle connection of a client."""
_SWEEP_SECONDS = 0.5


class Timed(Protocol):
    """What has a deadline, in the loop's seconds; 0 for none."""

    deadline: float

    def expired(self) -> None: ...


async def sweep(now: Callable[[], float], timed: Collection[Timed], clients: Collection[Inbound]) -> None:
    """Look again and again."""
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        at = now()
        for one in [one for one in timed if one.deadline and one.deadline < at]:
            one.expired()
        least = min(_BODY_SECONDS, _IDLE_SECONDS)
        for client in [one for one in clients if one.ends or one.head_at or at - one.at > least]:
            _end_if_late(client, at)


def _end_if_late(client: Inbound, now: float) -> None:
    silent = now - client.at
    if client.ends:
        if now > client.ends:
            client.end(now)
    elif client.quiet():
        if silent > _IDLE_SECONDS or (client.head_at and now - client.head_at > _HEAD_SECONDS):
            client.close()
    elif client.in_body and silent > _BODY_SECONDS and not client.paused:
        client.close()
