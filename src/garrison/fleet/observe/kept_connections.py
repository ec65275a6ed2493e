"""Keeps one connection per target between the looks of a long-running observer.

A look then needs no handshake. Two limits make it as reliable as a look over a new connection:

- Idle time. A firewall that drops an idle connection silently would make a healthy target time out; none does so within
  seconds. At longer intervals the cost of a handshake does not matter anyway. vLLM itself closes after 5 s.
- Age. A name that now points to another server, or a certificate that has expired, is noticed within a minute.

A connection that the server has closed is replaced: an observer sends only GET requests, which may be repeated.
"""

import contextlib
from collections.abc import Iterator

from garrison.fleet.context import Fleet
from garrison.fleet.instance_dialer import InstanceDialer
from garrison.fleet.observe.observer import Observer, spare_descriptors
from garrison.net.client import HttpDialer
from garrison.net.pool import Pool

__all__ = ["lasting_observer"]

_IDLE_SECONDS = 10.0
_AGE_SECONDS = 60.0
_MOST_KEPT = 16_384


@contextlib.contextmanager
def lasting_observer(fleet: Fleet) -> Iterator[Observer]:
    """Yield an observer that keeps connections, for one event loop; close them at the end.

    Idle connections take at most half of the file descriptors that the process can spare; further targets get a new
    connection for each look. A dialer other than `HttpDialer` is used as it is.
    """
    dialer = fleet.dialer
    plain = dialer.inner if isinstance(dialer, InstanceDialer) else dialer
    if not isinstance(plain, HttpDialer):
        yield Observer(dialer, fleet.clock)
        return
    total = min(_MOST_KEPT, spare_descriptors() // 2)
    # By sender: state that a proxy ties to a connection must not outlive a change of settings or secrets.
    pool = Pool(per_key=1, total=total, idle_seconds=_IDLE_SECONDS, age_seconds=_AGE_SECONDS, by_sender=True)
    try:
        keeping = plain.keeping(pool)
        kept = dialer.over(keeping) if isinstance(dialer, InstanceDialer) else keeping
        yield Observer(kept, fleet.clock, kept=total)
    finally:
        pool.close()
