import signal

import pytest

from garrison.base.identity import ProcessId
from garrison.preflight.reclaim import Stopped, living, stop_trees
from garrison.processes.process import Process
from garrison.testing.clock import FakeClock
from garrison.testing.processes import MemoryProcesses

TERM, KILL = int(signal.SIGTERM), int(signal.SIGKILL)


def process(pid: int, parent: int, start: int = 1) -> Process:
    return Process(ProcessId(pid, start), parent, 1000)


def machine() -> MemoryProcesses:
    return MemoryProcesses([process(10, 1), process(11, 10), process(12, 11), process(20, 1), process(21, 20)])


def stop(processes: MemoryProcesses, clock: FakeClock, *, timeout: float = 15, free: bool = True) -> Stopped:
    return stop_trees(
        [ProcessId(10, 1)],
        processes=processes,
        is_free=lambda: free and 10 not in processes.table,
        timeout=timeout,
        clock=clock,
        say=lambda _: None,
    )


def test_sigterm_in_post_order_and_nobody_else() -> None:
    processes, clock = machine(), FakeClock()
    stopped = stop(processes, clock)
    assert [(one.pid, number) for one, number in processes.sent] == [(12, TERM), (11, TERM), (10, TERM)]
    assert stopped == Stopped(tuple(ProcessId(pid, 1) for pid in (12, 11, 10)), (), (), free=True)
    assert {20, 21} <= processes.table.keys()
    assert clock.monotonic() == 0


def test_who_ignores_sigterm_is_killed_after_the_timeout() -> None:
    processes, clock = machine(), FakeClock()
    processes.ignores = {(11, TERM), (10, TERM)}
    stopped = stop(processes, clock)
    assert [(one.pid, number) for one, number in processes.sent][3:] == [(11, KILL), (10, KILL)]
    assert stopped.free
    assert clock.monotonic() == pytest.approx(15)


def test_timeout_zero_kills_at_once_and_still_waits_for_the_kernel() -> None:
    processes, clock = machine(), FakeClock()
    processes.ignores = {(10, TERM), (10, KILL)}
    stopped = stop(processes, clock, timeout=0)
    assert not stopped.free
    assert clock.monotonic() == pytest.approx(2)


def test_one_that_never_dies() -> None:
    processes, clock = machine(), FakeClock()
    processes.ignores = {(10, TERM), (10, KILL)}
    stopped = stop(processes, clock)
    assert not stopped.free
    assert stopped.survivors == (ProcessId(10, 1),)


def test_all_gone_and_still_listening() -> None:
    stopped = stop(machine(), FakeClock(), free=False)
    assert not stopped.free
    assert stopped.survivors == ()


def test_a_pid_that_changes_hands_before_sigterm_is_not_signalled() -> None:
    processes = machine()

    def take_over(target: ProcessId, number: int) -> None:
        if target.pid == 11:
            processes.table[11] = process(11, 1, start=99)

    processes.on_signal = take_over
    stopped = stop(processes, FakeClock())
    assert ProcessId(11, 99) not in [one for one, _ in processes.sent]
    assert 11 in processes.table
    assert stopped.free


def test_a_pid_that_changes_hands_before_sigkill_is_not_signalled() -> None:
    processes, clock = machine(), FakeClock()
    processes.ignores = {(12, TERM)}

    def take_over(target: ProcessId, number: int) -> None:
        if number == KILL:
            processes.table[12] = process(12, 1, start=99)

    processes.on_signal = take_over
    stopped = stop(processes, clock)
    assert [one.pid for one, number in processes.sent if number == KILL] == []
    assert processes.table[12].id.start == 99
    assert stopped.killed == ()


def bear(processes: MemoryProcesses, when: int) -> None:
    """A child 30 of process 10 appears when process `when` ends."""

    def appear(gone: Process) -> None:
        if gone.id.pid == when:
            processes.table[30] = process(30, 10, start=7)

    processes.on_death = appear


def test_a_child_born_during_sigterm_gets_it_too() -> None:
    processes = machine()
    processes.ignores = {(10, TERM)}
    bear(processes, when=11)
    stop(processes, FakeClock())
    assert (ProcessId(30, 7), TERM) in processes.sent
    assert 30 not in processes.table


def test_a_child_that_appears_while_waiting_is_killed_with_its_parent() -> None:
    processes, clock = machine(), FakeClock()
    processes.ignores = {(10, TERM)}
    clock_sleep = clock.sleep

    def sleep(seconds: float) -> None:
        processes.table.setdefault(30, process(30, 10, start=7)) if 10 in processes.table else None
        clock_sleep(seconds)

    clock.sleep = sleep  # type: ignore[method-assign] - the moment is the point of the test
    stopped = stop(processes, clock)
    assert ProcessId(30, 7) in stopped.killed
    assert 30 not in processes.table


def test_permission_is_not_swallowed() -> None:
    processes = machine()
    processes.denied = {10}
    with pytest.raises(PermissionError):
        stop(processes, FakeClock())


def test_living_compares_the_process_and_not_the_pid() -> None:
    processes = machine()
    assert living([ProcessId(10, 1), ProcessId(11, 5), ProcessId(99, 1)], processes) == (ProcessId(10, 1),)
