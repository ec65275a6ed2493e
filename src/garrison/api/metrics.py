"""`/metrics` for Prometheus: the instances, the memory of this machine, the event feed and this process.

Values are read from the manager at each scrape. What is counted comes from its events. Labels are names of instances
and routes that exist, ids of keys, states, engines, codes of errors and devices, so that their number is bounded.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from garrison import __version__
from garrison.api.deadline import within
from garrison.api.feed import Feed
from garrison.api.problems import problems
from garrison.api.services import Services, services
from garrison.base.errors import NotReadyError
from garrison.instances.manager import InstanceManager
from garrison.instances.placing import Devices
from garrison.instances.room.values import Device
from garrison.instances.values.state import State
from garrison.net.thread_pool import ThreadPool
from garrison.store.records import Event

__all__ = ["Metrics", "router"]

_READ_SECONDS = 2.0
_BUCKETS = (0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
_MAKES_ROOM = "makes room for "
_COUNTED = {
    "starts": "Starts that led to a ready engine.",
    "failures": "Times that it ended in the state failed.",
    "restarts": "Restarts after its engine ended by itself.",
    "evictions": "Stops that made room for another instance.",
}

router = APIRouter(tags=["metrics"], responses=problems())

Given = Annotated[Services, Depends(services)]


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text."}},
)
async def metrics(given: Given) -> Response:
    """Metrics in Prometheus' text format."""
    return Response(await given.metrics.text(), media_type=CONTENT_TYPE_LATEST)


class _Scrape(Collector):
    """All metrics of one scrape, for another thread than that of the manager."""

    def __init__(
        self, own: Iterable[Metric], gateway: Callable[[], Iterable[Metric]], registry: CollectorRegistry
    ) -> None:
        self._own, self._gateway, self._registry = own, gateway, registry

    def collect(self) -> Iterator[Metric]:
        yield from self._registry.collect()
        yield from self._own
        yield from self._gateway()


class Metrics:
    """A registry of its own. Belongs to the event loop of the manager.

    Args:
        devices: the memory of this machine. Where it cannot be read in time, a scrape goes without.
        node: the name of this machine.
        gateway: returns what yields the sums of the gateway as they are now. There can be 100,000 lines of them, so
            that they are put together in a thread.
        pool: that thread's.
    """

    def __init__(
        self,
        instances: InstanceManager,
        devices: Devices,
        feed: Feed,
        *,
        node: str,
        gateway: Callable[[], Callable[[], Iterable[Metric]]] = lambda: tuple,
        pool: ThreadPool | None = None,
    ) -> None:
        self._instances = instances
        self._devices = devices
        self._feed = feed
        self._node = node
        self._gateway = gateway
        self._pool = pool or ThreadPool("garrison-metrics", 1)
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}
        self._causes: Counter[str] = Counter()
        self._lost = 0
        self._memory: Sequence[Device] = ()
        self._began = time.time()
        self._registry = CollectorRegistry(auto_describe=False)
        self._start_seconds = Histogram(
            "garrison_start_seconds", "Seconds from the start of an engine until it was ready.", ["engine"],
            buckets=_BUCKETS, registry=self._registry,
        )  # fmt: skip
        ProcessCollector(namespace="garrison", registry=self._registry)
        instances.bus.listen(self._count, missed=self._missed)

    async def text(self) -> bytes:
        """Return the metrics as they are now."""
        try:
            self._memory = await within(_READ_SECONDS, self._devices.read(), "the memory of this machine")
        except NotReadyError:
            self._memory = ()
        scrape = _Scrape(tuple(self._collected()), self._gateway(), self._registry)
        return await self._pool.run(lambda: generate_latest(scrape), "write the metrics")

    def _collected(self) -> Iterator[Metric]:
        """Yield what is read at the time of a scrape."""
        version = {"version": __version__, "python": sys.version.split()[0], "node": self._node}
        yield InfoMetricFamily("garrison_build", "What runs.", version)
        yield _gauge("garrison_up_since_seconds", "When this server began, in Unix time.", (), [((), self._began)])
        yield from self._states()
        yield from self._of_instances()
        yield from self._counted()
        yield from self._of_devices()
        yield _counter("garrison_events", "Events of the feed.", (), [((), self._feed.last)])
        yield _counter("garrison_events_missed", "Events that were not counted here.", (), [((), self._lost)])

    def _states(self) -> Iterator[Metric]:
        counted = Counter(one.state for one in self._instances.list())
        rows = [((str(state),), counted[state]) for state in State]
        yield _gauge("garrison_instances", "Instances in each state.", ("state",), rows)

    def _of_instances(self) -> Iterator[Metric]:
        every = self._instances.list()
        label = ("instance",)
        running = [((one.name,), one.leases) for one in every]
        yield _gauge("garrison_instance_requests", "Requests that use it.", label, running)
        waiting = [((one.name,), len(one.waiters)) for one in every]
        yield _gauge("garrison_instance_waiting_requests", "Requests that wait for it.", label, waiting)
        up = [((one.name,), one.state is State.RUNNING) for one in every]
        yield _gauge("garrison_instance_up", "1 while it is ready.", label, up)
        costs = [((one.name,), one.record.costs.start_seconds) for one in every]
        known = [(labels, seconds) for labels, seconds in costs if seconds is not None]
        yield _gauge("garrison_instance_start_seconds", "What its last start took.", label, known)
        held = [((one.name, device), count) for one in every for device, count in (one.held or {}).items()]
        yield _gauge("garrison_instance_memory_bytes", "Memory it holds.", ("instance", "device"), held)

    def _counted(self) -> Iterator[Metric]:
        names = [one.name for one in self._instances.list()]
        for kind, text in _COUNTED.items():
            rows = [((name,), self._counts[kind][name]) for name in names]
            yield _counter(f"garrison_instance_{kind}", text, ("instance",), rows)
        causes = [((cause,), count) for cause, count in sorted(self._causes.items())]
        yield _counter("garrison_failures", "Failed instances, by the code of the error.", ("cause",), causes)

    def _of_devices(self) -> Iterator[Metric]:
        held: Counter[str] = Counter()
        for one in self._instances.list():
            held.update(one.held or {})
        label = ("device",)
        total = [((one.key,), one.total) for one in self._memory]
        yield _gauge("garrison_device_memory_total_bytes", "Memory of a GPU, or of the host.", label, total)
        free = [((one.key,), one.free) for one in self._memory]
        yield _gauge("garrison_device_memory_free_bytes", "What the driver or the kernel says is free.", label, free)
        ours = [((key,), held[key]) for key in sorted({*held, *(one.key for one in self._memory)})]
        yield _gauge("garrison_device_memory_held_bytes", "What the instances hold of it.", label, ours)

    def _count(self, event: Event) -> None:
        name, kind = event.subject_name, event.kind.removeprefix("instance_")
        reason = str((event.after or {}).get("reason", ""))
        before = (event.before or {}).get("state")
        if kind == "deleted":
            for counts in self._counts.values():
                counts.pop(name, None)
        elif kind == State.RUNNING and before == State.STARTING and reason == "ready":
            self._counts["starts"][name] += 1
            self._observe_start(name)
        elif kind == State.FAILED:
            self._counts["failures"][name] += 1
            self._causes[event.cause or "unknown"] += 1
        elif kind == State.RESTARTING:
            self._counts["restarts"][name] += 1
        elif kind == State.DRAINING and reason.startswith(_MAKES_ROOM):
            self._counts["evictions"][name] += 1

    def _observe_start(self, name: str) -> None:
        live = self._instances.find(name)
        if live is not None and (seconds := live.record.costs.start_seconds) is not None:
            self._start_seconds.labels(live.spec.engine).observe(seconds)

    def _missed(self, count: int) -> None:
        self._lost += count


Rows = Iterable[tuple[tuple[str, ...], float]]


def _gauge(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _counter(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family
