"""Nothing that serves is stopped unasked: `garrison serve` on a port that a server holds, with real processes."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from garrison_serve import Garrison, Start, alive

pytestmark = pytest.mark.system


def second(start: Start, first: Garrison, *arguments: str, **options: Any) -> Garrison:
    """A start on the port of `first`."""
    return start(options.pop("plan", {}), "--port", str(first.port), *arguments, **options)


def untouched(first: Garrison, engine: int) -> None:
    assert first.process.poll() is None, first.text
    assert alive(engine)
    assert "stopping" not in first.text


class TestRefused:
    @pytest.mark.parametrize("extra", [[], ["--exec"], ["--dry-run"]], ids=["parent", "exec", "dry run"])
    def test_a_server_that_serves_is_left_alone(self, start: Start, extra: list[str]) -> None:
        first = start()
        first.ready()
        engine = first.engine_pid()
        late = second(start, first, *extra)
        assert late.end() == 2
        assert "--replace" in late.text
        assert f"pid {engine}, model tiny, started 20" in late.text
        assert ", serving: " in late.text
        assert f"started by pid {first.process.pid}: " in late.text
        untouched(first, engine)
        assert not (late.record / "engine.pid").exists()

    @pytest.mark.parametrize("status", [401, 404, 500, 503])
    def test_any_answer_is_an_answer(self, start: Start, status: int) -> None:
        first = start({"status": status})
        engine = first.engine_pid()
        first.until(lambda: (first.record / "asked").exists(), what="it listens")
        late = second(start, first)
        assert late.end() == 2
        untouched(first, engine)

    def test_one_that_still_loads_is_left_alone(self, start: Start) -> None:
        """The port's lock is held until the engine listens, so this is said with 13."""
        first = start({"waits": True})
        engine = first.engine_pid()
        late = second(start, first)
        assert late.end() == 13
        untouched(first, engine)

    def test_its_log_stays_its_own(self, start: Start) -> None:
        first = start({"lines": ["line of the first"]})
        first.ready()
        logs = first.home / "logs"
        assert second(start, first).end() == 2
        assert {path.name for path in logs.iterdir()} == {f"vllm-{first.port}.log"}
        assert (logs / f"vllm-{first.port}.log").read_text() == "line of the first\n"

    def test_a_key_in_its_command_line_is_not_shown(self, start: Start) -> None:
        first = start({}, "--", "--api-key", "sk-very-secret")
        first.ready()
        late = second(start, first)
        assert late.end() == 2
        assert "sk-very-secret" not in late.text


class TestReplaced:
    def test_the_new_engine_takes_the_port_and_the_old_parent_says_who_took_it(self, start: Start) -> None:
        first = start({"lines": ["line of the first"]})
        first.ready()
        engine = first.engine_pid()
        late = second(start, first, "--replace", plan={"lines": ["line of the second"]})
        late.ready()
        assert not alive(engine)
        assert alive(late.engine_pid())
        assert first.end() == 21
        who = f"vLLM was stopped while it was serving by pid {late.process.pid} (user "
        assert who in first.text
        assert f"serve {late.process.args[4]} " in first.text
        assert "--replace" in first.text
        logs = first.home / "logs"
        old, new = logs / f"vllm-{first.port}.log", logs / f"vllm-{first.port}.2.log"
        assert old.read_text().splitlines()[0] == "line of the first"
        assert who in old.read_text()
        assert new.read_text() == "line of the second\n"
        assert f"this one writes to {new}" in late.text

    def test_exec(self, start: Start) -> None:
        first = start()
        first.ready()
        engine = first.engine_pid()
        late = second(start, first, "--replace", "--exec")
        assert late.engine_pid() == late.process.pid
        assert not alive(engine)
        assert first.end() == 21
        assert f"by pid {late.process.pid} " in first.text

    def test_a_wrapper_around_the_engine(self, start: Start, tmp_path: Path) -> None:
        """The note is about the processes that were signalled; their parent is somebody else's child."""
        wrapper = tmp_path / "wrapped"
        wrapper.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec {tmp_path}/vllm --version\n{tmp_path}/vllm "$@"\n')
        wrapper.chmod(0o755)
        first = start({}, "--executable", str(wrapper))
        first.ready()
        late = second(start, first, "--replace")
        late.ready()
        assert first.end() == 21
        assert f"by pid {late.process.pid} " in first.text

    def test_the_note_is_for_its_user_alone(self, start: Start) -> None:
        first = start()
        first.ready()
        second(start, first, "--replace").ready()
        (note,) = (first.home / "run").glob("*.json")
        assert note.stat().st_mode & 0o777 == 0o600
        assert note.parent.stat().st_mode & 0o777 == 0o700

    def test_an_engine_that_ends_by_itself_is_not_said_to_be_stopped(self, start: Start) -> None:
        first = start()
        first.ready()
        late = second(start, first, "--replace")
        late.ready()
        first.end()
        os.kill(late.engine_pid(), signal.SIGKILL)
        assert late.end() == 21
        assert "was killed by SIGKILL while it was serving" in late.text


class TestStuck:
    def test_one_that_neither_answers_nor_works_is_stopped_without_asking(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = start({"mute": True})
        engine = first.engine_pid()
        first.until(lambda: (first.record / "asked").exists(), what="it listens")
        # The lock of the first start is not let go: nothing has answered it.
        lock = {"GARRISON_PREFLIGHT_LOCKFILE": str(first.record / "another.lock")}
        late = second(start, first, variables=lock)
        late.until(lambda: not alive(engine) or late.process.poll() is not None, seconds=60, what="the stuck one's end")
        assert not alive(engine), late.text
        late.ready()
        assert "is stuck and will be stopped: pid" in late.text


class TestNothingIsStoppedInVain:
    """Whatever can fail is tried first: with --replace the server that holds the port lives on."""

    CASES: ClassVar = {
        "no such program": (["--executable", "/nonexistent/vllm"], {}, 20),
        "a program that is broken": (["--executable", "{tmp}/broken"], {}, 20),
        "a program that does not tell its version": (["--executable", "{tmp}/mute"], {}, 20),
        "no such adapter": (["--adapter", "sql=/nonexistent"], {}, 1),
        "a key that is not set": (["--api-key-env", "NO_SUCH_KEY"], {}, 1),
        "an argument the engine refuses": (["--", "--max-model-len"], {}, 1),
        "no such config file": (["--", "--config", "/nonexistent.yaml"], {}, 1),
        "a log that cannot be written": ([], {"GARRISON_DATA_DIR": "{tmp}/no-directory"}, 1),
        "a lock that cannot be had": ([], {"GARRISON_PREFLIGHT_LOCKFILE": "{tmp}/locked"}, 1),
    }

    @pytest.mark.parametrize(("words", "variables", "code"), CASES.values(), ids=CASES)
    def test_failure(
        self, start: Start, tmp_path: Path, words: list[str], variables: Mapping[str, str], code: int
    ) -> None:
        first = start()
        first.ready()
        engine = first.engine_pid()
        self.stage(tmp_path)
        filled = [word.replace("{tmp}", str(tmp_path)) for word in words]
        set_to = {name: value.replace("{tmp}", str(tmp_path)) for name, value in variables.items()}
        late = second(start, first, "--replace", *filled, variables=set_to)
        assert late.end(60) == code, late.text
        untouched(first, engine)

    def test_no_such_model(self, start: Start, tmp_path: Path, clean_environ: Mapping[str, str]) -> None:
        first = start()
        first.ready()
        engine = first.engine_pid()
        words = ["serve", "./nope", "--executable", str(tmp_path / "vllm"), "--port", str(first.port), "--replace"]
        done = subprocess.run(
            [sys.executable, "-m", "garrison.cli.main", *words],
            env={**clean_environ, "GARRISON_SKIP_GPU_CHECK": "1", "FAKE": json.dumps({"record": str(tmp_path)})},
            capture_output=True, timeout=60, cwd=tmp_path, check=False,
        )  # fmt: skip
        assert done.returncode == 10, done.stderr
        untouched(first, engine)

    def test_a_full_disk(self, start: Start, tmp_path: Path) -> None:
        """No room for the log: said before anything is stopped."""
        first = start()
        first.ready()
        engine = first.engine_pid()
        site = tmp_path / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(
            "import errno, os\n"
            "def full(*_):\n    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
            "os.posix_fallocate = full\n"
        )
        late = second(start, first, "--replace", variables={"PYTHONPATH": str(site)})
        assert late.end() == 14, late.text
        untouched(first, engine)

    def stage(self, tmp_path: Path) -> None:
        (tmp_path / "no-directory").touch()
        (tmp_path / "locked").mkdir()
        for name, text in {
            "broken": "#!/nonexistent/python\n",
            "mute": "#!/bin/sh\nexit 3\n",
        }.items():
            path = tmp_path / name
            path.write_text(text)
            path.chmod(0o755)


class TestAsked:
    """On a terminal somebody is asked."""

    def run(self, start: Start, tmp_path: Path, environ: Mapping[str, str], answer: bytes) -> tuple[Garrison, int, str]:
        first = start()
        first.ready()
        command = [sys.executable, "-m", "garrison.cli.main", "serve", str(first.process.args[4])]
        command += ["--executable", str(tmp_path / "vllm"), "--port", str(first.port), "--logs"]
        record = tmp_path / "asked"
        record.mkdir()
        env = {
            **environ,
            "GARRISON_SKIP_GPU_CHECK": "1",
            "GARRISON_PROCESS_SIGNATURES": str(tmp_path / "vllm"),
            "GARRISON_PREFLIGHT_LOCKFILE": str(tmp_path / "{port}.lock"),
            "FAKE": json.dumps({"record": str(record), "exit": 7, "lines": ["the new one runs"]}),
        }
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(command[0], command, env)
        seen, answered = b"", False
        try:
            while True:
                try:
                    piece = os.read(terminal, 4096)
                except OSError:
                    break
                if not piece:
                    break
                seen += piece
                if not answered and b"[y/N]" in seen:
                    answered = True
                    os.write(terminal, answer)
        finally:
            os.close(terminal)
            _, status = os.waitpid(pid, 0)
        return first, os.waitstatus_to_exitcode(status), seen.decode(errors="replace")

    @pytest.mark.parametrize("answer", [b"\n", b"n\n", b"\x04"], ids=["return", "no", "end of input"])
    def test_no(self, start: Start, tmp_path: Path, clean_environ: Mapping[str, str], answer: bytes) -> None:
        first, code, seen = self.run(start, tmp_path, clean_environ, answer)
        assert code == 2, seen
        assert seen.count("model tiny") == 1, "the description of the old server is not repeated"
        assert f"nothing was done: pid {first.engine_pid()} still holds port {first.port}" in seen
        untouched(first, first.engine_pid())

    def test_ctrl_c(self, start: Start, tmp_path: Path, clean_environ: Mapping[str, str]) -> None:
        first, code, seen = self.run(start, tmp_path, clean_environ, b"\x03")
        assert code == 130, seen
        assert seen.splitlines()[-1] == "interrupted", "on a line of its own"
        untouched(first, first.engine_pid())

    def test_yes(self, start: Start, tmp_path: Path, clean_environ: Mapping[str, str]) -> None:
        first, code, seen = self.run(start, tmp_path, clean_environ, b"y\n")
        assert code == 21, seen
        assert "the new one runs" in seen
        assert seen.count("[y/N]") == 1
        assert first.end() == 21


class TestNoPort:
    """An engine that takes no port has none reclaimed, and none looked at."""

    @pytest.mark.parametrize("word", ["--headless", "--headles"], ids=["whole", "beginning"])
    def test_headless(self, start: Start, word: str) -> None:
        first = start()
        first.ready()
        engine = first.engine_pid()
        late = second(
            start, first, "--replace", "--", word, plan={"waits": True}, variables={"GARRISON_PROGRESS_WINDOW": "1"}
        )
        late.until(lambda: "garrison: running after" in late.text or late.process.poll() is not None)
        assert late.process.poll() is None, late.text
        assert "headless" in late.text
        untouched(first, engine)
        late.process.terminate()
        assert late.end() == 0
        assert late.left() == []

    def test_headless_beside_a_foreign_listener(self, start: Start) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = str(listener.getsockname()[1])
            garrison = start({"waits": True}, "--port", port, "--", "--headless")
            garrison.until(lambda: "garrison: running after" in garrison.text)
            garrison.process.terminate()
            assert garrison.end() == 0

    def test_any_port(self, start: Start) -> None:
        """The system chooses: no port is reclaimed for it, and none is asked in its place."""
        first = start()
        first.ready()
        engine = first.engine_pid()
        late = second(start, first, "--replace", "--", "--port", "0", variables={"GARRISON_PROGRESS_WINDOW": "1"})
        late.until(lambda: "garrison: running after" in late.text or late.process.poll() is not None)
        assert late.process.poll() is None, late.text
        untouched(first, engine)

    def test_headless_that_dies_at_its_start(self, start: Start) -> None:
        garrison = start({"exit": 3}, "--", "--headless")
        assert garrison.end() == 21
        assert "vLLM exited with 3 at its start" in garrison.text

    def test_uds(self, start: Start, tmp_path: Path) -> None:
        first = start()
        first.ready()
        engine = first.engine_pid()
        path = tmp_path / "v.sock"
        late = second(start, first, "--engine", "sim", "--", "--uds", str(path))
        late.ready()
        late.until(lambda: "curl --unix-socket" in late.text)
        assert f"unix:{path}" in late.text
        untouched(first, engine)

    def test_a_socket_on_which_a_server_listens(self, start: Start, tmp_path: Path) -> None:
        """The other server would answer, and the new engine die."""
        path = tmp_path / "v.sock"
        first = start({}, "--engine", "sim", "--", "--uds", str(path))
        first.ready()
        late = start({}, "--engine", "sim", "--", "--uds", str(path))
        assert late.end() == 2
        assert f"unix:{path}" in late.text
        assert first.process.poll() is None


class TestPreflight:
    def preflight(self, environ: Mapping[str, str], tmp_path: Path, *words: str) -> "subprocess.CompletedProcess[str]":
        env = {
            **environ,
            "GARRISON_SKIP_GPU_CHECK": "1",
            "GARRISON_PROCESS_SIGNATURES": str(tmp_path / "vllm"),
            "GARRISON_PREFLIGHT_LOCKFILE": str(tmp_path / "preflight.lock"),
        }
        return subprocess.run(
            [sys.executable, "-m", *words], env=env, capture_output=True, text=True, timeout=60, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def test_it_refuses_and_replaces_as_serve_does(
        self, start: Start, tmp_path: Path, clean_environ: Mapping[str, str]
    ) -> None:
        first = start()
        first.ready()
        engine = first.engine_pid()
        words = ("garrison.cli.main", "preflight", "--json", "--port", str(first.port))
        for extra in ((), ("--dry-run",)):
            refused = self.preflight(clean_environ, tmp_path, *words, *extra)
            body = json.loads(refused.stdout)
            assert (refused.returncode, body["code"], body["pids"]) == (2, "port-foreign", [engine])
            assert (body["model"], body["state"]) == ("tiny", "serves")
            untouched(first, engine)
        done = self.preflight(clean_environ, tmp_path, *words, "--replace")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["reclaimed_roots"] == [engine]
        assert first.end() == 21
        assert "main.py preflight" in first.text or "preflight --json" in first.text

    def test_vllm_preflight_keeps_its_contract(
        self, start: Start, tmp_path: Path, clean_environ: Mapping[str, str]
    ) -> None:
        first = start()
        first.ready()
        engine = first.engine_pid()
        env = {**clean_environ, "VLLM_HOST": "127.0.0.1", "VLLM_PORT": str(first.port)}
        code = (
            "import sys; from garrison.cli.scripts.vllm_preflight import main; "
            "sys.argv[0] = 'vllm-preflight'; sys.exit(main())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "--json"],
            env={
                **env,
                "VLLM_SKIP_GPU_CHECK": "1",
                "VLLM_PROCESS_SIGNATURES": str(tmp_path / "vllm"),
                "VLLM_PREFLIGHT_LOCKFILE": str(tmp_path / "preflight.lock"),
            },
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["reclaimed_roots"] == [engine]
        assert first.end() == 21
        assert ": vllm-preflight --json" in first.text
