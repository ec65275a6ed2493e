"""The whole preflight on the in-memory twins."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import (
    GarrisonError,
    InvalidError,
    LockedError,
    PortError,
    PortForeignError,
    PortOtherUserError,
    PortStuckError,
    PortUnattributableError,
)
from garrison.base.identity import ProcessId
from garrison.preflight.addresses import Address
from garrison.preflight.check import PreflightReport, PreflightRequest, check, port_lock
from garrison.preflight.gpu.gpus import Gpu, GpuProcess
from garrison.preflight.listeners import Listener
from garrison.preflight.policy import RECLAIM
from garrison.processes.process import Process
from garrison.testing.clock import FakeClock
from garrison.testing.gpus import MemoryGpuProbe
from garrison.testing.processes import MemoryProcesses
from garrison.testing.sockets import MemorySockets

PYTHON = "/usr/bin/python3"
VLLM = ("python", "/v/bin/vllm", "serve", "x", "--api-key", "SECRET")
DRY = replace(RECLAIM, dry_run=True)
ANY, LOOPBACK = Address(bytes(4)), Address(b"\x7f\0\0\1")


class Bench:
    """One listener on port 8000, held by pid 100; its socket closes when pid 100 ends."""

    def __init__(self, argv: tuple[str, ...] = VLLM, *, uid: int = 1000, exe: str | None = PYTHON) -> None:
        server = Process(ProcessId(100, 5), 1, uid, exe, argv)
        worker = Process(ProcessId(101, 6), 100, uid, exe, ("VLLM::EngineCore",))
        other = Process(ProcessId(200, 5), 1, uid, exe, ("bash",))
        self.processes = MemoryProcesses([server, worker, other])
        self.processes.sockets = {77: {100, 101}}
        self.sockets = MemorySockets([Listener(LOOPBACK, 8000, 77, uid)])
        self.processes.on_death = self._close
        self.clock = FakeClock()
        self.said: list[str] = []

    def _close(self, gone: Process) -> None:
        if gone.id.pid == 100:
            self.sockets.table.clear()

    def check(self, gpus: Any = (), **fields: Any) -> PreflightReport:
        policy = fields.pop("policy", RECLAIM)
        effects = {name: fields.pop(name) for name in ("servers", "ask") if name in fields}
        asked = {"host": "0.0.0.0", "port": 8000, "skip_gpu": not gpus, "lockfile": Path("/tmp/x")} | fields
        return check(
            PreflightRequest(**asked),
            policy,
            processes=self.processes,
            sockets=self.sockets,
            gpus=gpus,
            clock=self.clock,
            say=self.said.append,
            **effects,
        )


@pytest.mark.parametrize(
    ("bench", "signatures", "said"),
    {
        "vLLM": (lambda: Bench(uid=7), (), "held by another user's vLLM: pid 100 (uid 7)"),
        "the simulator": (
            lambda: Bench(("python3", "/bin/garrison", "sim"), uid=7),
            (),
            "held by another user's server",
        ),
        "a signature": (lambda: Bench(("python3", "run.py"), uid=7), ("run.py",), "held by another user's server"),
        "unreadable": (lambda: Bench(uid=7, exe=None), (), "held by a process whose program cannot be identified"),
        "foreign": (lambda: Bench(("nginx",), exe="/usr/sbin/nginx"), (), "held by a process that is not vLLM"),
    }.values(),
    ids=["vLLM", "the simulator", "a signature", "unreadable", "foreign"],
)
def test_a_holder_is_called_what_it_is_known_to_be(bench: Any, signatures: tuple[str, ...], said: str) -> None:
    with pytest.raises(PortError, match=re.escape(said)):
        bench().check(signatures=signatures)


def test_json_noop_is_the_seeds_example_and_more() -> None:
    body = Bench().check(port=8001).to_json()
    assert json.loads(json.dumps(body)) == body
    assert list(body)[:9] == [
        "ok",
        "host",
        "port",
        "port_action",
        "reclaimed_roots",
        "blocked_roots",
        "could_scan",
        "gpus",
        "gpu_check_source",
    ]
    assert {key: body[key] for key in list(body)[:9]} == {
        "ok": True,
        "host": "0.0.0.0",
        "port": 8001,
        "port_action": "noop",
        "reclaimed_roots": [],
        "blocked_roots": [],
        "could_scan": True,
        "gpus": [],
        "gpu_check_source": "skipped",
    }


def test_json_stopped_is_the_seeds_example() -> None:
    gpu = Gpu(0, "GPU-a", "H", 80_000, 70_000, 10_000, 40, 10, "P0")
    body = Bench().check(gpus=[MemoryGpuProbe([gpu])]).to_json()
    assert (body["port_action"], body["reclaimed_roots"], body["gpu_check_source"]) == ("stopped", [100], "nvml")
    assert body["gpus"][0]["memory_free_mib"] == 70_000


def test_memory_released_by_the_stopped_tree_is_reported() -> None:
    bench = Bench()
    holding = Gpu(0, "GPU-a", "H", 80_000, 9_000, 71_000, 40, 10, "P0", processes=(GpuProcess(101, 70_000),))
    free = Gpu(0, "GPU-a", "H", 80_000, 79_000, 1_000, 40, 10, "P0")
    report = bench.check(gpus=[MemoryGpuProbe([holding], [holding], [free])])
    assert report.released_mib == 70_000
    assert report.gpus == (free,)
    assert any("70000 MiB" in sentence for sentence in bench.said)


def test_memory_that_stays_is_a_warning() -> None:
    holding = Gpu(0, "GPU-a", "H", 80_000, 9_000, 71_000, 40, 10, "P0", processes=(GpuProcess(101, 70_000),))
    report = Bench().check(gpus=[MemoryGpuProbe([holding])])
    assert report.released_mib == 0
    assert "only 0 MiB" in report.warnings[0]


FAILURES = [
    ("2-foreign", PortForeignError, 2, Bench(("nginx",), exe="/usr/sbin/nginx"), {}),
    ("2-foreign-even-if-another-users", PortForeignError, 2, Bench(("nginx",), uid=7, exe="/usr/sbin/nginx"), {}),
    ("2-foreign-when-exe-is-unreadable", PortForeignError, 2, Bench(exe=None), {}),
    ("3-other-user", PortOtherUserError, 3, Bench(uid=7), {}),
    ("2-foreign-in-dry-run", PortForeignError, 2, Bench(("nginx",), exe="/usr/sbin/nginx"), {"policy": DRY}),
    ("3-other-user-in-dry-run", PortOtherUserError, 3, Bench(uid=7), {"policy": DRY}),
]


@pytest.mark.parametrize(
    ("kind", "code", "bench", "fields"), [row[1:] for row in FAILURES], ids=[r[0] for r in FAILURES]
)
def test_refused(kind: type[GarrisonError], code: int, bench: Bench, fields: dict[str, Any]) -> None:
    with pytest.raises(kind) as caught:
        bench.check(**fields)
    assert caught.value.exit_code == code
    body = caught.value.to_json()
    assert (body["ok"], body["host"], body["port"], body["pids"]) == (False, "0.0.0.0", 8000, [100])
    assert body["blocked_roots"] == [100]
    assert "SECRET" not in json.dumps(body)
    assert bench.processes.sent == []


def test_3_becomes_a_stop_when_allowed() -> None:
    assert Bench(uid=7).check(policy=replace(RECLAIM, other_users=True)).reclaimed_roots == (100,)


def test_3_when_allowed_but_the_system_says_no() -> None:
    bench = Bench(uid=7)
    bench.processes.denied = {100, 101}
    with pytest.raises(PortOtherUserError, match="may not signal"):
        bench.check(policy=replace(RECLAIM, other_users=True))


def test_4_when_nobody_is_seen_to_hold_it() -> None:
    bench = Bench()
    bench.processes.sockets.clear()
    with pytest.raises(PortUnattributableError) as caught:
        bench.check()
    assert caught.value.details["could_scan"] is False
    assert caught.value.details["uids"] == [1000]


def test_a_listener_that_closes_between_two_looks_is_not_unattributable() -> None:
    bench = Bench()
    bench.processes.sockets.clear()
    reads = iter([None, None])
    bench.sockets.before_read = lambda: next(reads, None) or (bench.sockets.table.clear() if not list(reads) else None)
    assert bench.check().port_action == "noop"


def test_5_when_it_still_listens() -> None:
    bench = Bench()
    bench.processes.on_death = lambda _: None
    bench.processes.ignores = {(100, 15), (100, 9)}
    with pytest.raises(PortStuckError) as caught:
        bench.check()
    assert caught.value.exit_code == 5
    assert caught.value.details["survivors"] == [100]
    assert caught.value.details["cmdlines"] == ["python /v/bin/vllm serve x --api-key ***"]


def test_a_process_that_outlives_its_socket_is_a_warning() -> None:
    bench = Bench()
    bench.processes.ignores = {(101, 15), (101, 9)}
    report = bench.check()
    assert report.port_action == "stopped"
    assert "pid 101" in report.warnings[0]


def test_custom_signature() -> None:
    bench = Bench(("python", "/srv/launch_llm.py"))
    assert bench.check(signatures=("launch_llm",)).reclaimed_roots == (100,)


def test_a_closed_socket_table_is_answered_by_binding() -> None:
    bench = Bench()
    bench.sockets.readable = False
    with pytest.raises(PortUnattributableError) as caught:
        bench.check()
    assert caught.value.details["could_scan"] is False
    report = bench.check(port=8001)
    assert (report.could_scan, report.port_action) == (False, "noop")
    assert report.warnings


def test_a_host_that_means_nothing() -> None:
    with pytest.raises(InvalidError, match="cannot be resolved"):
        Bench().check(host="no-such-host")


def test_every_address_of_a_name_counts() -> None:
    assert Bench().check(host="localhost").reclaimed_roots == (100,)


def request(path: Path) -> PreflightRequest:
    return PreflightRequest(host="0.0.0.0", port=8000, lockfile=path)


def test_lock_second_preflight_fails_at_once(tmp_path: Path) -> None:
    clock = FakeClock()
    first, second = port_lock(request(tmp_path / "lock")), port_lock(request(tmp_path / "lock"), clock=clock)
    with first, pytest.raises(LockedError) as caught, second:
        pass
    assert caught.value.exit_code == 13
    assert caught.value.details["port"] == 8000
    assert clock.monotonic() == 0


def test_lock_ends_with_the_body_and_with_release(tmp_path: Path) -> None:
    for _ in range(2):
        with port_lock(request(tmp_path / "lock")) as lock:
            lock.release()
            with port_lock(request(tmp_path / "lock")):
                pass


@pytest.mark.parametrize("kind", ["symlink", "directory", "fifo"])
def test_lock_file_must_be_a_regular_file(tmp_path: Path, kind: str) -> None:
    import os

    path = tmp_path / "lock"
    if kind == "symlink":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(InvalidError), port_lock(request(path)):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_lock_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    with port_lock(request(tmp_path / "lock")):
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


def test_a_start_that_takes_no_port_has_none_looked_at() -> None:
    bench = Bench(("nginx",), exe="/usr/sbin/nginx")
    assert bench.check(skip_port=True, host="no-such-host").port_action == "noop"
    assert bench.said == []
    assert bench.processes.sent == []


def test_who_stops_a_server_is_noted_before_it_is_signalled(tmp_path: Path) -> None:
    from garrison.preflight.stop_notes import read_note

    bench = Bench()
    found: list[Any] = []
    bench.processes.on_signal = lambda process, _: found.append(read_note(tmp_path, 8000, [process]))
    bench.check(notes=tmp_path)
    assert len(found) == 2
    assert all(note is not None for note in found)
