"""The port's half of the preflight against processes that really run and sockets that really listen."""

import os
import pickle
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import (
    GarrisonError,
    PortForeignError,
    PortOtherUserError,
    PortStuckError,
    PortUnattributableError,
)
from garrison.base.identity import ProcessId
from garrison.preflight.check import PreflightReport, PreflightRequest, check
from garrison.preflight.policy import PortPolicy
from garrison.preflight.procnet import ProcNet
from garrison.processes.procfs import Procfs

pytestmark = pytest.mark.system
as_root = pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="starting as another user needs root")

bound_is_listed = pytest.mark.skipif(
    tuple(map(int, os.uname().release.split(".")[:2])) < (6, 8), reason="kernels before 6.8 do not list bound sockets"
)


def request(port: int, host: str = "127.0.0.1", **fields: Any) -> PreflightRequest:
    return PreflightRequest(host=host, port=port, skip_gpu=True, lockfile=Path(f"/tmp/{port}.lock"), **fields)


def run(port: int, host: str = "127.0.0.1", processes: Procfs | None = None, **fields: Any) -> PreflightReport:
    policy = PortPolicy(
        living="stop", dry_run=fields.pop("dry_run", False), other_users=fields.pop("other_users", False)
    )
    return check(request(port, host, **fields), policy, processes=processes, say=lambda _: None)


def test_free_port(port: int) -> None:
    report = run(port)
    assert (report.port_action, report.reclaimed_roots) == ("noop", ())


def test_foreign_listener_is_refused_and_left_alone(stage: Any, port: int, is_listening: Callable[..., bool]) -> None:
    pid = stage.serve(stage.plain, port)
    with pytest.raises(PortForeignError) as caught:
        run(port)
    assert caught.value.exit_code == 2
    assert caught.value.details["pids"] == [pid]
    assert caught.value.details["uids"] == [os.getuid()]
    assert str(stage.plain) in caught.value.details["cmdlines"][0]
    assert is_listening(port)


def test_stale_vllm_is_stopped(stage: Any, port: int, is_gone: Callable[[int], bool]) -> None:
    pid = stage.serve(stage.vllm, port)
    report = run(port)
    assert report.port_action == "stopped"
    assert report.reclaimed_roots == (pid,)
    assert report.killed == ()
    assert is_gone(pid)


def test_dry_run_signals_nothing(stage: Any, port: int, is_listening: Callable[..., bool]) -> None:
    pid = stage.serve(stage.vllm, port)
    report = run(port, dry_run=True)
    assert (report.port_action, report.would_stop_roots, report.reclaimed_roots) == ("would-stop", (pid,), ())
    assert is_listening(port)


def test_workers_that_inherited_the_socket_go_with_the_server(
    stage: Any,
    port: int,
    children: Callable[[int], set[int]],
    is_gone: Callable[[int], bool],
    polled: Callable[..., Any],
) -> None:
    pid = stage.serve(stage.vllm, port, "--workers", "3")
    workers = polled(lambda: len(children(pid)) == 3 and children(pid), "three workers")
    report = run(port)
    assert report.reclaimed_roots == (pid,)
    assert all(is_gone(worker) for worker in workers)


@bound_is_listed
def test_a_vllm_that_still_loads_has_the_port_already(
    stage: Any, port: int, polled: Any, is_gone: Callable[[int], bool]
) -> None:
    """It binds at once, with SO_REUSEADDR, and listens when the model is loaded: a second one would bind it as well."""
    loading = stage.start([stage.python, str(stage.vllm), "serve", "x", "--port", str(port), "--listen-after", "600"])
    polled(lambda: ProcNet().listeners(port), "it has bound")
    assert run(port).reclaimed_roots == (loading.pid,)
    assert is_gone(loading.pid)


def test_an_orphaned_worker_under_vllms_title_is_vllm(
    stage: Any, port: int, is_gone: Callable[[int], bool], until: Callable[..., Any]
) -> None:
    with socket.create_server(("127.0.0.1", port)) as listening:
        worker = stage.start(
            ["VLLM::EngineCore"],
            executable=stage.nobodys_python,
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[listening.fileno()],
        )
    assert worker.stdin is not None
    worker.stdin.write(b"import signal; signal.pause()\n")
    worker.stdin.close()
    # The command line can still be empty for a moment when exec has already closed the pipe that Popen waits on.
    until(Path(f"/proc/{worker.pid}/cmdline").read_bytes, what="the worker's command line")
    assert run(port).reclaimed_roots == (worker.pid,)
    assert is_gone(worker.pid)


def test_vllm_that_ignores_sigterm_is_killed(stage: Any, port: int, is_gone: Callable[[int], bool]) -> None:
    pid = stage.serve(stage.vllm, port, "--ignore-term")
    report = run(port, stop_timeout=1)
    assert report.port_action == "stopped"
    assert report.killed == (pid,)
    assert is_gone(pid)


class Deaf(Procfs):
    """Real processes that no signal reaches."""

    def signal(self, process: ProcessId, number: int) -> bool:
        return self.read(process.pid) is not None


def test_one_that_never_dies_is_stuck(stage: Any, port: int) -> None:
    pid = stage.serve(stage.vllm, port)
    with pytest.raises(PortStuckError) as caught:
        run(port, stop_timeout=0, processes=Deaf())
    assert caught.value.exit_code == 5
    assert caught.value.details["pids"] == [pid]
    assert caught.value.details["survivors"] == [pid]


def test_the_words_in_a_shells_command_line_mean_nothing(
    stage: Any, port: int, polled: Callable[..., Any], is_listening: Callable[..., bool]
) -> None:
    shell = stage.start(
        [
            "sh",
            "-c",
            f"{stage.python} {stage.plain} --port {port} --note 'vllm serve' & echo vllm serve >/dev/null; wait",
        ],
        start_new_session=True,
    )
    polled(lambda: is_listening(port), "the listener")
    try:
        with pytest.raises(PortForeignError):
            run(port)
        assert is_listening(port)
    finally:
        os.killpg(shell.pid, signal.SIGKILL)


def test_siblings_outside_the_owning_tree_are_not_touched(
    stage: Any,
    port: int,
    polled: Callable[..., Any],
    is_listening: Callable[..., bool],
    children: Callable[..., set[int]],
) -> None:
    """A supervisor whose command line says `vllm serve` runs a vLLM and something else."""
    supervisor = stage.start(
        ["sh", "-c", f"sleep 600 & {stage.python} {stage.vllm} serve x --port {port}; wait", "vllm", "serve"],
        start_new_session=True,
    )
    polled(lambda: is_listening(port), "the listener")
    before = children(supervisor.pid)
    try:
        (root,) = run(port).reclaimed_roots
        assert root in before
        assert supervisor.poll() is None
        polled(lambda: children(supervisor.pid) == before - {root}, "only the server is gone")
    finally:
        os.killpg(supervisor.pid, signal.SIGKILL)


@as_root
def test_another_users_vllm_is_refused(stage: Any, port: int, is_listening: Callable[..., bool]) -> None:
    pid = stage.serve(stage.vllm, port, user="nobody")
    with pytest.raises(PortOtherUserError) as caught:
        run(port)
    assert caught.value.exit_code == 3
    assert caught.value.details["pids"] == [pid]
    assert caught.value.details["uids"] == [65534]
    assert is_listening(port)


@as_root
def test_another_users_vllm_is_stopped_where_that_is_allowed(stage: Any, port: int) -> None:
    pid = stage.serve(stage.vllm, port, user="nobody")
    assert run(port, other_users=True).reclaimed_roots == (pid,)


def as_nobody(call: Callable[[], PreflightReport]) -> PreflightReport | GarrisonError:
    """Run `call` in a forked child that gave its rights away; what it gave or raised."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(reader)
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            answer: Any = call()
        except GarrisonError as error:
            answer = (type(error), error.message, error.details)
        except BaseException as error:  # noqa: BLE001 - this process must not run on into pytest
            answer = repr(error)
        os.write(writer, pickle.dumps(answer))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pickle.loads(pipe.read())
    os.waitpid(pid, 0)
    if isinstance(answer, tuple):
        return answer[0](answer[1], details=answer[2])
    assert not isinstance(answer, str), answer
    return answer


@as_root
@pytest.mark.parametrize("kind", ["vllm", "plain"])
def test_a_listener_whose_descriptors_cannot_be_read_is_unattributable(stage: Any, port: int, kind: str) -> None:
    """Seen from nobody, root's command line is readable and its descriptors are not: that is not knowing."""
    stage.serve(getattr(stage, kind), port)
    error = as_nobody(lambda: run(port))
    assert isinstance(error, PortUnattributableError)
    assert error.exit_code == 4
    assert error.details["uids"] == [0]
    assert error.details["pids"] == []
    assert error.details["could_scan"] is False
    assert "belongs to uid 0" in error.message


@as_root
def test_nobody_sees_a_free_port_and_its_own_vllm(stage: Any, port: int) -> None:
    free = as_nobody(lambda: run(port))
    assert isinstance(free, PreflightReport)
    assert free.port_action == "noop"
    pid = stage.serve(stage.vllm, port, user="nobody")
    report = as_nobody(lambda: run(port))
    assert isinstance(report, PreflightReport)
    assert report.reclaimed_roots == (pid,)


HOSTS = [
    ("0.0.0.0", "127.0.0.1"),
    ("127.0.0.1", "0.0.0.0"),
    ("127.0.0.1", "::"),
    ("::", "127.0.0.1"),
    ("::1", "::"),
    ("::", "::1"),
    ("::1", "::1"),
    ("localhost", "127.0.0.1"),
]


@pytest.mark.parametrize(("asked", "held"), HOSTS, ids=[f"asked {a} held {h}" for a, h in HOSTS])
def test_conflicting_addresses(stage: Any, port: int, asked: str, held: str) -> None:
    pid = stage.serve(stage.vllm, port, host=held)
    assert run(port, asked).reclaimed_roots == (pid,)


@pytest.mark.parametrize(("asked", "held"), [("::1", "127.0.0.1"), ("127.0.0.1", "::1"), ("127.0.0.2", "127.0.0.1")])
def test_addresses_that_do_not_meet(stage: Any, port: int, asked: str, held: str) -> None:
    stage.serve(stage.plain, port, host=held)
    assert run(port, asked).port_action == "noop"


def test_v6only_wildcard_leaves_v4_free(port: int) -> None:
    with socket.socket(socket.AF_INET6) as listening:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(("::", port))
        listening.listen()
        assert run(port, "0.0.0.0").port_action == "noop"
        with pytest.raises(PortForeignError):
            run(port, "::")


def test_pid_reuse_for_real(stage: Any) -> None:
    """The same pid, another start time: nothing is signalled, with pidfd and without."""
    child = stage.start(["sleep", "600"])
    for processes in (Procfs(), Procfs(use_pidfd=False)):
        found = processes.read(child.pid)
        assert found is not None
        assert not processes.signal(ProcessId(child.pid, found.id.start - 1), signal.SIGKILL)
        assert child.poll() is None
    assert Procfs().signal(found.id, signal.SIGTERM)
    assert child.wait(20) == -signal.SIGTERM
    assert not Procfs().signal(found.id, signal.SIGTERM)


def test_a_zombie_is_gone(stage: Any, polled: Callable[..., Any], is_gone: Callable[[int], bool]) -> None:
    child = stage.start(["true"])
    polled(lambda: is_gone(child.pid), "it ended, and is not yet waited for")
    assert Procfs().read(child.pid) is None


def test_two_hundred_idle_processes_do_not_slow_it_down(stage: Any, port: int) -> None:
    stage.started += [subprocess.Popen(["sleep", "600"]) for _ in range(200)]
    pid = stage.serve(stage.vllm, port)
    start = time.process_time()
    report = run(port, dry_run=True)
    used = time.process_time() - start
    assert report.would_stop_roots == (pid,)
    # No timing to the millisecond: a scan that reads a process many times over takes seconds.
    assert used < 1.0


def test_a_server_does_not_stop_itself(
    stage: Any, port: int, polled: Callable[..., Any], children: Callable[..., set[int]]
) -> None:
    """A preflight run from below the very server that holds the port."""
    pid = stage.serve(stage.vllm, port, "--workers", "1")
    (below,) = polled(lambda: children(pid), "a worker")

    class Below(Procfs):
        def own_pid(self) -> int:
            return below

    with pytest.raises(PortForeignError, match="runs under"):
        run(port, processes=Below())
