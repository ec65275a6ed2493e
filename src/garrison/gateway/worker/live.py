"""Requests in progress: found by looking at the connections, so that nothing is kept for it meanwhile."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from garrison.gateway.link.reports import InProgressValue, LiveValue, Phase
from garrison.gateway.worker.accounts.finished import path_of, shown
from garrison.gateway.worker.connections.inbound import Inbound
from garrison.gateway.worker.exchange.exchange import Exchange

if TYPE_CHECKING:
    from garrison.gateway.worker.plane import Plane

__all__ = ["cancel", "in_progress", "live_requests"]


def live_requests(plane: "Plane", most: int, offset: float) -> tuple[list[LiveValue], int]:
    """Return requests in progress, oldest first, and how many more there are.

    Args:
        offset: of Unix time to the loop's.
    """
    found = sorted(_busy(plane), key=lambda pair: pair[1].account.at)
    now = plane.now()
    return [_value(*pair, now, offset) for pair in found[:most]], max(0, len(found) - most)


def in_progress(plane: "Plane") -> list[InProgressValue]:
    """Count requests in progress by route, target and key. Those that have no route yet are left out."""
    counts: dict[tuple[str, str, int | None], list[int]] = {}
    for _, one in _busy(plane):
        account = one.account
        if account.route:
            target = "" if one.target is None else one.target.id
            found = counts.setdefault((account.route, target, account.key), [0, 0])
            found[0] += 1
            found[1] += account.phase is Phase.WAITING
    return [
        InProgressValue(route=route, target=target, key_id=key, count=count, waiting=waiting)
        for (route, target, key), (count, waiting) in counts.items()
    ]


def cancel(plane: "Plane", id: str) -> bool:
    """End a request that is in progress; False if there is none of that id."""
    wanted = id.encode()
    found = next((one for _, one in _busy(plane) if one.account.id == wanted), None)
    if found is None:
        return False
    found.stop()
    return True


def _busy(plane: "Plane") -> Iterator[tuple[Inbound, Exchange]]:
    """Yield connections with a request to a model, and what answers it."""
    return ((one, one.work) for one in plane.inbound if isinstance(one.work, Exchange))


def _value(client: Inbound, one: Exchange, now: float, offset: float) -> LiveValue:
    account = one.account
    return LiveValue(
        id=account.id.decode(),
        at=account.at + offset,
        phase=account.phase,
        seconds=max(0.0, now - account.at),
        model=shown(account.model),
        path=path_of(account.asked_for),
        route=account.route,
        target="" if one.target is None else one.target.id,
        key_id=account.key,
        request_id=shown(account.request_id.decode("latin-1")),
        peer=account.peer,
        stream=account.stream,
        bytes_in=0 if client.request is None else client.request.size,
        bytes_out=account.bytes_out,
    )
