"""Whether a server may be stopped for a new one; without processes."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import GpuThresholdError, InvalidError, PortForeignError
from garrison.base.identity import ProcessId
from garrison.engines.catalogue import Finding
from garrison.launch.permission import Permission
from garrison.launch.port_server import PortServer, described, endpoint_to_ask, model_of
from garrison.preflight.addresses import Address
from garrison.preflight.gpu.gpus import Gpu, GpuProcess
from garrison.preflight.holders import PortVerdict
from garrison.preflight.listeners import Listener
from garrison.preflight.report import PreflightRequest, Thresholds
from garrison.processes.process import Process
from garrison.testing.clock import FakeClock
from garrison.testing.gpus import MemoryGpuProbe

LOOPBACK = Address(b"\x7f\0\0\1")
ARGV = ("python", "/v/bin/vllm", "serve", "acme/tiny", "--port", "8000", "--api-key", "SECRET")


def verdict(*ids: ProcessId) -> PortVerdict:
    roots = tuple(Process(one, 1, 1000, "/usr/bin/python3", ARGV) for one in ids or (ProcessId(100, 5),))
    return PortVerdict("ours", roots, (Listener(LOOPBACK, 8000, 77, 1000),))


class Servers:
    def __init__(self, state: Any = "serves") -> None:
        self.looks = 0
        self.server = PortServer(100, "vllm serve acme/tiny", state, "acme/tiny")

    def look(self, verdict: PortVerdict) -> PortServer:
        self.looks += 1
        return self.server

    def pids(self, verdict: PortVerdict) -> frozenset[int]:
        return frozenset({100, 101})


class Bench:
    def __init__(
        self, state: str = "serves", *, replace: bool = False, ask: Callable[[str], bool] | None = None, **more: Any
    ) -> None:
        self.said: list[str] = []
        self.servers = Servers(state)
        request = more.pop("request", None) or PreflightRequest(
            host="127.0.0.1", port=8000, skip_gpu=True, lockfile=Path("/x")
        )
        self.permission = Permission(
            request, replace=replace, ask=ask, say=self.said.append, servers=self.servers, clock=FakeClock(), **more
        )


@pytest.mark.parametrize("state", ["serves", "starts", "works"])
def test_one_that_is_alive_is_not_stopped_unasked(state: str) -> None:
    with pytest.raises(PortForeignError) as caught:
        Bench(state).permission(verdict())
    assert caught.value.exit_code == 2
    assert "--replace" in str(caught.value.hint)
    assert "SECRET" not in str(caught.value.to_json())
    details = caught.value.details
    assert (details["pids"], details["model"], details["state"]) == ([100], "acme/tiny", state)


def test_a_stuck_one_is() -> None:
    bench = Bench("stuck")
    bench.permission(verdict())
    assert "stuck" in bench.said[0]


@pytest.mark.parametrize("state", ["serves", "starts", "works", "stuck"])
def test_with_replace_all_are(state: str) -> None:
    bench = Bench(state, replace=True)
    bench.permission(verdict())
    assert bench.servers.looks == 0


def test_somebody_is_asked_once() -> None:
    asked: list[str] = []
    bench = Bench(ask=lambda question: bool(asked.append(question)) or True)
    bench.permission(verdict())
    bench.permission(verdict())
    assert asked == ["Stop pid 100 and take port 8000?"]


def test_another_server_is_another_question() -> None:
    """The one that was agreed to has ended meanwhile, and another has taken the port; or the same pid is another's."""
    answers = iter([True, False])
    bench = Bench(ask=lambda _: next(answers))
    bench.permission(verdict())
    with pytest.raises(PortForeignError):
        bench.permission(verdict(ProcessId(100, 6)))


def test_no_is_no() -> None:
    with pytest.raises(PortForeignError):
        Bench(ask=lambda _: False).permission(verdict())


def test_one_that_was_stuck_may_have_recovered() -> None:
    """Between the early look and the stop there may be an hour of downloading."""
    bench = Bench("stuck")
    bench.permission.agree(verdict())
    bench.servers.server = replace(bench.servers.server, state="serves")
    with pytest.raises(PortForeignError):
        bench.permission(verdict())


WRONG = Finding("error", "--x", "--x takes no value")


@pytest.mark.parametrize("state", ["serves", "stuck"])
def test_nothing_is_stopped_for_an_engine_that_will_not_start(state: str) -> None:
    with pytest.raises(InvalidError, match="--x takes no value"):
        Bench(state, replace=True, findings=[WRONG]).permission(verdict())


def test_a_warning_is_no_reason() -> None:
    Bench(replace=True, findings=[replace(WRONG, level="warning")]).permission(verdict())


def gpu(**fields: Any) -> Gpu:
    held = (GpuProcess(101, 70_000),)
    return replace(Gpu(0, "GPU-a", "H", 80_000, 1_000, 79_000, 40, 100, "P0", processes=held), **fields)


def gpu_request(*fail_on: str) -> PreflightRequest:
    return PreflightRequest(host="127.0.0.1", port=8000, lockfile=Path("/x"), thresholds=Thresholds(fail_on=fail_on))


@pytest.mark.parametrize("fail_on", [(), ("temperature", "memory", "utilization")], ids=["nothing", "all"])
def test_what_the_old_one_holds_and_does_is_no_reason(
    monkeypatch: pytest.MonkeyPatch, fail_on: tuple[str, ...]
) -> None:
    monkeypatch.setattr("garrison.preflight.gpu.check.default_probes", lambda: [MemoryGpuProbe([gpu()])])
    Bench(replace=True, request=gpu_request(*fail_on)).permission(verdict())


UNFIT = {"too hot": {"temperature_c": 99}, "held by another": {"processes": (GpuProcess(5, 70_000),)}}


@pytest.mark.parametrize("fields", UNFIT.values(), ids=UNFIT)
def test_a_gpu_that_will_not_be_fit_ends_it_before_anything_is_stopped(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    monkeypatch.setattr("garrison.preflight.gpu.check.default_probes", lambda: [MemoryGpuProbe([gpu(**fields)])])
    with pytest.raises(GpuThresholdError):
        Bench(replace=True, request=gpu_request("temperature", "memory")).permission(verdict())


MODELS = [
    (ARGV, "acme/tiny"),
    ((*ARGV, "--served-model-name", "tiny", "alias"), "tiny"),
    (("python", "-m", "vllm.entrypoints.openai.api_server", "--model", "acme/tiny"), "acme/tiny"),
    (("python", "-m", "vllm.entrypoints.openai.api_server", "--model=acme/tiny"), "acme/tiny"),
    (("vllm", "serve", "--config", "x.yaml"), None),
    (("VLLM::EngineCore",), None),
]


@pytest.mark.parametrize(("argv", "model"), MODELS)
def test_model(argv: tuple[str, ...], model: str | None) -> None:
    assert model_of(argv) == model


def test_it_is_asked_where_it_listens_and_as_its_own_flags_say() -> None:
    argv = (*ARGV, "--port", "1", "--ssl-certfile", "c", "--root-path", "/serve", "--headless")
    listener = Listener(Address(bytes(16)), 8000, 77, 1000)
    found = endpoint_to_ask(Process(ProcessId(1, 1), 1, 0, "/x", argv), listener, 8000)
    assert (found.host, found.port, found.tls, found.prefix, found.protocol) == ("::", 8000, True, "/serve", "http")


NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "age"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (86400 * 3, "3 d")]
)
def test_described(seconds: int, age: str) -> None:
    server = PortServer(100, "vllm serve x", "works", "x", NOW - timedelta(seconds=seconds), "pid 1: sh")
    said = described(server, NOW)
    assert said.startswith("pid 100, model x, started 20")
    assert f"({age} ago)" in said
    assert said.endswith("and is at work: vllm serve x, started by pid 1: sh")


def test_a_command_line_moves_no_cursor() -> None:
    said = described(PortServer(100, "vllm serve x\x1b[2J\n", "serves"), NOW)
    assert said.endswith(r"vllm serve x\x1b[2J\n")


def test_described_with_nothing_known() -> None:
    assert described(PortServer(100, "VLLM::EngineCore", "starts"), NOW) == "pid 100, it is starting: VLLM::EngineCore"
