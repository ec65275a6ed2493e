"""What is said of sleep, drain and metrics, held against the installed engines."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from garrison.engines import registry
from garrison.engines.control import is_asleep, is_idle
from garrison.engines.engine import Engine, ServeOptions
from garrison.engines.environments import Environment
from garrison.engines.metrics import MetricsPage, Reading, read_metrics, throughput

KEY = "engine-suite-key"
START_SECONDS = 240.0


class Running:
    """An engine that the test started from its own `command`."""

    def __init__(self, engine: Engine, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.engine, self.process, self.url, self.log = engine, process, url, log

    def call(self, method: str, path: str, *, key: bool = True, **options: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {KEY}"} if key else {}
        return httpx2.request(method, self.url + path, headers=headers, timeout=60, trust_env=False, **options)

    @property
    def page(self) -> MetricsPage:
        page = self.engine.metrics_page()
        assert page is not None
        return page

    def read(self) -> Reading:
        answer = self.call("GET", self.page.path, key=self.page.needs_key)
        assert answer.status_code == 200, answer.text
        return read_metrics(answer.text, self.page)

    def generate(self, tokens: int, **options: Any) -> httpx2.Response:
        body = {"model": "tiny", "prompt": "able acid acre", "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        return self.call("POST", "/v1/completions", json=body | options)

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@contextlib.contextmanager
def running(found: Environment, name: str, model: str, home: Path, *args: str, **environ: str) -> Iterator[Running]:
    engine = registry.engine(name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    options = ServeOptions(model, port=port, served_name="tiny", args=args, api_key_env="SUITE_KEY")
    command = engine.command(found.executable, options)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VLLM_", "GARRISON_", "LLAMA_"))}
    environment = command.environment(kept | {"SUITE_KEY": KEY, "HF_HUB_OFFLINE": "1"}) | environ
    log = home / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command.argv, stdout=out, stderr=out, env=environment, start_new_session=True, cwd=home
        )
    server = Running(engine, process, f"http://127.0.0.1:{port}", log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_ready(server):
            assert process.poll() is None, log.read_text(errors="replace")[-4000:]
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-4000:]
            time.sleep(0.1)
        yield server
    finally:
        server.stop()


def _is_ready(server: Running) -> bool:
    try:
        return server.call("GET", server.engine.readiness.path).status_code == 200
    except httpx2.TransportError:
        return False


@contextlib.contextmanager
def in_progress(
    server: Running, tokens: int, until: Callable[..., Any]
) -> Iterator[tuple[list[httpx2.Response], Reading]]:
    """A request that the metrics show as running, and what they showed; after the body the list ends with its response.

    On a busy machine a request may end between two looks at the metrics. Then another one is sent.
    """
    answers: list[httpx2.Response] = []
    readings: list[Reading] = []

    def runs() -> bool:
        readings.append(server.read())
        return readings[-1].running == 1

    for _ in range(10):
        request = threading.Thread(target=lambda: answers.append(server.generate(tokens)))
        request.start()
        until(lambda: runs() or not request.is_alive(), seconds=60.0, what="a request that runs")  # noqa: B023
        if request.is_alive() and readings[-1].running == 1:
            break
    assert readings[-1].running == 1, "each request ended before the metrics showed it"
    yield answers, readings[-1]
    request.join(120)


def check_metrics(server: Running, until: Callable[..., Any], tokens: int) -> None:
    """Every name is on the page, `running` is seen while a request runs, and the counters count its tokens."""
    text = server.call("GET", server.page.path).text
    names = {name for name in (server.page.running, server.page.waiting, server.page.kv_cache) if name is not None}
    for metric in (*names, server.page.prompt_tokens, server.page.generated_tokens):
        assert metric is not None
        assert any(f"\n{metric.names[0]}{after}" in text for after in ("{", " ")), metric.names[0]
    assert server.generate(4).status_code == 200  # the first request may compile for long
    until(lambda: is_idle(server.read()), what="idle")
    before, since = server.read(), time.monotonic()
    with in_progress(server, tokens, until) as (answers, reading):
        assert is_idle(reading) is False
    until(lambda: is_idle(server.read()), what="idle")
    after = server.read()
    assert before.generated_tokens is not None
    assert after.generated_tokens == before.generated_tokens + tokens * len(answers)
    assert before.prompt_tokens is not None
    assert after.prompt_tokens is not None
    assert after.prompt_tokens > before.prompt_tokens
    rate = throughput(before, after, time.monotonic() - since)
    assert rate.generated is not None
    assert rate.generated > 0


@pytest.mark.engine("vllm")
@pytest.mark.timeout(600)
def test_vllm(real_engine: Callable[[str], Environment], tmp_path: Path, until: Callable[..., Any]) -> None:
    import tiny_model as maker

    found = real_engine("vllm")
    # With two layers the engine outruns vLLM's API server, which then answers nobody before the request has ended.
    model = maker.make_model(tmp_path / "slow", layers=32)
    drain = registry.engine("vllm").drain()
    assert drain.grace_option is not None
    flags = ("--enforce-eager", "--dtype", "bfloat16", "--max-model-len", "512", "--block-size", "128")
    with running(
        found, "vllm", str(model), tmp_path, *flags, drain.grace_option, "60",
        VLLM_CPU_KVCACHE_SPACE="1", VLLM_SERVER_DEV_MODE="1",
    ) as server:  # fmt: skip
        started = time.time()
        check_metrics(server, until, 300)
        reading = server.read()
        assert reading.kv_cache is not None
        assert reading.started_at is not None
        assert started - START_SECONDS < reading.started_at < started
        assert server.call("GET", server.page.path, key=False).status_code == 200

        # A CPU build cannot sleep; its routes are those of the other builds.
        assert server.engine.sleep_control(found.version, found.device) is None
        assert server.engine.sleep_control(server.engine.version(found.executable)) is None
        control = server.engine.sleep_control(found.version, "cuda")
        assert control is not None
        state = server.call(control.state.method, control.state.target)
        assert is_asleep(state.status_code, state.content) is False
        assert control.finishes_requests
        refused = server.call("POST", "/sleep?level=1&mode=nonsense")
        assert (refused.status_code, "mode" in refused.text) == (400, True), refused.text
        paths = json.loads(server.call("GET", "/openapi.json").text)["paths"]
        for level in control.levels:
            for call in (*level.sleep, *level.wake):
                assert call.method.lower() in paths[call.path], call

        # SIGTERM lets a request finish for as long as the option says.
        with in_progress(server, 400, until) as (answers, _):
            os.kill(server.process.pid, signal.SIGTERM)
        assert answers[-1].status_code == 200
        assert answers[-1].json()["usage"]["completion_tokens"] == 400


@pytest.mark.engine("llama_cpp")
@pytest.mark.timeout(300)
def test_llama_cpp(real_engine: Callable[[str], Environment], tmp_path: Path, until: Callable[..., Any]) -> None:
    import tiny_model as maker

    found = real_engine("llama_cpp")
    model = maker.make_gguf(tmp_path / "tiny.gguf")
    # Few threads and one slot: a tiny model answers faster than anybody can look.
    with running(found, "llama_cpp", str(model), tmp_path, "--threads", "1", "--parallel", "1") as server:
        check_metrics(server, until, 1500)
        reading = server.read()
        assert (reading.kv_cache, reading.started_at) == (None, None)
        answer = server.call("GET", server.page.path)
        assert server.page.start_header is not None
        assert (
            answer.headers[server.page.start_header]
            == server.call("GET", server.page.path).headers[server.page.start_header]
        )
        assert server.page.needs_key
        assert server.call("GET", server.page.path, key=False).status_code == 401
        assert server.engine.sleep_control(found.version, found.device) is None
