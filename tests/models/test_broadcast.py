"""Any number of listeners: each gets everything in order, and none can slow the work down or end it."""

import logging
import threading
from typing import Any

import pytest

from garrison.models.files.broadcast import Broadcast, Guarded
from garrison.models.files.progress import Progress
from garrison.testing.progress import MemoryProgress


def work(progress: Progress) -> None:
    progress.step("search", source="hf-hub")
    progress.started(2, 100)
    for _ in range(10):
        progress.advanced(10)
    progress.finished()
    progress.step("found", path="/m")


class Failing(MemoryProgress):
    def advanced(self, count: int) -> None:
        raise BrokenPipeError("hf_Secret12345")


class Blocked(MemoryProgress):
    """Does not return from its first step until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.release = threading.Event(), threading.Event()
        self.since_start = 0

    def started(self, files: int, total: int, done: int = 0, *, doing: str = "downloading") -> None:
        super().started(files, total, done)
        self.since_start = 0

    def advanced(self, count: int) -> None:
        super().advanced(count)
        self.since_start += count

    def step(self, name: str, **facts: Any) -> None:
        super().step(name, **facts)
        self.reached.set()
        assert self.release.wait(20)


def test_every_listener_gets_everything_in_order() -> None:
    listeners = [MemoryProgress() for _ in range(5)]
    with Broadcast(*listeners) as progress:
        work(progress)
    for listener in listeners:
        assert listener.steps == [("search", {"source": "hf-hub"}), ("found", {"path": "/m"})]
        assert listener.transfers == [(2, 100, 0)]
        assert (listener.bytes, listener.open) == (100, False)


def test_a_listener_that_fails_is_left_out_and_the_others_are_not(caplog: pytest.LogCaptureFixture) -> None:
    good = MemoryProgress()
    with Broadcast(good) as progress:
        failed = progress.subscribe(Failing())
        work(progress)
    assert isinstance(failed.error, BrokenPipeError)
    assert (good.bytes, len(good.steps)) == (100, 2)
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "garrison.models.progress")
    assert "Failing" in record.message


def test_a_listener_that_does_not_return_holds_up_nobody() -> None:
    good, blocked = MemoryProgress(), Blocked()
    progress = Broadcast(blocked, good, most_events=8)
    progress.step("first")
    assert blocked.reached.wait(5)
    for _ in range(1000):
        work(progress)
    progress.close(within=0.05)
    blocked.release.set()
    assert blocked.bytes == 0


def test_a_slow_listener_continues_with_the_current_state() -> None:
    blocked = Blocked()
    progress = Broadcast(most_events=4)
    slow = progress.subscribe(blocked)
    progress.step("first")
    assert blocked.reached.wait(5)
    progress.started(3, 1000, 100)
    for number in range(20):
        progress.step("noise", number=number)
        progress.advanced(10)
    blocked.release.set()
    progress.close()
    assert slow.dropped > 0
    assert len(blocked.steps) < 20
    assert blocked.transfers[-1][:2] == (3, 1000)
    assert blocked.transfers[-1][2] + blocked.since_start == 300


def test_bytes_that_wait_are_one_call() -> None:
    calls: list[int] = []

    class Counting(Blocked):
        def advanced(self, count: int) -> None:
            calls.append(count)

    blocked = Counting()
    progress = Broadcast(blocked)
    progress.step("first")
    assert blocked.reached.wait(5)
    for _ in range(10_000):
        progress.advanced(7)
    blocked.release.set()
    progress.close()
    assert calls == [70_000]


def test_who_joins_in_the_middle_is_told_of_the_transfer() -> None:
    late = MemoryProgress()
    with Broadcast() as progress:
        progress.started(4, 1000, 50)
        progress.advanced(200)
        progress.subscribe(late)
        progress.advanced(100)
    assert late.transfers == [(4, 1000, 250)]
    assert late.bytes == 100


def test_nothing_reaches_a_listener_after_the_end() -> None:
    listener = MemoryProgress()
    progress = Broadcast(listener)
    progress.close()
    work(progress)
    assert listener.steps == []


def test_a_guarded_listener_is_not_called_again_after_it_failed() -> None:
    listener = Failing()
    progress = Guarded(listener)
    work(progress)
    assert listener.steps == [("search", {"source": "hf-hub"})]
    assert listener.open


def test_who_joins_after_the_end_costs_no_thread() -> None:
    broadcast, late = Broadcast(), MemoryProgress()
    broadcast.started(1, 100)
    broadcast.close()
    subscription = broadcast.subscribe(late)
    subscription.wait(5)
    assert not subscription._thread.is_alive()
    assert late.transfers == []
