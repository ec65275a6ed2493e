"""`garrison serve` as the parent of an engine, with real processes: the engine is a program that these tests write."""

import json
import os
import signal
import socket
from pathlib import Path

import pytest
from garrison_serve import Start, alive

pytestmark = pytest.mark.system

PHASES = [
    "INFO 11-20 Starting to load model /models/tiny...",
    "INFO 11-20 Loading weights took 1.25 seconds",
    "INFO 11-20 Starting torch.compile",
]


class TestStop:
    def test_sigterm_after_ready(self, start: Start) -> None:
        garrison = start()
        garrison.ready()
        garrison.process.terminate()
        assert garrison.end() == 0
        assert garrison.left() == []
        assert "stopping (SIGTERM)" in garrison.text
        assert "no process left" in garrison.text

    def test_sigint_after_ready(self, start: Start) -> None:
        garrison = start()
        garrison.ready()
        garrison.process.send_signal(signal.SIGINT)
        assert garrison.end() == 0
        assert garrison.left() == []

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_before_ready(self, start: Start, number: signal.Signals) -> None:
        garrison = start({"waits": True})
        garrison.engine_pid()
        garrison.process.send_signal(number)
        assert garrison.end() == 128 + number
        assert garrison.left() == []

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_before_there_is_an_engine(self, start: Start, tmp_path: Path, number: signal.Signals) -> None:
        """While the engine is asked for its version, as while a model is fetched."""
        slow = tmp_path / "slow"
        slow.write_text('#!/bin/sh\necho $$ > "$0.part"; mv "$0.part" "$0.pid"; exec sleep 60\n')
        slow.chmod(0o755)
        garrison = start(None, "--executable", str(slow))
        garrison.until((tmp_path / "slow.pid").exists, what="the question for a version")
        garrison.process.send_signal(number)
        assert garrison.end() == 128 + number
        assert ("interrupted" if number == signal.SIGINT else f"stopped ({number.name})") in garrison.text
        assert not alive(int((tmp_path / "slow.pid").read_text()))

    @pytest.mark.parametrize("kind", ["polite", "stubborn", "setsid", "orphan"])
    def test_no_descendant_is_left(self, start: Start, kind: str) -> None:
        garrison = start({"children": [kind, kind]})
        garrison.ready()
        assert len(garrison.left()) == 3
        garrison.process.terminate()
        assert garrison.end() == 0
        assert garrison.left() == []
        assert "no process left" in garrison.text

    def test_an_engine_that_ignores_sigterm_is_killed_within_the_timeout(self, start: Start) -> None:
        garrison = start({"stubborn": True, "children": ["stubborn"]})
        garrison.ready()
        garrison.process.terminate()
        assert garrison.end(10) == 0
        assert garrison.left() == []

    def test_a_second_ctrl_c_kills_at_once(self, start: Start) -> None:
        garrison = start({"stubborn": True, "children": ["setsid"]}, variables={"GARRISON_STOP_TIMEOUT": "600"})
        garrison.ready()
        garrison.process.send_signal(signal.SIGINT)
        garrison.until(lambda: "stopping" in garrison.text)
        assert garrison.process.poll() is None
        garrison.process.send_signal(signal.SIGINT)
        assert garrison.end(15) == 0
        assert garrison.left() == []
        assert "killing the engine now" in garrison.text

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_second_signal_during_the_start_kills_at_once(self, start: Start, number: signal.Signals) -> None:
        plan = {"waits": True, "stubborn": True, "children": ["setsid"]}
        garrison = start(plan, variables={"GARRISON_STOP_TIMEOUT": "600"})
        garrison.engine_pid()
        garrison.process.send_signal(number)
        garrison.until(lambda: f"stopping ({number.name})" in garrison.text)
        garrison.process.send_signal(number)
        assert garrison.end(15) == 128 + number
        assert garrison.left() == []
        assert "no process left" in garrison.text

    def test_kill_9_of_garrison_takes_the_engine_with_it(self, start: Start) -> None:
        garrison = start()
        garrison.ready()
        garrison.process.kill()
        garrison.end()
        garrison.until(lambda: garrison.left() == [], what="the engine's end")

    def test_children_that_were_there_before_stay(self, start: Start) -> None:
        """What a wrapper script started before it exec'd Garrison is a child of Garrison, and not the engine's."""
        garrison = start(wrapper='sleep 600 & echo $! > "$0"; exec "$@"')
        garrison.ready()
        garrison.process.terminate()
        assert garrison.end() == 0
        assert garrison.left() == [int((garrison.record / "wrapper.pid").read_text())]


class TestDeath:
    def test_exit_before_ready(self, start: Start) -> None:
        garrison = start({"exit": 3, "lines": ["one", "two"], "last": "ValueError: odd\n"}, "--no-logs")
        assert garrison.end() == 21
        assert "vLLM exited with 3 before it was ready" in garrison.text
        assert "last lines of the engine's log:" in garrison.text
        assert "│ ValueError: odd" in garrison.text
        assert garrison.left() == []

    def test_the_very_last_lines_are_in_the_tail(self, start: Start) -> None:
        """The process is seen to end before its output has been read: the output is waited for."""
        last = "".join(f"{number:07d} {'x' * 90}\n" for number in range(600))
        garrison = start({"exit": 3, "last": last}, "--no-logs")
        assert garrison.end() == 21
        assert "│ 0000599 xxx" in garrison.text

    def test_what_was_shown_is_not_shown_again(self, start: Start) -> None:
        garrison = start({"exit": 3, "last": "ValueError: odd\n"}, "--logs")
        assert garrison.end() == 21
        assert garrison.text.count("ValueError: odd") == 1

    def test_out_of_memory_is_diagnosed(self, start: Start) -> None:
        last = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n"
        garrison = start({"exit": 1, "last": last})
        assert garrison.end() == 21
        assert "gpu-memory-utilization" in garrison.text or "--max-model-len" in garrison.text

    def test_killed_before_ready(self, start: Start) -> None:
        garrison = start({"waits": True, "children": ["setsid"]})
        os.kill(garrison.engine_pid(), signal.SIGKILL)
        assert garrison.end() == 21
        assert "was killed by SIGKILL before it was ready" in garrison.text
        assert "stopping (its main process was killed by SIGKILL)" in garrison.text
        assert "did not start" not in garrison.text
        assert garrison.left() == []

    def test_death_while_serving(self, start: Start) -> None:
        garrison = start({"children": ["stubborn"]})
        garrison.ready()
        os.kill(garrison.engine_pid(), signal.SIGKILL)
        assert garrison.end() == 21
        assert "was killed by SIGKILL while it was serving" in garrison.text
        assert "stopping (its main process was killed by SIGKILL)" in garrison.text
        assert garrison.left() == []

    def test_a_program_that_cannot_be_executed(self, start: Start, tmp_path: Path) -> None:
        (tmp_path / "broken").write_text("#!/nonexistent/python\n")
        (tmp_path / "broken").chmod(0o755)
        garrison = start({}, "--executable", str(tmp_path / "broken"))
        assert garrison.end() == 20
        assert "garrison engine install vllm" in garrison.text or "cannot" in garrison.text


class TestPatience:
    def test_an_engine_that_hangs_silently(self, start: Start) -> None:
        garrison = start({"waits": True}, variables={"GARRISON_PROGRESS_WINDOW": "0.5"})
        assert garrison.end() == 22
        assert "vLLM wrote nothing and used no CPU for 0.5 s" in garrison.text
        assert garrison.left() == []

    def test_ready_timeout(self, start: Start) -> None:
        garrison = start({"waits": True}, "--ready-timeout", "0.5")
        assert garrison.end() == 22
        assert "vLLM was not ready within 0.5 s" in garrison.text
        assert "stopping (it did not become ready)" in garrison.text
        assert garrison.left() == []

    def test_loading_is_waited_for(self, start: Start) -> None:
        garrison = start({"loading": True})
        garrison.engine_pid()
        (garrison.record / "go").touch()
        garrison.ready()


class TestLock:
    def test_held_until_the_engine_listens_and_released_then(self, start: Start, tmp_path: Path) -> None:
        from garrison.base.errors import LockedError
        from garrison.base.locks import file_lock

        garrison = start({"waits": True})
        garrison.engine_pid()
        lock = tmp_path / f"{garrison.port}.lock"
        with pytest.raises(LockedError, match=str(garrison.process.pid)), file_lock(lock, timeout=0, purpose="x"):
            pass
        (garrison.record / "go").touch()
        garrison.ready()
        with file_lock(lock, timeout=0, purpose="x"):
            pass


class TestSignalsAndEnvironment:
    def test_sigusr1_is_passed_on(self, start: Start) -> None:
        garrison = start()
        garrison.ready()
        garrison.process.send_signal(signal.SIGUSR1)
        assert garrison.noted("usr1") == "1"
        assert garrison.process.poll() is None

    def test_environment_and_argv(self, start: Start, tiny_model: Path) -> None:
        variables = {"VLLM_PORT": "1", "VLLM_LOGGING_LEVEL": "DEBUG", "KEY": "sk-secret"}
        garrison = start(
            {}, "--api-key-env", "KEY", "--", "--max-model-len", "32k", "--seed", "-1", variables=variables
        )
        garrison.ready()
        argv, environ = json.loads(garrison.noted("argv")), json.loads(garrison.noted("environment"))
        assert argv[:2] == ["serve", str(tiny_model)]
        assert argv[-4:] == ["--max-model-len", "32k", "--seed", "-1"]
        assert environ["VLLM_LOGGING_LEVEL"] == "DEBUG"
        assert environ["VLLM_API_KEY"] == "sk-secret"
        assert "VLLM_PORT" not in environ
        assert "sk-secret" not in garrison.text
        assert "sk-secret" not in " ".join(argv)

    def test_no_zombies_gather_while_it_serves(self, start: Start) -> None:
        garrison = start({"children": ["orphan"]})
        garrison.ready()
        (orphan,) = [int(path.read_text()) for path in garrison.record.glob("child*.pid")]
        os.kill(orphan, signal.SIGKILL)
        garrison.until(lambda: not Path(f"/proc/{orphan}").exists(), what="the orphan's end")


class TestOutput:
    def test_phases_lines_and_how_to_call_it(self, start: Start) -> None:
        garrison = start({"lines": PHASES})
        garrison.ready()
        garrison.until(lambda: "try it:" in garrison.text)
        text = garrison.text
        for line in PHASES:
            assert f"{line}\n" in text
        assert "garrison: weights (after " in text
        assert "garrison: compile (after " in text
        assert f"OpenAI endpoint: http://127.0.0.1:{garrison.port}/v1" in text
        assert f"curl http://127.0.0.1:{garrison.port}/v1/chat/completions" in text
        assert text.index("weights (after") < text.index("compile (after") < text.index("ready after")
        assert "\x1b" not in text

    def test_output_that_nobody_reads_does_not_hold_it_up(self, start: Start, tmp_path: Path) -> None:
        """Standard error is a pipe without a reader: the engine is not held up in its log, and SIGTERM is heard."""
        fifo = tmp_path / "unread"
        os.mkfifo(fifo)
        unread = os.open(fifo, os.O_RDWR)
        try:
            plan = {"lines": ["x" * 200], "times": 30_000}
            garrison = start(plan, "--logs", wrapper=f"exec \"$@\" 2>'{fifo}'")
            garrison.noted("asked")
            log = garrison.home / "logs" / f"vllm-{garrison.port}.log"
            garrison.until(lambda: log.stat().st_size > 30_000 * 200, what="the whole log")
            garrison.process.send_signal(signal.SIGTERM)
            assert garrison.end() in (0, 143), "it may just have been asked, and not be known to be ready"
            assert garrison.left() == []
        finally:
            os.close(unread)

    def test_no_logs(self, start: Start) -> None:
        garrison = start({"lines": PHASES}, "--no-logs")
        garrison.ready()
        assert PHASES[0] not in garrison.text
        assert "garrison: weights (after " in garrison.text

    def test_log_file(self, start: Start) -> None:
        garrison = start({"lines": PHASES})
        garrison.ready()
        (log,) = (garrison.home / "logs").glob("*.log")
        assert log.name == f"vllm-{garrison.port}.log"
        assert log.read_text() == "".join(f"{line}\n" for line in PHASES)
        assert log.stat().st_mode & 0o777 == 0o600

    def test_dry_run_starts_nothing(self, start: Start, tiny_model: Path) -> None:
        garrison = start({}, "--dry-run", "--", "--max-model-len", "4096")
        assert garrison.end() == 0
        assert f"CMD: {garrison.out.parent}/vllm serve {tiny_model} " in garrison.text
        assert "--max-model-len 4096" in garrison.text
        assert not (garrison.record / "engine.pid").exists()

    def test_print_cmd_starts_it_too(self, start: Start) -> None:
        garrison = start({}, "--print-cmd", "--api-key-env", "KEY", variables={"KEY": "sk-secret"})
        garrison.ready()
        assert 'CMD: VLLM_API_KEY="$KEY" ' in garrison.text
        assert "sk-secret" not in garrison.text


class TestExec:
    def test_the_process_becomes_the_engine(self, start: Start) -> None:
        garrison = start({}, "--exec")
        assert garrison.engine_pid() == garrison.process.pid
        garrison.process.terminate()
        assert garrison.end() == -signal.SIGTERM

    def test_its_exit_code_is_the_engines(self, start: Start) -> None:
        assert start({"exit": 3}, "--exec").end() == 3

    def test_the_lock_ends_at_exec(self, start: Start, tmp_path: Path) -> None:
        from garrison.base.locks import file_lock

        garrison = start({}, "--exec")
        garrison.engine_pid()
        with file_lock(tmp_path / f"{garrison.port}.lock", timeout=0, purpose="x"):
            pass

    def test_environment(self, start: Start) -> None:
        garrison = start({}, "--exec", variables={"VLLM_PORT": "1", "VLLM_LOGGING_LEVEL": "DEBUG"})
        environ = json.loads(garrison.noted("environment"))
        assert environ["VLLM_LOGGING_LEVEL"] == "DEBUG"
        assert "VLLM_PORT" not in environ


class TestPort:
    def test_a_foreign_listener_ends_it_before_anything_is_done(self, start: Start) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            garrison = start({}, "--port", str(listener.getsockname()[1]))
            assert garrison.end() == 2
        assert not (garrison.record / "engine.pid").exists()

    def test_the_engines_own_port_argument_is_the_one_that_is_looked_at(self, start: Start) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            garrison = start({}, "--", "--port", str(listener.getsockname()[1]))
            assert garrison.end() == 2


class TestNobodyLooks:
    def test_a_reader_that_goes_away_stops_nothing(self, start: Start) -> None:
        """`garrison serve … | head`: the engine writes far more than a pipe holds, and is stopped in order after."""
        wrapper = '("$@" & echo $! > "$0"; wait) 2>&1 | head -c 3000'
        garrison = start({"lines": ["x" * 200], "times": 4000}, wrapper=wrapper)
        engine = garrison.engine_pid()
        garrison.until(lambda: _answers(garrison.port), what="the engine listens")
        served_by = int((garrison.record / "wrapper.pid").read_text())
        os.kill(served_by, signal.SIGTERM)
        garrison.until(lambda: not alive(served_by) and not alive(engine), what="both have ended")
        assert garrison.left() == []

    def test_nohup(self, start: Start) -> None:
        garrison = start(wrapper='trap "" HUP; exec "$@"')
        garrison.ready()
        garrison.process.send_signal(signal.SIGHUP)
        garrison.process.send_signal(signal.SIGUSR1)
        assert garrison.noted("usr1") == "1"
        assert "stopping" not in garrison.text
        garrison.process.terminate()
        assert garrison.end() == 0


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
