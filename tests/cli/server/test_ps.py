"""One list of instances and of what `garrison serve` runs."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server_lab import ServerLab, wait_for
from tests_environment import environment

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerLab]:
    root = tmp_path_factory.mktemp("lab")
    made = ServerLab(root, environment(root))
    yield made
    made.close()


@pytest.fixture
def here(cli: Any, lab: ServerLab, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in lab.environ.items():
        if name.startswith("GARRISON_"):
            monkeypatch.setenv(name, value)
    return cli


Serve = Callable[..., tuple[int, "subprocess.Popen[bytes]"]]


@pytest.fixture
def serve(lab: ServerLab, tiny_model: Path, tmp_path: Path, until: Any) -> Iterator[Serve]:
    """`serve()`: a `garrison serve` that is ready: its port and its process."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*more: str) -> tuple[int, "subprocess.Popen[bytes]"]:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        out = tmp_path / f"serve{len(started)}"
        argv = [
            sys.executable,
            "-m",
            "garrison.cli.main",
            "serve",
            str(tiny_model),
            "-e",
            "sim",
            "-p",
            str(port),
            *more,
        ]
        variables = {
            "GARRISON_SKIP_GPU_CHECK": "1", "GARRISON_STOP_TIMEOUT": "5",
            "GARRISON_PREFLIGHT_LOCKFILE": str(tmp_path / "{port}.lock"),
        }  # fmt: skip
        with out.open("wb") as stream:
            process = subprocess.Popen(
                argv, env=lab.environ | variables, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )
        started.append(process)
        until(lambda: "startup complete" in out.read_text(), seconds=60, what=f"ready: {out.read_text()}")
        return port, process

    yield start
    for one in started:
        if one.poll() is None:
            one.send_signal(signal.SIGINT)
            one.wait(30)


def rows(here: Any) -> dict[str, dict[str, Any]]:
    done = here("ps", "--json")
    assert done.code == 0, done.err
    return {one["name"]: one for one in json.loads(done.out)["runs"]}


def test_one_list(here: Any, lab: ServerLab, serve: Serve, tiny_model: Path, until: Any) -> None:
    port, process = serve()
    name = f"sim-{port}"
    served = rows(here)
    assert set(served) == {name}, "no server ran here yet, and its database is not made"
    assert not (lab.data_dir / "garrison.db").exists()
    lab.start()
    lab.create("a", tiny_model)
    assert lab.chat("a").is_success
    wait_for(lambda: rows(here)["a"]["requests"] == 0, 10, "its end was counted")
    both = rows(here)
    assert set(both) == {"a", name}, "the engine of an instance is no `garrison serve`"
    assert (both["a"]["kind"], both["a"]["state"]) == ("instance", "running")
    assert (both[name]["kind"], both[name]["engine"], both[name]["port"]) == ("serve", "sim", port)
    assert both[name]["memory_bytes"] > 10 * 2**20
    assert both[name]["since"] is not None
    table = here("ps").out.splitlines()
    assert table[0].split() == ["name", "kind", "state", "since", "engine", "model", "port", "memory"]
    assert len(table) == 3

    for what in ("a", name, str(port), str(both[name]["pid"])):
        done = here("logs", what, "-n", "1")
        assert (done.code, done.out) == (0, "INFO:     Application startup complete.\n"), done
    assert here("logs", "nothing").code == 1

    lab.kill()
    left = rows(here)
    assert (left["a"]["state"], left["a"]["pid"]) == ("running", both["a"]["pid"])
    assert "as it left them" in here("ps").err
    assert here("logs", "a", "-n", "1").out == "INFO:     Application startup complete.\n"
    stopped = here("stop", "a")
    assert (stopped.code, stopped.out) == (0, "stopped a\n")
    assert (rows(here)["a"]["state"], rows(here)["a"]["pid"]) == ("stopped", None)
    assert here("stop", "a").out == "a does not run\n"

    lab.start()
    assert lab.instance("a")["state"] == "stopped", "the next server does not resume it"
    assert lab.chat("a").is_success
    assert here("stop", "a").out == "a is stopped: stopped by a command\n"
    done = here("stop", str(port))
    assert (done.code, done.out) == (0, f"stopped {name}, pid {both[name]['pid']}\n")
    assert process.wait(10) == 0, "as Ctrl-C ends it"
    assert set(rows(here)) == {"a"}
    assert here("stop", str(port)).code == 1


def test_an_engine_that_replaced_its_command(here: Any, serve: Serve) -> None:
    port, process = serve("--exec")
    found = rows(here)[f"sim-{port}"]
    assert found["pid"] == process.pid
    done = here("logs", str(port))
    assert done.code == 1
    assert "--exec" in done.err
    done = here("stop", f"sim-{port}")
    assert done.code == 0, done.err
    assert process.wait(10) is not None


def test_a_followed_log_ends_with_its_engine(
    here: Any, lab: ServerLab, serve: Serve, tmp_path: Path, until: Any
) -> None:
    port, process = serve()
    out = tmp_path / "log"
    argv = [sys.executable, "-m", "garrison.cli.main", "logs", str(port), "-f"]
    with out.open("wb") as stream:
        follower = subprocess.Popen(argv, env=lab.environ, stdout=stream, stderr=stream)
    until(lambda: "startup complete" in out.read_text(), what="the last lines")
    assert here("stop", str(port)).code == 0
    assert follower.wait(20) == 0
    assert "Finished server process" in out.read_text()
    assert process.wait(10) == 0


def test_down_ends_what_a_killed_server_left(here: Any, lab: ServerLab, tiny_model: Path) -> None:
    if lab.process is None or lab.process.poll() is not None:
        lab.start()
    for name in ("kept", "idle"):
        lab.create(name, tiny_model)
    lab.api("POST", "/instances/kept/start")
    wait_for(lambda: lab.instance("kept")["state"] == "running", 20, "it runs")
    pid = rows(here)["kept"]["pid"]
    lab.kill()
    assert lab.workers(), "the gateway goes on"
    assert here("down").out == "no server runs\nended the gateway that the last one left\n"
    assert not lab.workers()
    assert rows(here)["kept"]["pid"] == pid, "without --all the engines go on"
    assert here("down", "--all").out == "no server runs\nstopped what the last one left: kept\n"
    assert rows(here)["kept"]["pid"] is None
    assert here("down", "--all").out == "no server runs\n"
    lab.start()
    wait_for(lambda: lab.instance("kept")["state"] == "running", 20, "what a command started is resumed")
    assert here("down", "--all").out == "the server and its instances ended\n"
    assert lab.process is not None
    assert lab.process.wait(10) == 0


def test_down_beside_a_server_that_does_not_answer(here: Any, lab: ServerLab) -> None:
    if lab.process is None or lab.process.poll() is not None:
        lab.start()
    assert lab.process is not None
    lab.process.send_signal(signal.SIGSTOP)
    try:
        done = here("down", "--all")
        assert done.code == 31, done
        assert f"the server, pid {lab.process.pid}, does not answer" in done.err
    finally:
        lab.process.send_signal(signal.SIGCONT)
