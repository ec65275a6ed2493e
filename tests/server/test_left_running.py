"""What a killed server left, ended by `garrison stop` and `garrison down --all`."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from server_lab import Labs, ServerLab

from garrison.launch.run.detached import ShimStatus, lives, read_status
from garrison.server.lock import ServerLock

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


@pytest.fixture
def lab(labs: Labs) -> ServerLab:
    made = labs(stop_timeout="1")
    made.start()
    return made


def status_of(lab: ServerLab, name: str) -> ShimStatus:
    found = read_status(lab.data_dir / "instances" / name)
    assert found is not None
    return found


def garrison(lab: ServerLab, *words: str) -> dict[str, Any]:
    argv = [sys.executable, "-m", "garrison.cli.main", *words, "--json"]
    ended = subprocess.run(
        argv, env=lab.environ, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False
    )
    found: dict[str, Any] = json.loads(ended.stdout)
    assert found["exit_code"] == ended.returncode
    return found


def test_an_engine_whose_shim_does_not_answer_is_stopped(lab: ServerLab, tiny_model: Path) -> None:
    lab.create("a", tiny_model)
    assert lab.chat("a").is_success
    status = status_of(lab, "a")
    assert status.shim is not None
    lab.kill()
    os.kill(status.shim.pid, signal.SIGSTOP)
    assert garrison(lab, "stop", "a")["stopped"] is True
    assert not lives(status.main)
    assert not lives(status.shim)


def test_what_is_stopped_after_its_engine_ended_is_not_started_by_the_next_server(
    lab: ServerLab, tiny_model: Path
) -> None:
    lab.create("a", tiny_model)
    lab.create("b", tiny_model)
    for name in ("a", "b"):
        lab.api("POST", f"/instances/{name}/start")
        assert lab.chat(name).is_success
    lab.kill()
    for name in ("a", "b"):
        status = status_of(lab, name)
        assert status.shim is not None
        assert status.main is not None
        os.kill(status.shim.pid, signal.SIGKILL)
        os.kill(status.main.pid, signal.SIGKILL)
    assert garrison(lab, "stop", "a")["stopped"] is False
    lab.start()
    assert lab.chat("b").is_success
    assert lab.instance("a")["state"] == "stopped"


def test_commands_that_stop_at_once_wait_for_each_other(lab: ServerLab, tiny_model: Path) -> None:
    for name in ("a", "b"):
        lab.create(name, tiny_model)
        assert lab.chat(name).is_success
    lab.kill()
    lock = ServerLock(lab.data_dir, briefly=True)
    argv = [sys.executable, "-m", "garrison.cli.main", "up"]
    up = subprocess.run(argv, env=lab.environ, capture_output=True, text=True, timeout=60, check=False)
    assert (up.returncode, "a command stops what runs" in up.stderr) == (33, True)
    with ThreadPoolExecutor() as pool:
        ends = [pool.submit(garrison, lab, "stop", name) for name in ("a", "b")]
        assert not wait(ends, timeout=3).done
        lock.release()
        assert [one.result()["stopped"] for one in ends] == [True, True]
