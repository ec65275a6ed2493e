"""The downstream command, by its twin and for real."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import EngineMissingError, EngineTimeoutError, InvalidError, PortStuckError
from garrison.base.identity import ProcessId
from garrison.preflight.addresses import Address
from garrison.preflight.check import PreflightRequest, port_lock
from garrison.preflight.downstream.child import FORWARDED
from garrison.preflight.downstream.proxy import Patience, run_proxied
from garrison.preflight.listeners import Listener
from garrison.processes.process import Process
from garrison.processes.tree import subtree
from garrison.testing.child import MemoryChild
from garrison.testing.clock import FakeClock
from garrison.testing.processes import MemoryProcesses
from garrison.testing.sockets import MemorySockets

LOOPBACK = Address(b"\x7f\0\0\1")


class Bench:
    """A child, pid 50, with a worker, pid 51, on port 8000."""

    def __init__(self, tmp_path: Path, *events: tuple[int | None, int | None]) -> None:
        self.clock = FakeClock()
        self.child = MemoryChild(events, pid=50, clock=self.clock)
        self.processes = MemoryProcesses(
            [Process(ProcessId(50, 1), 2, 0), Process(ProcessId(51, 2), 50, 0), Process(ProcessId(60, 1), 1, 0)]
        )
        self.sockets = MemorySockets()
        self.request = PreflightRequest(host="0.0.0.0", port=8000, lockfile=tmp_path / "lock")
        self.said: list[str] = []
        self.free_at: float | None = None

    def bind(self, holder: int | None, *, at: float = 0) -> None:
        def appear() -> None:
            if self.clock.monotonic() >= at and not self.sockets.table:
                self.sockets.table.append(Listener(LOOPBACK, 8000, 9, 0))
                self.processes.sockets = {9: {holder}} if holder else {}

        self.sockets.before_read = appear

    def run(self, **patience: Any) -> int:
        with port_lock(self.request) as lock:
            released = lock.release

            def release() -> None:
                if self.free_at is None:
                    self.free_at = self.clock.monotonic()
                released()

            lock.release = release  # type: ignore[method-assign] - the moment of the release is what is tested
            return run_proxied(
                ["x"],
                self.request,
                lock=lock,
                patience=Patience(**({"poll": 1.0} | patience)),
                processes=self.processes,
                sockets=self.sockets,
                clock=self.clock,
                start=lambda _: self.child,
                say=self.said.append,
            )


WAITING = (None, None)


@pytest.mark.parametrize("patience", [{}, {"bind_timeout": 30.0}], ids=["window", "limit"])
@pytest.mark.parametrize("moved", [50, 51], ids=["the child", "a descendant"])
def test_a_command_with_a_network_of_its_own_is_not_waited_for(
    tmp_path: Path, moved: int, patience: dict[str, float]
) -> None:
    """What listens there is not seen, so a server that serves would be stopped."""
    bench = Bench(tmp_path, *[WAITING] * 400, (0, None))
    bench.sockets.own_network = {moved}
    assert bench.run(**patience) == 0
    assert bench.free_at is not None
    assert bench.free_at < 5
    assert any("network of its own" in said for said in bench.said)


@pytest.mark.parametrize("holder", [50, 51, None], ids=["the child", "a descendant", "one that cannot be seen"])
def test_the_lock_is_held_until_the_port_is_bound(tmp_path: Path, holder: int | None) -> None:
    bench = Bench(tmp_path, *[WAITING] * 10, (0, None))
    bench.bind(holder, at=5)
    assert bench.run() == 0
    assert bench.free_at == pytest.approx(5)


def test_a_socket_that_is_bound_and_does_not_listen_is_not_there_yet(tmp_path: Path) -> None:
    bench = Bench(tmp_path, *[WAITING] * 3, (0, None))
    bench.sockets.table.append(Listener(LOOPBACK, 8000, 9, 0, listening=False))
    bench.processes.sockets = {9: {50}}
    assert bench.run() == 0
    assert not any("listens on" in sentence for sentence in bench.said)


def test_a_strangers_listener_does_not_count_and_is_said_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, *[WAITING] * 10, (1, None))
    bench.bind(60, at=2)
    assert bench.run() == 1
    assert bench.free_at == pytest.approx(11)
    assert sum("pid 60" in sentence for sentence in bench.said) == 1


def test_signals_are_passed_on_before_and_after_the_bind(tmp_path: Path) -> None:
    events = [(None, signal.SIGUSR1), *[WAITING] * 4, (None, signal.SIGHUP), (143, signal.SIGTERM)]
    bench = Bench(tmp_path, *events)
    bench.bind(50, at=3)
    assert bench.run() == 143
    assert bench.child.sent[:2] == [signal.SIGUSR1, signal.SIGHUP]


def test_a_command_that_ends_without_binding_gives_its_code(tmp_path: Path) -> None:
    assert Bench(tmp_path, WAITING, (7, None)).run() == 7


def test_bind_timeout_that_was_asked_for_stops_the_tree_with_5(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(PortStuckError, match="within 3 s") as caught:
        bench.run(bind_timeout=3.0)
    assert caught.value.exit_code == 5
    assert [(one.pid, number) for one, number in bench.processes.sent] == [(51, signal.SIGTERM), (50, signal.SIGTERM)]
    assert 60 in bench.processes.table


def test_no_sixty_second_death_while_there_is_progress(tmp_path: Path) -> None:
    bench = Bench(tmp_path, *[WAITING] * 5000, (0, None))

    def work() -> None:
        cpu = int(bench.clock.monotonic())
        bench.processes.table[51] = Process(ProcessId(51, 2), 50, 0, cpu=cpu)

    bench.sockets.before_read = work
    assert bench.run(window=100.0) == 0
    assert bench.clock.monotonic() > 5000


def test_progress_is_watched_without_the_whole_process_table(tmp_path: Path) -> None:
    """Reading every process of a large machine every two seconds would itself be load."""
    bench = Bench(tmp_path, *[WAITING] * 20, (0, None))
    table, whole, asked = bench.processes.snapshot, [], []

    def subtree_of(root: ProcessId) -> Any:
        asked.append(root)
        return subtree(root, table())

    bench.processes.subtree = subtree_of  # type: ignore[method-assign]  # the test's own
    bench.processes.snapshot = lambda: whole.append(1) or table()  # type: ignore[method-assign]  # the test's own
    assert bench.run() == 0
    assert asked
    assert set(asked) == {ProcessId(50, 1)}
    assert whole == []


def test_no_progress_within_the_window_ends_it_with_22(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(EngineTimeoutError, match="no CPU for 100 s") as caught:
        bench.run(window=100.0)
    assert caught.value.exit_code == 22
    assert 100 <= bench.clock.monotonic() < 110
    assert {one.pid for one, _ in bench.processes.sent} == {50, 51}


@pytest.fixture
def preflight(stage: Any, port: int) -> Callable[..., subprocess.Popen[bytes]]:
    """Start the console script for `port` with a downstream command."""

    def start(*command: str, **environment: str) -> subprocess.Popen[bytes]:
        code = "import sys; from garrison.cli.scripts.vllm_preflight import main; sys.exit(main())"
        return stage.start(  # type: ignore[no-any-return] - the fixture is untyped across files
            [sys.executable, "-c", code, *command],
            env=os.environ
            | {
                "VLLM_HOST": "127.0.0.1",
                "VLLM_PORT": str(port),
                "VLLM_SKIP_GPU_CHECK": "1",
                "VLLM_START_BIND_POLL": "0.05",
                "VLLM_PREFLIGHT_LOCKFILE": str(stage.root / "{port}.lock"),
            }
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


def is_locked(path: Path) -> bool:
    """Read from the kernel's list: a test that tries the lock may hold it when the preflight tries it."""
    try:
        inode = path.stat().st_ino
    except FileNotFoundError:
        return False
    return any(line.split()[5].endswith(f":{inode}") for line in Path("/proc/locks").read_text().splitlines())


@pytest.mark.system
def test_real_lock_until_bind_and_reclaim_after(
    stage: Any, port: int, preflight: Any, polled: Any, is_listening: Any, children: Any, is_gone: Any
) -> None:
    lock = stage.root / f"{port}.lock"
    first = preflight("--", stage.python, str(stage.vllm), "serve", "x", "--port", str(port), "--after", "1")
    polled(lambda: is_locked(lock), "the lock is taken")
    assert not is_listening(port)
    second = preflight()
    assert second.wait(20) == 13
    polled(lambda: not is_locked(lock), "the lock ends with the bind")
    assert is_listening(port)
    (server,) = children(first.pid)
    third = preflight()
    assert third.wait(30) == 0
    assert first.wait(20) == 128 + signal.SIGTERM
    assert is_gone(server)


TRAPPING = """
import signal, sys
names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
numbers = {getattr(signal, name) for name in names}
# Blocked and waited for: with handlers and pause(), one that comes between the two would be seen with the next only.
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print("ready", flush=True)
while True:
    number = signal.sigwait(numbers)
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        sys.exit(9)
"""


@pytest.mark.system
def test_real_signals_reach_the_child_once_and_its_status_comes_back(preflight: Any) -> None:
    running = preflight(sys.executable, "-c", TRAPPING)
    assert running.stdout.readline() == b"ready\n"
    for number in (*[one for one in FORWARDED if one != signal.SIGTERM], signal.SIGTERM):
        running.send_signal(number)
        assert running.stdout.readline() == number.name.encode() + b"\n"
    assert running.wait(20) == 9
    assert running.stdout.read() == b""


@pytest.mark.system
@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 42", 42), ("kill -KILL $$", 137), ("kill -TERM $$", 143)]
)
def test_real_exit_codes(preflight: Any, script: str, code: int) -> None:
    assert preflight("sh", "-c", script).wait(20) == code


@pytest.mark.system
def test_real_bind_timeout_leaves_nothing_behind(preflight: Any, polled: Any, children: Any, is_gone: Any) -> None:
    running = preflight("sh", "-c", "sleep 600 & sleep 600", VLLM_START_BIND_TIMEOUT="0.5", VLLM_STOP_TIMEOUT="5")
    shell = polled(lambda: next(iter(children(running.pid)), None), "the shell")
    sleepers = polled(lambda: len(children(shell)) == 2 and children(shell), "two sleepers")
    assert running.wait(30) == 5
    assert b"did not bind" in running.stderr.read()
    assert all(is_gone(pid) for pid in (shell, *sleepers))


@pytest.mark.system
@pytest.mark.parametrize("proxy", ["1", "0"])
def test_real_environment_and_signal_mask_are_handed_on(preflight: Any, port: int, proxy: str) -> None:
    """`./start.sh` goes on to vllm-serve, which reads `VLLM_PORT` and its like."""
    code = "import os, signal; print(os.environ['VLLM_PORT'], signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    running = preflight(sys.executable, "-c", code, VLLM_PREFLIGHT_PROXY_CHILD=proxy)
    assert running.stdout.read().decode() == f"{port} set()\n"
    assert running.wait(20) == 0


@pytest.mark.system
@pytest.mark.parametrize("proxy", ["1", "0"])
def test_real_sigpipe_is_not_ignored_in_the_command(preflight: Any, proxy: str) -> None:
    """`grep SigIgn` shows what the command was given; bit 12 is SIGPIPE."""
    running = preflight("grep", "SigIgn", "/proc/self/status", VLLM_PREFLIGHT_PROXY_CHILD=proxy)
    ignored = int(running.stdout.read().split()[1], 16)
    assert running.wait(20) == 0
    assert not ignored & (1 << (signal.SIGPIPE - 1))


@pytest.mark.system
@pytest.mark.parametrize("proxy", ["1", "0"])
def test_real_command_that_is_not_there(preflight: Any, proxy: str) -> None:
    running = preflight("no-such-command-here", VLLM_PREFLIGHT_PROXY_CHILD=proxy)
    assert running.wait(20) == 20
    assert b"no-such-command-here" in running.stderr.read()


@pytest.mark.system
@pytest.mark.parametrize("proxy", ["1", "0"])
def test_real_command_that_cannot_be_run(stage: Any, preflight: Any, proxy: str) -> None:
    path = stage.root / "data.txt"
    path.write_text("no program")
    assert preflight(str(path), VLLM_PREFLIGHT_PROXY_CHILD=proxy).wait(20) == 1


@pytest.mark.system
def test_real_plain_exec_is_the_same_process_and_ends_the_lock(
    stage: Any, port: int, preflight: Any, polled: Any, is_listening: Any
) -> None:
    command = (stage.python, str(stage.vllm), "serve", "x", "--port", str(port))
    running = preflight(*command, VLLM_PREFLIGHT_PROXY_CHILD="0")
    polled(lambda: is_listening(port), "the server listens")
    assert Path(f"/proc/{running.pid}/cmdline").read_bytes().split(b"\0")[1] == str(stage.vllm).encode()
    assert not is_locked(stage.root / f"{port}.lock")
    again = preflight()
    assert again.wait(30) == 0
    assert running.wait(20) == -signal.SIGTERM


@pytest.mark.system
def test_real_no_zombie_is_left(stage: Any, port: int, polled: Any, is_listening: Any, children: Any) -> None:
    """In a process that lives on after `run_proxied`, as `garrison serve` does."""
    script = stage.script(
        "host.py",
        "import sys, pathlib\n"
        "from garrison.preflight.check import PreflightRequest, port_lock\n"
        "from garrison.preflight.downstream.proxy import Patience, run_proxied\n"
        f"request = PreflightRequest(host='127.0.0.1', port={port}, lockfile=pathlib.Path({str(stage.root / 'l')!r}))\n"
        "def say(sentence): print(sentence, flush=True)\n"
        "with port_lock(request) as lock:\n"
        "    patience = Patience(bind_timeout=float(sys.argv[1]), poll=0.05)\n"
        "    try: say(run_proxied(sys.argv[2:], request, lock=lock, patience=patience, say=say))\n"
        "    except Exception as error: say(type(error).__name__)\n"
        "say('done'); sys.stdin.read()\n",
    )
    command = (sys.executable, str(script))
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    for argv, last in ((("9", "true"), b"0"), (("0.3", "sleep", "600"), b"PortStuckError")):
        host = stage.start([*command, *argv], **pipes)
        lines = [host.stdout.readline().strip()]
        while lines[-1] != b"done":
            lines.append(host.stdout.readline().strip())
        assert lines[-2] == last
        assert children(host.pid) == set()
        host.stdin.close()
        assert host.wait(20) == 0


@pytest.mark.system
def test_real_nohup_stays_nohup(stage: Any, preflight: Any, polled: Any, children: Any) -> None:
    """A signal that was ignored when we were started is ignored by the command too."""
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        running = preflight("grep", "SigIgn", "/proc/self/status")
    finally:
        signal.signal(signal.SIGHUP, old)
    assert int(running.stdout.read().split()[1], 16) & 1
    assert running.wait(20) == 0


def test_an_unresolvable_host_starts_nothing(tmp_path: Path) -> None:
    request = PreflightRequest(host="no-such-host", port=8000, lockfile=tmp_path / "lock")
    with port_lock(request) as lock, pytest.raises(InvalidError):
        run_proxied(["true"], request, lock=lock, sockets=MemorySockets(), say=lambda _: None)


def test_the_missing_command_has_a_next_step(tmp_path: Path) -> None:
    request = PreflightRequest(host="127.0.0.1", port=8000, lockfile=tmp_path / "lock")
    with port_lock(request) as lock, pytest.raises(EngineMissingError) as caught:
        run_proxied(["no-such-command-here"], request, lock=lock, say=lambda _: None)
    assert caught.value.hint
