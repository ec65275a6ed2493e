"""The server as a process: it can be killed, ended and upgraded while its instances serve."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from server_lab import Labs, ServerLab, chat_body, lines_of, wait_for

import garrison
from garrison.launch.run.detached import read_status

pytestmark = pytest.mark.system

SLOW = {"tokens_per_second": 10}


def engines(lab: ServerLab) -> list[int]:
    """Processes of simulators that belong to a lab."""
    found = []
    for one in psutil.process_iter(["cmdline", "environ"]):
        line = one.info["cmdline"] or []
        if "garrison.sim" in line and (one.info["environ"] or {}).get("GARRISON_DATA_DIR") == str(lab.data_dir):
            found.append(one.pid)
    return found


def test_a_request_starts_an_instance_and_idleness_stops_it(lab: ServerLab, tiny_model: Path) -> None:
    made = lab.create("a", tiny_model)
    assert (made["status"], made["state"]) == ("stopped", "stopped")
    answer = lab.chat("a")
    assert answer.is_success, answer.text
    assert answer.json()["choices"]
    wait_for(lambda: lab.instance("a")["requests"] == 0, 2, "its end was counted")
    running = lab.instance("a")
    assert (running["status"], running["state"]) == ("running", "running")
    assert running["costs"]["start_seconds"] > 0
    assert psutil.pid_exists(running["pid"])
    lab.api("PATCH", "/instances/a", {"idle_timeout": 0.01})
    assert lab.instance("a")["pid"] == running["pid"], "an option of the manager's does not restart the engine"
    assert lab.chat("a").is_success
    wait_for(lambda: lab.instance("a")["state"] == "stopped", 20, "stopped when idle")
    assert "no request for" in lab.instance("a")["reason"]
    assert not engines(lab)


def test_a_killed_server_leaves_its_engines_and_the_next_adopts_them(lab: ServerLab, tiny_model: Path) -> None:
    lab.create("a", tiny_model, backend_options=SLOW)
    lab.api("POST", "/instances/a/start")
    wait_for(lambda: lab.instance("a")["state"] == "running", 30, "running")
    pid = lab.instance("a")["pid"]
    with lab.http.stream("POST", "/v1/chat/completions", json=chat_body("a", 200, stream=True)) as answer:
        lines = lines_of(answer)
        assert next(lines).startswith("data: ")
        lab.kill()
        assert list(lines)[-1] == "data: [DONE]", "no stream is cut by the end of the server"
    assert engines(lab) == [pid]
    lab.start()
    began = time.monotonic()
    wait_for(lambda: lab.instance("a")["state"] == "running", 2, "adopted within 2 s of being ready")
    assert time.monotonic() - began < 2
    after = lab.instance("a")
    assert (after["pid"], after["reason"]) == (pid, "adopted")
    assert lab.chat("a").is_success
    assert engines(lab) == [pid], "no duplicate"
    lab.api("POST", "/instances/a/stop")
    assert not engines(lab), "no orphan"


def test_a_server_killed_during_a_start_leaves_it_to_the_next(lab: ServerLab, tiny_model: Path) -> None:
    lab.create("slow", tiny_model, backend_options={"startup_delay": 20})
    lab.create("other", tiny_model)
    lab.api("POST", "/instances/slow/start")
    wait_for(lambda: engines(lab), 20, "its process")
    pids = engines(lab)
    lab.kill()
    lab.start()
    assert lab.instance("slow")["state"] == "starting", "the server is ready before it"
    assert lab.chat("other").is_success
    assert lab.chat("slow").is_success, "joins the start that was found"
    after = lab.instance("slow")
    assert (after["state"], after["reason"], [after["pid"]]) == ("running", "adopted", pids)
    lab.kill()
    lab.start()
    lab.api("POST", "/instances/slow/restart")
    wait_for(lambda: engines(lab) and pids[0] not in engines(lab), 20, "the next process")
    lab.kill()
    lab.start()
    lab.api("POST", "/instances/slow/stop")
    assert lab.instance("slow")["state"] == "stopped"
    assert lab.api("POST", "/instances/other/stop")
    assert not engines(lab), "a start that was taken over is ended as any other"


def test_sigterm_leaves_instances_and_down_all_stops_them(lab: ServerLab, tiny_model: Path) -> None:
    lab.create("a", tiny_model)
    assert lab.chat("a").is_success
    pid = lab.instance("a")["pid"]
    assert lab.end() == 0
    assert engines(lab) == [pid]
    assert not (lab.data_dir / "server.sock").exists()
    lab.start()
    assert lab.instance("a")["pid"] == pid
    done = command(lab, "down", "--all")
    assert done.returncode == 0, done.stderr
    assert "its instances ended" in done.stdout
    assert not engines(lab)
    assert command(lab, "down").stdout == "no server runs\n"


def test_a_stream_in_progress_ends_before_the_server_does(lab: ServerLab, tiny_model: Path) -> None:
    lab.create("a", tiny_model, backend_options={"tokens_per_second": 20})
    assert lab.chat("a", most=1).is_success
    lines: list[str] = []

    def read() -> None:
        with lab.http.stream("POST", "/v1/chat/completions", json=chat_body("a", 30, stream=True)) as answer:
            lines.extend(lines_of(answer))

    reader = threading.Thread(target=read)
    reader.start()
    wait_for(lambda: lab.instance("a")["requests"] == 1, 10, "streaming")
    assert lab.end() == 0
    reader.join(10)
    assert lines[-1] == "data: [DONE]"


def test_one_server_a_data_directory(lab: ServerLab) -> None:
    second = command(lab, "up", "--port", str(lab.port + 1))
    assert second.returncode == 33
    assert "a server runs on" in second.stderr
    assert lab.is_ready()


def test_a_port_that_is_taken(lab: ServerLab, labs: Labs) -> None:
    other = labs(server_port=str(lab.port))
    done = command(other, "up")
    assert done.returncode == 2
    assert f"port {lab.port} of 127.0.0.1 is taken" in done.stderr


def test_killed_shims_and_engines(lab: ServerLab, tiny_model: Path) -> None:
    lab.create("a", tiny_model, restart_delay=0)
    assert lab.chat("a").is_success
    status = read_status(lab.data_dir / "instances" / "a")
    assert status is not None
    assert status.shim is not None
    assert status.main is not None
    os.kill(status.shim.pid, signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(status.main.pid), 20, "its engine ended with it")
    assert lab.chat("a").is_success
    assert len(engines(lab)) == 1
    os.kill(lab.instance("a")["pid"], signal.SIGKILL)
    wait_for(lambda: lab.instance("a")["state"] == "running" and lab.chat("a").is_success, 30, "restarted")
    assert len(engines(lab)) == 1


def test_what_was_wanted_is_started_again_after_a_reboot(lab: ServerLab, tiny_model: Path) -> None:
    lab.create("a", tiny_model)
    lab.create("b", tiny_model)
    lab.api("POST", "/instances/a/start")
    wait_for(lambda: lab.instance("a")["state"] == "running", 30, "running")
    lab.kill()
    for pid in engines(lab):
        os.kill(pid, signal.SIGKILL)
    lab.start()
    wait_for(lambda: lab.instance("a")["state"] == "running", 30, "running again")
    assert lab.instance("b")["state"] == "stopped"


def test_logs_are_streamed_as_they_are_written(lab: ServerLab, tiny_model: Path) -> None:
    lab.create("a", tiny_model)
    seen: list[str] = []
    with lab.http.stream("GET", "/api/v1/instances/a/logs/stream") as answer:
        assert lab.chat("a").is_success
        for line in lines_of(answer):
            seen.append(line)
            if "startup complete" in line:
                break
    assert any(line.startswith("event: line") for line in seen)
    whole = lab.http.get("/api/v1/instances/a/logs", params={"lines": 3}).text
    assert 1 <= whole.count("\n") <= 3


def test_events_can_be_resumed(lab: ServerLab, tiny_model: Path) -> None:
    with lab.http.stream("GET", "/api/v1/events") as answer:
        lines = lines_of(answer)
        first = next(lines)
        assert first.startswith("id: ")
        assert next(lines) == "event: snapshot"
    lab.create("a", tiny_model)
    last = first.removeprefix("id: ")
    with lab.http.stream("GET", "/api/v1/events", headers={"Last-Event-ID": last}) as answer:
        assert list(zip(lines_of(answer), range(2), strict=False))[1][0] == "event: instance_created"


def command(lab: ServerLab, *arguments: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "garrison.cli.main", *arguments]
    return subprocess.run(argv, env=lab.environ, capture_output=True, text=True, timeout=60, check=False)


def test_an_upgrade_keeps_all_engines(lab: ServerLab, tiny_model: Path, tmp_path: Path) -> None:
    lab.create("a", tiny_model)
    lab.create("b", tiny_model)
    for name in "ab":
        answer = lab.chat(name)
        assert answer.is_success, answer.text
    before = {name: lab.instance(name)["pid"] for name in "ab"}
    assert lab.end() == 0
    package = Path(garrison.__file__).parent
    shutil.copytree(package, tmp_path / "new" / "garrison", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "new" / "garrison" / "__init__.py").write_text('__version__ = "99.0"\n')
    lab.environ["PYTHONPATH"] = str(tmp_path / "new")
    lab.start()
    assert "99.0" in lab.api("GET", "/version")
    assert {name: lab.instance(name)["pid"] for name in "ab"} == before
    assert lab.chat("a").is_success
    lab.api("POST", "/instances/a/stop")
    assert engines(lab) == [before["b"]], "the new version stops what the old one started"
