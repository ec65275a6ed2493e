"""One connection per target, kept between the looks of an observer that runs for long.

A look then costs no handshake, at either end. Two bounds keep it as truthful as a look over a new connection:

- It is idle for a short time only. No firewall forgets a connection so soon, which would make a target that is well
  look as if it timed out. At longer intervals a handshake does not matter, and an idle connection would only cost
  descriptors at both ends. vLLM itself closes after 5 s.
- It is not used for long. A name that now points to another server, and a certificate that has expired, are noticed
  within a minute.

A connection that the server closed in the meantime is replaced: all that an observer sends is GET, which may be sent
again.
"""

import contextlib
from collections.abc import Iterator

from garrison.fleet.context import Fleet
from garrison.fleet.observe.observer import Observer, spare_descriptors
from garrison.net.client import HttpDialer
from garrison.net.pool import Pool

__all__ = ["lasting_observer"]

_IDLE_SECONDS = 10.0
_AGE_SECONDS = 60.0
_MOST_KEPT = 16_384


@contextlib.contextmanager
def lasting_observer(fleet: Fleet) -> Iterator[Observer]:
    """Give an observer that keeps connections, and close them at the end. Use it in one event loop.

    At most half of the descriptors that the process can spare are kept; targets beyond that get a new connection each
    time. Where the fleet's targets are not real servers there is nothing to keep.
    """
    if not isinstance(fleet.dialer, HttpDialer):
        yield Observer(fleet.dialer, fleet.clock)
        return
    total = min(_MOST_KEPT, spare_descriptors() // 2)
    # By sender: what a proxy has tied to a connection must not outlive a change of the target's settings or secrets.
    pool = Pool(per_key=1, total=total, idle_seconds=_IDLE_SECONDS, age_seconds=_AGE_SECONDS, by_sender=True)
    try:
        yield Observer(fleet.dialer.keeping(pool), fleet.clock, kept=total)
    finally:
        pool.close()
