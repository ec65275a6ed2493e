"""Records of started engines: what is believed, what is removed, and whose processes they make the user's own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import PortForeignError, PortOtherUserError
from garrison.base.identity import Identity, Place, ProcessId, this_place, this_process
from garrison.preflight.addresses import Address
from garrison.preflight.check import PreflightReport, PreflightRequest, check
from garrison.preflight.engine_records import EngineRecord, Records, forget_engine, read_records, record_engine
from garrison.preflight.holders import Holder, started_engines
from garrison.preflight.listeners import Listener
from garrison.preflight.policy import RECLAIM, REFUSE, PortPolicy
from garrison.processes.process import Process
from garrison.processes.procfs import Procfs

as_root = pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="becoming another user needs root")
ELSEWHERE = Place("other-host", "boot", "pid:[1]")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "run" / "engines"


@pytest.fixture
def child() -> Iterator[Identity]:
    """A process that runs."""
    process = subprocess.Popen(["sleep", "600"])
    found = Procfs().read(process.pid)
    assert found is not None
    yield Identity(this_place(), process.pid, found.id.start)
    process.kill()
    process.wait()


def gone() -> Identity:
    process = subprocess.Popen(["true"])
    process.wait()
    return Identity(this_place(), process.pid, 1)


def record(main: Identity, **fields: Any) -> EngineRecord:
    return EngineRecord(**({"engine": "llama_cpp", "port": 8000, "main": main} | fields))


class TestFiles:
    def test_what_was_written_is_read(self, directory: Path, child: Identity) -> None:
        wanted = record(child, shim=this_process())
        path = record_engine(directory, wanted)
        assert read_records(directory) == Records((wanted,))
        assert path.stat().st_mode & 0o777 == 0o600
        assert [parent.stat().st_mode & 0o777 for parent in path.parents[:2]] == [0o700, 0o700]
        forget_engine(path)
        assert read_records(directory) == Records()
        forget_engine(path)

    def test_no_directory_means_no_engines(self, directory: Path) -> None:
        assert read_records(directory) == Records()

    def test_no_port(self, directory: Path, child: Identity) -> None:
        record_engine(directory, record(child, port=None))
        assert read_records(directory).engines[0].port is None


class TestStale:
    def test_one_whose_engine_has_ended_is_removed(self, directory: Path, child: Identity) -> None:
        path = record_engine(directory, record(gone()))
        record_engine(directory, record(child))
        assert not path.exists(), "writing removes it too"
        path = record_engine(directory, record(gone()))
        assert [one.main for one in read_records(directory).engines] == [child]
        assert not path.exists()

    def test_a_pid_that_another_process_has_now_is_stale(self, directory: Path, child: Identity) -> None:
        path = record_engine(directory, record(replace(child, start=(child.start or 0) - 1)))
        assert read_records(directory) == Records()
        assert not path.exists()

    def test_a_zombie_has_ended(self, directory: Path, until: Any) -> None:
        """Nobody reaps the orphans of a killed shim in a container whose pid 1 does not."""
        process = subprocess.Popen(["sleep", "600"])
        found = Procfs().read(process.pid)
        assert found is not None
        path = record_engine(directory, record(Identity(this_place(), process.pid, found.id.start)))
        process.kill()
        until(lambda: Procfs().stat(process.pid) is None, what="its exit")
        assert Procfs().stat(process.pid, zombies=True) is not None
        assert read_records(directory) == Records()
        assert not path.exists()
        process.wait()

    def test_one_whose_shim_still_ends_workers_is_kept(self, directory: Path, child: Identity) -> None:
        record_engine(directory, record(gone(), shim=child))
        assert len(read_records(directory).engines) == 1

    def test_one_of_another_place_is_kept_and_not_believed(self, directory: Path, child: Identity) -> None:
        path = record_engine(directory, record(replace(child, place=ELSEWHERE)))
        assert read_records(directory) == Records()
        assert path.exists()
        month = 31 * 86400
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - month))
        assert read_records(directory) == Records()
        assert not path.exists()


class TestForged:
    """Whatever others could have written is ignored, and said to be."""

    def warning(self, directory: Path) -> str:
        found = read_records(directory)
        assert found.engines == ()
        assert len(found.warnings) == 1
        return found.warnings[0]

    @pytest.mark.parametrize("mode", [0o644, 0o660, 0o602, 0o604])
    def test_mode(self, directory: Path, child: Identity, mode: int) -> None:
        path = record_engine(directory, record(child))
        path.chmod(mode)
        assert self.warning(directory) == f"ignoring {path}: it is open to other users"

    @pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
    def test_mode_of_the_directory(self, directory: Path, child: Identity, mode: int) -> None:
        record_engine(directory, record(child))
        directory.chmod(mode)
        assert "must belong to this user and have mode 0700" in self.warning(directory)
        with pytest.raises(PermissionError):
            record_engine(directory, record(child))

    def test_a_link(self, directory: Path, child: Identity, tmp_path: Path) -> None:
        path = record_engine(directory, record(child))
        path.rename(tmp_path / "real.json")
        path.symlink_to(tmp_path / "real.json")
        assert "cannot be opened" in self.warning(directory)

    def test_a_link_for_the_directory(self, directory: Path, child: Identity, tmp_path: Path) -> None:
        record_engine(directory, record(child))
        directory.rename(tmp_path / "real")
        directory.symlink_to(tmp_path / "real")
        assert "ignoring" in self.warning(directory)

    def test_a_fifo_does_not_hold_it_up(self, directory: Path, child: Identity) -> None:
        record_engine(directory, record(child)).unlink()
        os.mkfifo(directory / "x.json", 0o600)
        assert "not a regular file" in self.warning(directory)

    @pytest.mark.parametrize(
        "content",
        ["", "{", "[]", "null", "{}", "[" * 60_000, '{"v": 1, "engine": 5, "port": 1, "main": "1 2 h", "shim": null}',
         '{"v": 1, "engine": "x", "port": "y", "main": "1 2 h", "shim": null}',
         '{"v": 1, "engine": "x", "port": 1, "main": "one", "shim": null}',
         '{"v": 1, "engine": "x", "port": 1e999, "main": "1 2 h", "shim": null}',
         '{"v": 2, "engine": "x", "port": 1, "main": "1 2 h", "shim": null}'],
    )  # fmt: skip
    def test_content(self, directory: Path, child: Identity, content: str) -> None:
        path = record_engine(directory, record(child))
        path.write_text(content)
        assert self.warning(directory) == f"ignoring {path}: it is not a record of an engine"

    def test_a_few_warnings_stand_for_many(self, directory: Path, child: Identity) -> None:
        record_engine(directory, record(child)).unlink()
        for number in range(50):
            (directory / f"{number}.json").touch(0o600)
        assert len(read_records(directory).warnings) == 3

    @as_root
    def test_another_users_file(self, directory: Path, child: Identity) -> None:
        path = record_engine(directory, record(child))
        os.chown(path, 65534, 65534)
        assert self.warning(directory) == f"ignoring {path}: it belongs to uid 65534"

    @as_root
    def test_another_users_directory(self, directory: Path, child: Identity) -> None:
        record_engine(directory, record(child))
        os.chown(directory, 65534, 65534)
        assert "must belong to this user" in self.warning(directory)


def process(pid: int, parent: int, start: int = 5) -> Process:
    return Process(ProcessId(pid, start), parent, 1000, None, ("x",))


@pytest.mark.parametrize(
    ("known", "found"),
    [
        ({ProcessId(12, 5): "mlx_lm"}, {12: "mlx_lm"}),
        ({ProcessId(11, 5): "mlx_lm"}, {12: "mlx_lm"}),
        ({ProcessId(10, 5): "mlx_lm"}, {12: "mlx_lm"}),
        ({ProcessId(12, 4): "mlx_lm"}, {}),
        ({ProcessId(13, 5): "mlx_lm"}, {}),
        ({ProcessId(20, 5): "mlx_lm"}, {}),
    ],
    ids=["itself", "its parent", "its shim", "pid reused", "its child", "a stranger"],
)
def test_a_holder_is_the_engines_if_it_descends_from_it(known: dict[ProcessId, str], found: dict[int, str]) -> None:
    table = [process(10, 1), process(11, 10), process(12, 11), process(13, 12), process(20, 1)]
    holders = [Holder(Listener(Address(bytes(4)), 8000, 7, 1000), (table[2],))]
    assert started_engines(holders, known, {one.id.pid: one for one in table}) == found


def test_a_holder_whose_pid_changed_hands_after_the_table_was_read_is_not_looked_up() -> None:
    holders = [Holder(Listener(Address(bytes(4)), 8000, 7, 1000), (process(12, 11, start=9),))]
    assert started_engines(holders, {ProcessId(12, 5): "mlx_lm"}, {12: process(12, 11)}) == {}


SIM = "import sys; from garrison.sim.command import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.system
class TestSimulators:
    """Simulators under another name: nothing in their command line tells what they are."""

    @pytest.fixture
    def engine(self, stage: Any, port: int, polled: Any, is_listening: Any) -> Identity:
        child = stage.start([sys.executable, "-c", SIM, "--model", "x", "--port", str(port)], stderr=subprocess.DEVNULL)
        polled(lambda: is_listening(port) or child.poll() is not None, "the simulator listens")
        found = Procfs().read(child.pid)
        assert found is not None
        return Identity(this_place(), child.pid, found.id.start)

    def check(self, port: int, directory: Path | None, policy: PortPolicy = RECLAIM) -> PreflightReport:
        request = PreflightRequest(
            host="127.0.0.1", port=port, skip_gpu=True, lockfile=Path("/x"), records=directory, stop_timeout=10
        )
        self.said: list[str] = []
        return check(request, policy, say=self.said.append)

    def test_a_recorded_one_is_the_users_own(self, engine: Identity, port: int, directory: Path, is_gone: Any) -> None:
        record_engine(directory, record(engine, port=port))
        with pytest.raises(PortForeignError, match="held by your llama_cpp, which was not stopped"):
            self.check(port, directory, REFUSE)
        dry = self.check(port, directory, replace(RECLAIM, dry_run=True))
        assert (dry.port_action, dry.would_stop_roots, dry.held_by) == ("would-stop", (engine.pid,), "llama_cpp")
        assert not is_gone(engine.pid)
        assert self.check(port, directory).reclaimed_roots == (engine.pid,)
        assert is_gone(engine.pid)

    def test_one_that_is_not_recorded_stays_foreign(
        self, engine: Identity, port: int, directory: Path, is_gone: Any
    ) -> None:
        with pytest.raises(PortForeignError, match="not vLLM and was not started by Garrison"):
            self.check(port, directory)
        assert not is_gone(engine.pid)

    def test_the_contract_of_vllm_preflight_knows_no_records(
        self, engine: Identity, port: int, directory: Path, is_gone: Any
    ) -> None:
        record_engine(directory, record(engine, port=port))
        with pytest.raises(PortForeignError, match="a process that is not vLLM: "):
            self.check(port, None)
        assert not is_gone(engine.pid)

    def test_a_record_of_an_earlier_process_with_this_pid_is_stale(
        self, engine: Identity, port: int, directory: Path, is_gone: Any
    ) -> None:
        path = record_engine(directory, record(replace(engine, start=(engine.start or 0) - 1), port=port))
        with pytest.raises(PortForeignError):
            self.check(port, directory)
        assert not is_gone(engine.pid)
        assert not path.exists()

    def test_a_forged_record_is_ignored_and_named(
        self, engine: Identity, port: int, directory: Path, is_gone: Any
    ) -> None:
        path = record_engine(directory, record(engine, port=port))
        path.chmod(0o666)
        with pytest.raises(PortForeignError):
            self.check(port, directory)
        assert self.said == [f"warning: ignoring {path}: it is open to other users"]
        assert not is_gone(engine.pid)

    @as_root
    def test_what_another_user_recorded_is_not_believed(
        self, engine: Identity, port: int, directory: Path, is_gone: Any
    ) -> None:
        path = record_engine(directory, record(engine, port=port))
        for owned in (path, directory):
            os.chown(owned, 65534, 65534)
        with pytest.raises(PortForeignError):
            self.check(port, directory)
        assert not is_gone(engine.pid)

    @as_root
    def test_a_record_makes_no_other_users_process_the_users_own(
        self, stage: Any, port: int, directory: Path, is_gone: Any
    ) -> None:
        pid = stage.serve(stage.plain, port, user="nobody")
        found = Procfs().read(pid)
        assert found is not None
        record_engine(directory, record(Identity(this_place(), pid, found.id.start), port=port))
        with pytest.raises(PortOtherUserError):
            self.check(port, directory)
        assert not is_gone(pid)


def test_a_record_is_small(directory: Path, child: Identity) -> None:
    path = record_engine(directory, record(child, shim=child))
    assert json.loads(path.read_text())["engine"] == "llama_cpp"
    assert path.stat().st_size < 1024
