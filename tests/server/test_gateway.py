"""Workers of the gateway as processes: killed, replaced, adopted, and never in the way of what is in progress."""

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from server_lab import ServerLab, chat_body, lines_of, wait_for

from garrison.gateway.link import messages
from garrison.gateway.link.peer import worker_peer

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


@contextmanager
def asked_all_the_time(lab: ServerLab, model: str, clients: int = 4) -> Iterator[list[str]]:
    """Requests, one after the other, of several clients; what failed is in the list."""
    failed: list[str] = []
    done = threading.Event()
    count = [0]

    def ask() -> None:
        url = f"{lab.http.base_url}/v1/chat/completions"
        with httpx2.Client(trust_env=False, timeout=30) as client:
            while not done.is_set():
                try:
                    answer = client.post(url, json=chat_body(model, 2))
                except httpx2.HTTPError as error:
                    failed.append(repr(error))
                    continue
                count[0] += 1
                if not answer.is_success:
                    failed.append(f"{answer.status_code} {answer.text[:200]}")

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for one in threads:
        one.start()
    try:
        yield failed
    finally:
        done.set()
        for one in threads:
            one.join(60)
    assert count[0] > clients, "requests were answered at all"


def test_requests_go_on_while_the_server_is_killed_and_replaced(lab: ServerLab, tiny_model: Path) -> None:
    lab.create("a", tiny_model)
    assert lab.chat("a").is_success
    (worker,) = lab.workers()
    with asked_all_the_time(lab, "a") as failed:
        time.sleep(0.3)
        lab.kill()
        time.sleep(0.5)
        assert lab.http.get("/api/v1/instances").status_code == 502
        lab.start()
        time.sleep(0.5)
        assert lab.api("GET", "/instances/a")["state"] == "running"
    assert failed == []
    assert lab.workers() == [worker], "it was adopted"


def test_a_killed_worker_is_back_within_a_second(lab: ServerLab, tiny_model: Path) -> None:
    lab.create("a", tiny_model)
    assert lab.chat("a").is_success
    (worker,) = lab.workers()
    os.kill(worker, signal.SIGKILL)
    began = time.monotonic()

    def answers() -> bool:
        try:
            return lab.chat("a").is_success
        except httpx2.HTTPError:
            return False

    wait_for(answers, 10, "answered by another worker")
    assert time.monotonic() - began < 3, "a second, and what a busy machine adds"
    wait_for(lambda: lab.workers() not in ([], [worker]), 5, "on record")
    assert lab.instance("a")["state"] == "running"
    wait_for(lambda: lab.instance("a")["requests"] == 0, 5, "its requests are not counted any more")


def test_metrics_say_what_the_gateway_carried(lab: ServerLab, tiny_model: Path) -> None:
    lab.create("a", tiny_model)
    assert lab.chat("a", most=4).is_success
    assert lab.chat("b").status_code == 404

    def found() -> dict[tuple[str, str], float]:
        families = text_string_to_metric_families(lab.http.get("/metrics").text)
        samples = [one for family in families for one in family.samples if one.name.startswith("garrison_gateway_")]
        samples = [one for one in samples if "route" in one.labels]
        assert all(one.labels["route"] == "a" and one.labels["target"] == "instance:a" for one in samples)
        return {(one.name, one.labels.get("status") or one.labels.get("kind") or ""): one.value for one in samples}

    wait_for(lambda: ("garrison_gateway_requests_total", "200") in found(), 10, "reported")
    assert found()["garrison_gateway_requests_total", "200"] == 1
    assert found()["garrison_gateway_tokens_total", "out"] == 4
    assert found()["garrison_gateway_seconds_count", ""] == 1
    assert found()["garrison_gateway_overhead_seconds_count", ""] == 1


def test_two_workers_share_the_port(labs: Callable[..., ServerLab], tiny_model: Path) -> None:
    lab = labs(gateway_workers="2")
    lab.start()
    lab.create("a", tiny_model)
    assert lab.chat("a").is_success
    wait_for(lambda: len(lab.workers()) == 2, 10, "both on record")
    with asked_all_the_time(lab, "a", clients=8) as failed:
        time.sleep(0.5)
        os.kill(lab.workers()[0], signal.SIGKILL)
        time.sleep(1.5)
    # Those whose connection went to the killed one see it end; the others see nothing.
    assert all("Error" in one for one in failed), failed
    assert len(failed) <= 8
    wait_for(lambda: len(lab.workers()) == 2, 10, "replaced")


def test_a_worker_of_another_version_and_one_too_many_finish_and_end(lab: ServerLab) -> None:
    (worker,) = lab.workers()

    async def drained(version: str) -> bool:
        told: asyncio.Queue[object] = asyncio.Queue()
        _, peer = await asyncio.get_running_loop().create_unix_connection(
            lambda: worker_peer(told.put_nowait, lambda: None), str(lab.data_dir / "gateway.sock")
        )
        start = int(psutil.Process().create_time())
        peer.send(messages.Hello(protocol=messages.PROTOCOL, version=version, pid=os.getpid(), start=start))
        async with asyncio.timeout(5):
            first = await told.get()
        peer.close()
        return isinstance(first, messages.Drain)

    import garrison

    assert asyncio.run(drained("0.0.0"))
    assert asyncio.run(drained(garrison.__version__)), "there is one already"
    assert lab.http.get("/readyz").is_success
    time.sleep(1.5)
    assert lab.process is not None
    found = [
        one.pid for one in psutil.Process(lab.process.pid).children() if "garrison.gateway.worker" in one.cmdline()
    ]
    assert found == lab.workers() == [worker], "nobody was started in their place"


def test_a_stream_is_not_cut_for_another_instance(labs: Callable[..., ServerLab], tiny_model: Path) -> None:
    lab = labs(max_running_instances="1", residency="0s")
    lab.start()
    lab.create("a", tiny_model, backend_options={"tokens_per_second": 20})
    lab.create("b", tiny_model)
    with lab.http.stream("POST", "/v1/chat/completions", json=chat_body("a", 60, stream=True)) as answer:
        lines = lines_of(answer)
        next(lines)
        other = threading.Thread(target=lambda: answers.append(lab.chat("b")))
        answers: list[httpx2.Response] = []
        other.start()
        assert list(lines)[-1] == "data: [DONE]"
    other.join(60)
    assert answers[0].is_success
    assert lab.instance("a")["state"] == "stopped"


def test_nothing_is_left_of_it_after_the_end(lab: ServerLab) -> None:
    (worker,) = lab.workers()
    assert lab.end() == 0
    assert not psutil.pid_exists(worker)
    left = {path.name for path in lab.data_dir.iterdir()}
    assert not left & {"gateway.sock", "gateway.json", "control.sock", "server.sock"}


def test_the_number_of_workers_changes_while_requests_go_on(
    labs: Callable[..., ServerLab], tiny_model: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("gateway_workers: 1\n")
    lab = labs()
    lab.start("--config", str(config))
    lab.create("a", tiny_model)
    assert lab.chat("a").is_success
    (first,) = lab.workers()
    with asked_all_the_time(lab, "a", clients=4) as failed:
        config.write_text("gateway_workers: 3\n")
        wait_for(lambda: len(lab.workers()) == 3, 20, "two more")
        config.write_text("gateway_workers: 1\n")
        wait_for(lambda: lab.workers() == [first], 20, "two fewer")
    assert failed == []
    assert lab.chat("a").is_success


def test_connections_that_are_gone_leave_no_memory_behind(lab: ServerLab) -> None:
    (pid,) = lab.workers()
    worker = psutil.Process(pid)
    request = b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

    def connect(times: int) -> None:
        for _ in range(times):
            with socket.create_connection(("127.0.0.1", lab.port), timeout=10) as one:
                one.sendall(request)
                assert one.recv(65536).startswith(b"HTTP/1.1 200 ")

    connect(1000)
    before = worker.memory_info().rss
    connect(4000)
    assert worker.memory_info().rss - before < 8 * 2**20
