"""What Prometheus reads."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from served_api import ServedApi

from garrison.api.metrics import Metrics
from garrison.base.errors import EngineDiedError
from garrison.instances.room.values import HOST, Device, Limits
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import State

GIB = 2**30


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[ServedApi]:
    made = ServedApi(
        tmp_path, devices=[Device(HOST, 16 * GIB, 10 * GIB)], manager={"limits": Limits(most=1, residency=0.0)}
    )
    made.runner.start_seconds = 0.01
    yield await made.startup()
    await made.shutdown()


async def scrape(served: ServedApi) -> dict[str, dict[str, float]]:
    """The values by name, and by their labels as text."""
    await served.instances.bus.settled()
    answer = await served.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[" ".join(value for _, value in sorted(sample.labels.items()))] = (
                sample.value
            )
    return found


async def create(served: ServedApi, *names: str, **fields: object) -> None:
    for name in names:
        await served.instances.create(InstanceSpec(name=name, **fields))  # type: ignore[arg-type]  # by name


async def test_states_starts_requests_and_memory(served: ServedApi) -> None:
    await create(served, "a", "b", memory_bytes=2 * GIB)
    served.devices.needs["a"] = (2 * GIB, 0)
    lease = await served.instances.acquire("a")
    found = await scrape(served)
    assert found["garrison_instances"] == {
        state: {"running": 1, "stopped": 1}.get(state, 0) for state in map(str, State)
    }
    assert found["garrison_instance_requests"] == {"a": 1, "b": 0}
    assert found["garrison_instance_waiting_requests"] == {"a": 0, "b": 0}
    assert found["garrison_instance_up"] == {"a": 1, "b": 0}
    assert found["garrison_instance_starts_total"] == {"a": 1, "b": 0}
    assert found["garrison_instance_start_seconds"] == {"a": 0.01}
    assert found["garrison_start_seconds_count"] == {"vllm": 1}
    assert found["garrison_instance_memory_bytes"] == {f"{HOST} a": 2 * GIB}
    assert found["garrison_device_memory_total_bytes"] == {HOST: 16 * GIB}
    assert found["garrison_device_memory_free_bytes"] == {HOST: 10 * GIB}
    assert found["garrison_device_memory_held_bytes"] == {HOST: 2 * GIB}
    assert found["garrison_events_total"][""] >= 4
    assert found["garrison_process_resident_memory_bytes"][""] > 0
    lease.release()
    assert (await scrape(served))["garrison_instance_requests"]["a"] == 0


async def test_a_request_that_waits_is_seen(served: ServedApi) -> None:
    await create(served, "a")
    served.runner.start_seconds = 600.0
    task = asyncio.create_task(served.instances.acquire("a"))
    await served.until("a", State.STARTING)
    assert (await scrape(served))["garrison_instance_waiting_requests"] == {"a": 1}
    task.cancel()
    await asyncio.wait([task])
    assert (await scrape(served))["garrison_instance_waiting_requests"] == {"a": 0}


async def test_evictions_failures_and_restarts_are_counted(served: ServedApi) -> None:
    await create(served, "a", "b", restart_delay=0.0)
    (await served.instances.acquire("a")).release()
    (await served.instances.acquire("b")).release()
    assert (await scrape(served))["garrison_instance_evictions_total"] == {"a": 1, "b": 0}
    served.runner.alive["b"].crash()
    await served.until("b", State.RESTARTING)
    await served.until("b", State.RUNNING)
    served.runner.fails["a"] = EngineDiedError("out of memory")
    with pytest.raises(EngineDiedError):
        await served.instances.acquire("a")
    found = await scrape(served)
    assert found["garrison_instance_restarts_total"] == {"a": 0, "b": 1}
    assert found["garrison_instance_failures_total"] == {"a": 1, "b": 0}
    assert found["garrison_failures_total"] == {"engine-died": 1}


async def test_a_deleted_instance_leaves_no_label(served: ServedApi) -> None:
    await create(served, "a")
    (await served.instances.acquire("a")).release()
    await served.instances.stop("a")
    await served.instances.delete("a")
    found = await scrape(served)
    assert not any("a" in rows for name, rows in found.items() if name.startswith("garrison_instance_"))
    await create(served, "a")
    assert (await scrape(served))["garrison_instance_starts_total"] == {"a": 0}


async def test_a_driver_that_hangs_costs_only_its_own_values(
    served: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang() -> list[Device]:
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr("garrison.api.metrics._READ_SECONDS", 0.01)
    monkeypatch.setattr(served.devices, "read", hang)
    found = await scrape(served)
    assert "garrison_device_memory_total_bytes" not in found
    assert found["garrison_instances"]["running"] == 0


async def test_the_sums_of_the_gateway_are_taken_at_once_and_written_by_a_thread(served: ServedApi) -> None:
    """A thousand routes are 100,000 lines, which would hold up every request of the API for a second."""
    threads: list[int] = []

    def taken() -> Callable[[], Iterator[Metric]]:
        threads.append(threading.get_ident())
        return collected

    def collected() -> Iterator[Metric]:
        threads.append(threading.get_ident())
        yield GaugeMetricFamily("garrison_gateway_sum", "A sum.", value=3.0)

    metrics = Metrics(served.instances, served.devices, served.feed, node="main", gateway=taken)
    found = (await metrics.text()).decode()
    assert "garrison_gateway_sum 3.0" in found
    assert "garrison_instances{" in found
    assert threads[0] == threading.get_ident() != threads[1]
