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

    def stream(self, path: str, body: dict[str, Any]) -> contextlib.AbstractContextManager[httpx2.Response]:
        headers = {"Authorization": f"Bearer {KEY}"}
        return httpx2.stream("POST", self.url + path, headers=headers, json=body, timeout=60, trust_env=False)

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
def kept_busy(server: Running, tokens: int) -> Iterator[list[httpx2.Response]]:
    """Five clients that send one request after another. After the body the list has all their responses.

    They are of different lengths, so that they do not all end at once.
    """
    answers: list[httpx2.Response] = []
    enough = threading.Event()

    def send(length: int) -> None:
        while not enough.is_set():
            answers.append(server.generate(length))

    lengths = [tokens * part // 10 for part in (10, 7, 5, 4, 3)]
    clients = [threading.Thread(target=send, args=(length,)) for length in lengths]
    for one in clients:
        one.start()
    try:
        yield answers
    finally:
        enough.set()
        for one in clients:
            one.join(120)


def check_metrics(server: Running, until: Callable[..., Any], tokens: int, *, shows_running: bool = True) -> None:
    """Every name is on the page, and the counters count the tokens of requests.

    Args:
        shows_running: `running` is seen while they run.
    """
    text = server.call("GET", server.page.path).text
    names = {name for name in (server.page.running, server.page.waiting, server.page.kv_cache) if name is not None}
    for metric in (*names, server.page.prompt_tokens, server.page.generated_tokens):
        assert metric is not None
        assert any(f"\n{metric.names[0]}{after}" in text for after in ("{", " ")), metric.names[0]
    assert server.generate(4).status_code == 200  # the first request may compile for long
    until(lambda: is_idle(server.read()), what="idle")
    before, since = server.read(), time.monotonic()
    with kept_busy(server, tokens) as answers:
        if shows_running:
            until(lambda: is_idle(server.read()) is False, seconds=60.0, what="a request that runs")
        else:
            until(lambda: len(answers) >= 3, seconds=60.0, what="three answers")
            server.read()
    until(lambda: is_idle(server.read()), what="idle")
    after = server.read()
    assert before.generated_tokens is not None
    generated = sum(answer.json()["usage"]["completion_tokens"] for answer in answers)
    assert after.generated_tokens == before.generated_tokens + generated
    assert before.prompt_tokens is not None
    assert after.prompt_tokens is not None
    assert after.prompt_tokens > before.prompt_tokens
    rate = throughput(before, after, time.monotonic() - since)
    assert rate.generated is not None
    assert rate.generated > 0


@pytest.mark.engine("vllm")
@pytest.mark.timeout(600)
def test_vllm(
    real_engine: Callable[[str], Environment], tiny_model: Path, tmp_path: Path, until: Callable[..., Any]
) -> None:
    found = real_engine("vllm")
    drain = registry.engine("vllm").drain()
    assert drain.grace_option is not None
    flags = ("--enforce-eager", "--dtype", "bfloat16", "--max-model-len", "512", "--block-size", "128")
    with running(
        found, "vllm", str(tiny_model), tmp_path, *flags, drain.grace_option, "60",
        VLLM_CPU_KVCACHE_SPACE="1", VLLM_SERVER_DEV_MODE="1",
    ) as server:  # fmt: skip
        started = time.time()
        # On two cores vLLM often answers for its metrics only between requests, and then shows none that runs.
        check_metrics(server, until, 300, shows_running=False)
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
        body = {"model": "tiny", "prompt": "able", "max_tokens": 400, "temperature": 0, "ignore_eos": True}
        with server.stream("/v1/completions", body | {"stream": True}) as answer:
            chunks = (line for line in answer.iter_lines() if line)
            first = next(chunks)
            os.kill(server.process.pid, signal.SIGTERM)
            rest = list(chunks)
        assert "[DONE]" not in first
        assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
        assert len(rest) > 200
        assert rest[-1] == "data: [DONE]"


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
