"""Whose engine a record is about, and how it is stopped, over a table of processes in memory."""

import signal
from pathlib import Path

import pytest

from garrison.base.errors import DeniedError, EngineTimeoutError
from garrison.base.identity import Identity, ProcessId, this_place
from garrison.base.settings import Settings
from garrison.launch.served import ServedEngine, name_served_at, served_engine, stop_served
from garrison.preflight.engine_records import EngineRecord
from garrison.processes.process import Process
from garrison.testing.clock import FakeClock
from garrison.testing.processes import MemoryProcesses

SERVE, SHIM, ENGINE, WORKER = 10, 11, 12, 13
ARGV = ("/opt/vllm", "serve", "org/name", "--port", "8000")
RECORD = EngineRecord("vllm", 8000, Identity(this_place(), ENGINE, 120), Identity(this_place(), SHIM, 110))


def process(pid: int, parent: int, argv: tuple[str, ...] = (), uid: int = 1000) -> Process:
    return Process(ProcessId(pid, pid * 10), parent, uid, None, argv)


@pytest.fixture
def table() -> MemoryProcesses:
    made = (process(SERVE, 5), process(SHIM, SERVE), process(ENGINE, SHIM, ARGV), process(WORKER, ENGINE))
    return MemoryProcesses(made)


def found(table: MemoryProcesses, record: EngineRecord = RECORD) -> ServedEngine:
    one = served_engine(record, table, logs=Path("/none"))
    assert one is not None
    return one


def test_what_is_known(table: MemoryProcesses) -> None:
    one = found(table)
    assert (one.name, one.engine, one.model, one.port) == ("vllm-8000", "vllm", "org/name", 8000)
    assert one.parent == ProcessId(SERVE, 100)
    for name in ("vllm-8000", "8000", "12"):
        assert one.is_called(name)
    assert not one.is_called("vllm")


def test_an_engine_that_has_ended(table: MemoryProcesses) -> None:
    table.table[ENGINE] = Process(ProcessId(ENGINE, 999), 1, 1000)
    assert served_engine(RECORD, table, logs=Path("/none")) is None
    table.table.clear()
    assert served_engine(RECORD, table, logs=Path("/none")) is None


@pytest.mark.parametrize(
    "shim", [process(SHIM, 1), Process(ProcessId(SHIM, 999), SERVE, 1000)], ids=["its starter ended", "another process"]
)
def test_no_parent(table: MemoryProcesses, shim: Process) -> None:
    table.table[SHIM] = shim
    assert found(table).parent is None


def test_a_parent_of_another_user_is_not_signalled(table: MemoryProcesses) -> None:
    table.table[SERVE] = process(SERVE, 5, uid=7)
    assert found(table).parent is None


def test_stopping_signals_the_serve_alone(table: MemoryProcesses) -> None:
    table.on_death = lambda one: [table.end(pid) for pid in (WORKER, ENGINE, SHIM) if pid in table.table] and None
    stop_served(found(table), Settings(), table, FakeClock())
    assert table.sent == [(ProcessId(SERVE, 100), signal.SIGTERM)]


def test_a_pid_that_changed_hands_is_not_signalled(table: MemoryProcesses) -> None:
    one = found(table)
    table.table[SERVE] = Process(ProcessId(SERVE, 999), 5, 1000)
    stop_served(one, Settings(), table, FakeClock())
    assert ProcessId(SERVE, 999) not in [process for process, _ in table.sent]
    assert ENGINE not in table.table, "without its serve the engine's own tree is stopped"


def test_one_that_does_not_end(table: MemoryProcesses) -> None:
    table.ignores = {(SERVE, signal.SIGTERM)}
    clock = FakeClock()
    begun = clock.monotonic()
    with pytest.raises(EngineTimeoutError, match="still runs after 40 s"):
        stop_served(found(table), Settings(), table, clock)
    assert 40 <= clock.monotonic() - begun < 41


def test_one_that_may_not_be_signalled(table: MemoryProcesses) -> None:
    table.denied = {SERVE}
    with pytest.raises(DeniedError):
        stop_served(found(table), Settings(), table, FakeClock())


def test_an_engine_without_a_port(table: MemoryProcesses) -> None:
    record = EngineRecord("vllm", None, RECORD.main, RECORD.shim)
    assert found(table, record).name == "vllm-pid-12"


def test_a_parent_that_ends_between_two_looks(table: MemoryProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pid may belong to another process by the time it is read."""
    read = table.read

    def late(pid: int) -> Process | None:
        if pid == SERVE:
            table.table[SHIM] = process(SHIM, 1)
        return read(pid)

    monkeypatch.setattr(table, "read", late)
    assert found(table).parent is None


@pytest.mark.parametrize(
    ("engine", "argv", "name"),
    [
        ("vllm", ARGV, "org/name"),
        ("vllm", (*ARGV, "--served-model-name", "short", "long"), "short"),
        ("mlx_lm", ("/opt/mlx_lm.server", "--model", "/models/a"), "default_model"),
        ("custom", ("/opt/server",), None),
    ],
)
def test_the_name_that_clients_ask_for(
    table: MemoryProcesses, engine: str, argv: tuple[str, ...], name: str | None
) -> None:
    table.table[ENGINE] = process(ENGINE, SHIM, argv)
    record = EngineRecord(engine, 8000, RECORD.main, RECORD.shim)
    assert name_served_at(8000, [record], table) == name
    assert name_served_at(8001, [record], table) is None
    table.table[ENGINE] = Process(ProcessId(ENGINE, 999), SHIM, 1000, None, argv)
    assert name_served_at(8000, [record], table) is None
