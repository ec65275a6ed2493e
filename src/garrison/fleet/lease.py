"""One writer a stack. A lease in the store says who it is; it is renewed while the work lasts and ends with its holder.

Who finds it held is told by whom and since when. A holder on this machine whose process is gone is not waited for.
"""

import asyncio
import contextlib
import getpass
import os
import platform
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

from garrison.base.errors import ConflictError, GarrisonError
from garrison.base.locks import start_time
from garrison.fleet.context import Fleet
from garrison.store.records import Holder, Lease

__all__ = ["LEASE_SECONDS", "hold", "is_dead", "this_process"]

LEASE_SECONDS = 30.0
_RENEWALS_PER_LEASE = 3


@contextlib.asynccontextmanager
async def hold(fleet: Fleet, stack: str, purpose: str) -> AsyncIterator[Lease]:
    """The right to write `stack`, for the body. A body that outlives a lost lease is cancelled.

    Raises:
        ConflictError: somebody else has it, or it was lost on the way (the database could not be reached for longer
            than the lease lasts, or somebody took it).
    """
    lease = await _acquire(fleet, stack, purpose)
    body = asyncio.current_task()
    assert body is not None
    lost = False

    async def renew() -> None:
        nonlocal lost
        expires_at = lease.expires_at
        while True:
            await asyncio.sleep(LEASE_SECONDS / _RENEWALS_PER_LEASE)
            now = fleet.clock.now()
            until = now + timedelta(seconds=LEASE_SECONDS)
            try:
                ours = await fleet.db(fleet.store.renew, lease.token, until, now)
            except GarrisonError:  # the database is away: the lease is ours until it expires
                if now < expires_at:
                    continue
                ours = False
            if not ours:
                lost = True
                body.cancel()
                return
            expires_at = until

    renewal = asyncio.create_task(renew())
    try:
        yield lease
    except asyncio.CancelledError:
        if not lost:
            raise
        body.uncancel()
        raise ConflictError(
            f"the stack {stack} was taken by another command while this one ran",
            hint="`garrison history` shows by whom; run this again when it has ended.",
        ) from None
    finally:
        renewal.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await renewal
        with contextlib.suppress(GarrisonError):  # then it expires
            await fleet.db(fleet.store.release, lease.token)


def this_process(purpose: str) -> Holder:
    pid = os.getpid()
    return Holder(host=_host(), pid=pid, started=start_time(pid), user=_user(), purpose=purpose)


async def _acquire(fleet: Fleet, stack: str, purpose: str) -> Lease:
    now = fleet.clock.now()
    wanted = Lease(
        stack=stack,
        token=secrets.token_hex(16),
        holder=this_process(purpose),
        acquired_at=now,
        expires_at=now + timedelta(seconds=LEASE_SECONDS),
    )
    held = await fleet.db(fleet.store.acquire, wanted, now)
    if held is not None and is_dead(held.holder):
        held = await fleet.db(fleet.store.acquire, wanted, now, instead_of=held.token)
    if held is None:
        return wanted
    who = held.holder
    since = f"{held.acquired_at:%Y-%m-%d %H:%M:%S} UTC"
    raise ConflictError(
        f"{who.user}@{who.host.partition('/')[0]} (pid {who.pid}) holds the stack {stack} since {since}: {who.purpose}",
        hint="Wait for it to end, then run this again. A dead holder's lease ends by itself, "
        f"after at most {LEASE_SECONDS:g} s.",
        details={"stack": stack, "holder": f"{who.user}@{who.host} {who.pid}", "since": held.acquired_at.isoformat()},
    )


def is_dead(holder: Holder) -> bool:
    """Only a process that this one can see can be judged: of this boot of this machine, not in another container."""
    if holder.host != _host() or holder.started is None:
        return False
    return start_time(holder.pid) != holder.started


def _host() -> str:
    """`name/boot-id/pid-namespace`: after a reboot pids start again, and two containers of one name each have their
    own."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{platform.node()}/{boot}/{Path('/proc/self/ns/pid').readlink()}"
    return platform.node()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such uid in the user database, as in many containers
        return str(os.getuid())
