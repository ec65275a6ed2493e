"""Whether a server that holds the port may be stopped for a new one; without processes."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import GpuThresholdError, InvalidError, PortForeignError
from garrison.base.identity import ProcessId
from garrison.preflight.addresses import Address
from garrison.preflight.check import PreflightReport, check
from garrison.preflight.gpu.gpus import Gpu, GpuProcess
from garrison.preflight.holders import PortVerdict
from garrison.preflight.listeners import Listener
from garrison.preflight.policy import RECLAIM, REFUSE, REPLACE, PortPolicy, decide, needs_look
from garrison.preflight.report import PreflightRequest, Thresholds
from garrison.preflight.servers import PortServer, described
from garrison.processes.process import Process
from garrison.testing.clock import FakeClock
from garrison.testing.gpus import MemoryGpuProbe
from garrison.testing.port_servers import MemoryServers
from garrison.testing.processes import MemoryProcesses
from garrison.testing.sockets import MemorySockets

LOOPBACK = Address(b"\x7f\0\0\1")
ARGV = ("python", "/v/bin/vllm", "serve", "acme/tiny", "--port", "8000", "--api-key", "SECRET")
ALIVE = ["serves", "starts", "works"]


def verdict(*ids: ProcessId) -> PortVerdict:
    roots = tuple(Process(one, 1, 1000, "/usr/bin/python3", ARGV) for one in ids or (ProcessId(100, 5),))
    return PortVerdict("ours", roots, (Listener(LOOPBACK, 8000, 77, 1000),))


def server(state: Any) -> PortServer:
    return PortServer(100, "vllm serve acme/tiny", state, "acme/tiny")


AGREED = replace(REFUSE, agreed=frozenset({ProcessId(100, 5)}))
DECISIONS = [
    *((RECLAIM, state, "stop") for state in (*ALIVE, "stuck")),
    *((REPLACE, state, "stop") for state in (*ALIVE, "stuck")),
    *((REFUSE, state, "refuse") for state in ALIVE),
    (REFUSE, "stuck", "stop-stuck"),
    (REFUSE, None, "refuse"),
    *((AGREED, state, "stop") for state in (*ALIVE, "stuck")),
    *((replace(policy, in_vain="--x"), "stuck", "in-vain") for policy in (RECLAIM, REPLACE, REFUSE, AGREED)),
]


@pytest.mark.parametrize(("policy", "state", "decision"), DECISIONS)
def test_decide(policy: PortPolicy, state: str | None, decision: str) -> None:
    assert decide(policy, verdict(), None if state is None else server(state)) == decision


@pytest.mark.parametrize("other", [ProcessId(100, 6), ProcessId(101, 5)], ids=["pid reused", "another"])
def test_an_agreement_is_about_one_process(other: ProcessId) -> None:
    assert decide(AGREED, verdict(other), server("serves")) == "refuse"
    assert decide(AGREED, verdict(ProcessId(100, 5), other), server("serves")) == "refuse"


def test_only_a_policy_that_spares_living_servers_takes_the_time_to_look() -> None:
    assert [needs_look(policy, verdict()) for policy in (RECLAIM, REPLACE, AGREED)] == [False] * 3
    assert not needs_look(replace(REFUSE, in_vain="--x"), verdict())
    assert needs_look(REFUSE, verdict())


class Bench:
    """A vLLM, pid 100, with a worker, pid 101, on port 8000."""

    def __init__(self, state: str = "serves") -> None:
        self.processes = MemoryProcesses(
            [*verdict().roots, Process(ProcessId(101, 6), 100, 1000, "/usr/bin/python3", ("VLLM::EngineCore",))]
        )
        self.processes.sockets = {77: {100, 101}}
        self.sockets = MemorySockets([Listener(LOOPBACK, 8000, 77, 1000)])
        self.processes.on_death = lambda gone: self.sockets.table.clear() if gone.id.pid == 100 else None
        self.servers = MemoryServers(server(state))
        self.said: list[str] = []

    def check(
        self, policy: PortPolicy, *, ask: Callable[[str, str], bool] | None = None, gpus: Any = None, **fields: Any
    ) -> PreflightReport:
        request = PreflightRequest(
            **({"host": "127.0.0.1", "port": 8000, "skip_gpu": gpus is None, "lockfile": Path("/x")} | fields)
        )
        return check(
            request, policy, processes=self.processes, sockets=self.sockets, gpus=gpus, servers=self.servers,
            clock=FakeClock(), say=self.said.append, ask=ask,
        )  # fmt: skip


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("state", ALIVE)
def test_one_that_is_alive_is_not_stopped_unasked(state: str, dry_run: bool) -> None:
    bench = Bench(state)
    with pytest.raises(PortForeignError) as caught:
        bench.check(replace(REFUSE, dry_run=dry_run))
    assert caught.value.exit_code == 2
    assert "--replace" in str(caught.value.hint)
    assert "SECRET" not in str(caught.value.to_json())
    details = caught.value.details
    assert (details["pids"], details["model"], details["state"]) == ([100], "acme/tiny", state)
    assert bench.processes.sent == []


def test_without_a_way_to_look_it_counts_as_alive() -> None:
    bench = Bench("stuck")
    bench.servers = None  # type: ignore[assignment]  # must not be asked
    with pytest.raises(PortForeignError, match="pid 100"):
        bench.check(REFUSE)


def test_a_stuck_one_is() -> None:
    bench = Bench("stuck")
    assert bench.check(REFUSE).reclaimed_roots == (100,)
    assert "is stuck and will be stopped" in bench.said[0]


@pytest.mark.parametrize("policy", [RECLAIM, REPLACE], ids=["reclaim", "replace"])
@pytest.mark.parametrize("state", [*ALIVE, "stuck"])
def test_with_leave_to_stop_it_nobody_looks(state: str, policy: PortPolicy) -> None:
    bench = Bench(state)
    assert bench.check(policy).reclaimed_roots == (100,)
    assert bench.servers.looks == 0


def test_a_dry_run_asks_and_the_real_one_does_not_ask_again() -> None:
    bench = Bench()
    asked: list[str] = []
    early = bench.check(replace(REFUSE, dry_run=True), ask=lambda *words: bool(asked.extend(words)) or True)
    assert (early.would_stop_roots, early.agreed) == ((100,), frozenset({ProcessId(100, 5)}))
    assert bench.processes.sent == []
    assert bench.check(replace(REFUSE, agreed=early.agreed)).reclaimed_roots == (100,)
    assert asked == [
        "port 8000 is held by your vLLM: pid 100, model acme/tiny, serving: vllm serve acme/tiny",
        "Stop pid 100 and take port 8000?",
    ]


def test_no_is_no() -> None:
    bench = Bench()
    with pytest.raises(PortForeignError, match="nothing was done: pid 100 still holds port 8000"):
        bench.check(REFUSE, ask=lambda *_: False)
    assert bench.processes.sent == []


def test_one_that_was_stuck_may_have_recovered() -> None:
    """Between the early look and the stop there may be an hour of downloading."""
    bench = Bench("stuck")
    agreed = bench.check(replace(REFUSE, dry_run=True)).agreed
    bench.servers.server = server("serves")
    with pytest.raises(PortForeignError):
        bench.check(replace(REFUSE, agreed=agreed))


@pytest.mark.parametrize("policy", [REFUSE, REPLACE, RECLAIM], ids=["refuse", "replace", "reclaim"])
@pytest.mark.parametrize("state", ["serves", "stuck"])
def test_nothing_is_stopped_for_an_engine_that_will_not_start(state: str, policy: PortPolicy) -> None:
    bench = Bench(state)
    with pytest.raises(InvalidError, match="--x accepts no value"):
        bench.check(replace(policy, in_vain="--x accepts no value"))
    assert bench.processes.sent == []


def gpu(**fields: Any) -> Gpu:
    held = (GpuProcess(101, 70_000),)
    return replace(Gpu(0, "GPU-a", "H", 80_000, 1_000, 79_000, 40, 100, "P0", processes=held), **fields)


FREED = Gpu(0, "GPU-a", "H", 80_000, 71_000, 9_000, 40, 0, "P0")


@pytest.mark.parametrize("fail_on", [(), ("temperature", "memory", "utilization")], ids=["nothing", "all"])
def test_what_the_old_one_holds_and_does_is_no_reason(fail_on: tuple[str, ...]) -> None:
    probe = MemoryGpuProbe([gpu()], [gpu()], [FREED])
    assert Bench().check(REPLACE, gpus=[probe], thresholds=Thresholds(fail_on=fail_on)).reclaimed_roots == (100,)


UNFIT = {"too hot": {"temperature_c": 99}, "held by another": {"processes": (GpuProcess(5, 70_000),)}}


@pytest.mark.parametrize("fields", UNFIT.values(), ids=UNFIT)
def test_a_gpu_that_will_not_be_fit_ends_it_before_anything_is_stopped(fields: dict[str, Any]) -> None:
    bench = Bench()
    with pytest.raises(GpuThresholdError):
        bench.check(
            REPLACE, gpus=[MemoryGpuProbe([gpu(**fields)])], thresholds=Thresholds(fail_on=("temperature", "memory"))
        )
    assert bench.processes.sent == []


def test_the_contract_frees_the_port_first() -> None:
    """`vllm-preflight` stops the server, and then says what is wrong with the GPU."""
    bench = Bench()
    with pytest.raises(GpuThresholdError):
        bench.check(RECLAIM, gpus=[MemoryGpuProbe([gpu(temperature_c=99)])])
    assert bench.processes.sent != []


NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "age"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (86400 * 3, "3 d")]
)
def test_described(seconds: int, age: str) -> None:
    server = PortServer(100, "vllm serve x", "works", "x", NOW - timedelta(seconds=seconds), "pid 1: sh")
    said = described(server, NOW)
    assert said.startswith("pid 100, model x, started 20")
    assert f"({age} ago)" in said
    assert said.endswith("but using the CPU: vllm serve x, started by pid 1: sh")


def test_a_command_line_moves_no_cursor() -> None:
    said = described(PortServer(100, "vllm serve x\x1b[2J\n", "serves"), NOW)
    assert said.endswith(r"vllm serve x\x1b[2J\n")


def test_described_with_nothing_known() -> None:
    assert described(PortServer(100, "VLLM::EngineCore", "starts"), NOW) == "pid 100, starting: VLLM::EngineCore"
