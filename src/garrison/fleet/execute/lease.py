"""Leases: at most one writer per stack.

A lease in the store names the writer. It is renewed while the work lasts, and released at its end. A caller that finds
the stack held gets an error that names the holder. A lease is taken over at once if its holder ran on this machine and
its process is gone.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta

from garrison.base.errors import ConflictError, GarrisonError
from garrison.base.home import user_name
from garrison.base.identity import Identity, Place, is_gone
from garrison.base.identity import this_process as _this_process
from garrison.fleet.context import Fleet
from garrison.store.records import Holder, Lease

__all__ = ["LEASE_SECONDS", "hold", "is_dead", "this_process"]

LEASE_SECONDS = 30.0
_RENEWALS_PER_LEASE = 3
_LEAST_SECONDS = 1.0
"""Deadline for a renewal, however late it is."""
_RELEASE_SECONDS = 5.0
"""Deadline for the release: a store that hangs does not hold a command that has done its work."""


@contextlib.asynccontextmanager
async def hold(fleet: Fleet, stack: str, purpose: str) -> AsyncIterator[Lease]:
    """Hold the right to write `stack` during the body, which is cancelled if the lease is lost.

    Raises:
        ConflictError: another process holds the stack, or the lease was lost: the database was unreachable for longer
            than the lease lasts, or another process took the stack.
    """
    lease = await _acquire(fleet, stack, purpose)
    body = asyncio.current_task()
    assert body is not None
    lost = False

    async def renew() -> None:
        nonlocal lost
        loop, expires_at = asyncio.get_running_loop(), lease.expires_at
        valid_until = loop.time() + LEASE_SECONDS
        while True:
            await asyncio.sleep(LEASE_SECONDS / _RENEWALS_PER_LEASE)
            now, begun = fleet.clock.now(), loop.time()
            until = now + timedelta(seconds=LEASE_SECONDS)
            try:
                async with asyncio.timeout(max(_LEAST_SECONDS, valid_until - begun)):
                    ours = await fleet.db(fleet.store.renew, lease.token, until, now)
            except TimeoutError:  # the database hangs, and somebody else may hold the stack by now
                ours = False
            except GarrisonError:  # the database is unreachable: the lease is valid until it expires
                if now < expires_at:
                    continue
                ours = False
            if not ours:
                lost = True
                body.cancel()
                return
            expires_at, valid_until = until, begun + LEASE_SECONDS

    renewal = asyncio.create_task(renew())
    try:
        yield lease
    except asyncio.CancelledError:
        if not lost:
            raise
        body.uncancel()  # the cancellation came from `renew`: the caller gets an error instead
        raise ConflictError(
            f"stack {stack} was taken over by another command while this one ran",
            hint="Run `garrison history` to see by which one, and run this command again when it has ended.",
        ) from None
    finally:
        # Stop renewing before releasing, or a late renewal would find the lease gone and cancel the caller.
        renewal.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await renewal
        with contextlib.suppress(GarrisonError, TimeoutError):  # if it cannot be released, the lease expires
            async with asyncio.timeout(_RELEASE_SECONDS):
                await fleet.db(fleet.store.release, lease.token)


def this_process(purpose: str) -> Holder:
    """Return this process as the holder of a lease."""
    own = _this_process()
    return Holder(host=str(own.place), pid=own.pid, started=own.start, user=_user(), purpose=purpose)


async def _acquire(fleet: Fleet, stack: str, purpose: str) -> Lease:
    now = fleet.clock.now()
    wanted = Lease(
        stack=stack,
        token=secrets.token_hex(16),
        holder=this_process(purpose),
        acquired_at=now,
        expires_at=now + timedelta(seconds=LEASE_SECONDS),
    )
    try:
        held = await fleet.db(fleet.store.acquire, wanted, now)
        if held is not None and is_dead(held.holder):
            # Only in place of that token: of two processes that find the dead holder, one wins.
            held = await fleet.db(fleet.store.acquire, wanted, now, instead_of=held.token)
    except asyncio.CancelledError:
        # The thread of the database is not cancelled and may still acquire it. The release runs after that.
        with contextlib.suppress(GarrisonError):
            await fleet.db(fleet.store.release, wanted.token)
        raise
    if held is None:
        return wanted
    who = held.holder
    since = f"{held.acquired_at:%Y-%m-%d %H:%M:%S} UTC"
    raise ConflictError(
        f"stack {stack} has been held by {who.user}@{who.host.partition('/')[0]} (pid {who.pid}) since {since}: "
        f"{who.purpose}",
        hint="Wait for that command to end, then run this one again. The lease of a dead process expires "
        f"within {LEASE_SECONDS:g} s.",
        details={"stack": stack, "holder": f"{who.user}@{who.host} {who.pid}", "since": held.acquired_at.isoformat()},
    )


def is_dead(holder: Holder) -> bool:
    """Return whether the holder is known to have ended, as far as this process can tell; see `identity.is_gone`."""
    return is_gone(Identity(Place.parse(holder.host), holder.pid, holder.started)) is True


def _user() -> str:
    return user_name()
