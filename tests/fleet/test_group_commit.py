"""Many results, few transactions; and each caller gets its own."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fleet_bench import COMMAND, STACK, Bench, applied, create, spec
from fleet_world import World

from garrison.base.errors import DiskFullError, InternalError
from garrison.fleet.execute.commands import action_records
from garrison.fleet.execute.group_commit import GroupCommit
from garrison.store.records import ActionRecord, ActionResult, ActionState, CommandRecord, Resource
from garrison.testing.store import MemoryStore


class CountingStore(MemoryStore):
    """`commits`: how many results each had. A commit waits while `hold` is cleared; `refuse` raises for its names."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[int] = []
        self.hold = threading.Event()
        self.hold.set()
        self.writing = threading.Event()
        self.refuse: dict[str, Exception] = {}

    def save_actions(self, results: Any) -> None:
        self.writing.set()
        assert self.hold.wait(10)
        for one in results:
            if error := self.refuse.get(one.action.key.name):
                raise error
        self.commits.append(len(results))
        super().save_actions(results)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.store = made.fleet.store = CountingStore()
    made.store.begin(
        CommandRecord(id=COMMAND, kind="apply", stack=STACK, started_at=made.clock.now(), by="ada@node 7"), []
    )
    yield made
    made.store.hold.set()
    made.fleet.close()


def record(seq: int) -> ActionRecord:
    return action_records(COMMAND, [create()] * (seq + 1))[seq]


def result(seq: int, *resources: Resource) -> ActionResult:
    return ActionResult(action=record(seq), resources=resources)


async def test_what_comes_during_a_commit_goes_into_the_next(world: World) -> None:
    commits = GroupCommit(world.fleet)
    world.store.hold.clear()
    saves = [asyncio.create_task(commits.save(result(0)))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    saves += [asyncio.create_task(commits.save(result(seq))) for seq in range(1, 9)]
    await asyncio.sleep(0)
    assert not any(save.done() for save in saves), "nobody goes on before its own result is on disk"
    world.store.hold.set()
    await asyncio.gather(*saves)
    assert world.store.commits == [1, 8]
    assert len(world.store.actions(COMMAND)) == 9


async def test_results_of_one_call_are_one_transaction(world: World) -> None:
    await GroupCommit(world.fleet).save(result(0, applied("a")), result(1), result(2, applied("b")))
    assert world.store.commits == [3]
    assert [one.key.name for one in world.store.resources()] == ["a", "b"]


async def test_a_store_that_fails_is_told_to_everyone(world: World) -> None:
    commits = GroupCommit(world.fleet)
    world.store.refuse["sql"] = DiskFullError("no room")
    ends = await asyncio.gather(*(commits.save(result(seq)) for seq in range(3)), return_exceptions=True)
    assert [type(one) for one in ends] == [DiskFullError] * 3
    world.store.refuse.clear()
    await commits.save(result(0))
    assert world.store.commits == [1]


async def test_a_refused_row_is_its_callers_alone(world: World) -> None:
    commits = GroupCommit(world.fleet)
    bad = ActionResult(action=action_records("no such command", [create()])[0])
    ends = await asyncio.gather(
        commits.save(result(0)), commits.save(bad), commits.save(result(1)), return_exceptions=True
    )
    assert [type(one) for one in ends] == [type(None), InternalError, type(None)]
    assert len(world.store.actions(COMMAND)) == 2


async def test_a_caller_that_is_cancelled_leaves_its_result_to_be_written(world: World) -> None:
    commits = GroupCommit(world.fleet)
    world.store.hold.clear()
    gone = asyncio.create_task(commits.save(result(0)))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    assert gone.cancelled()
    world.store.hold.set()
    await commits.save(result(1))
    assert [one.seq for one in world.store.actions(COMMAND)] == [0, 1]


async def test_reads_do_not_wait_for_a_write_under_way(world: World) -> None:
    world.store.hold.clear()
    write = asyncio.create_task(GroupCommit(world.fleet).save(result(0)))
    async with asyncio.timeout(5):
        while not world.store.writing.is_set():
            await asyncio.sleep(0)
        assert await world.fleet.read(lambda: "read") == "read"
    assert not write.done()
    world.store.hold.set()
    await write


async def test_the_end_of_an_action_and_the_start_of_the_next_share_a_transaction() -> None:
    bench = Bench()
    store = bench.store = bench.fleet.store = CountingStore()
    outcomes = await bench.run(*(create(spec(name)) for name in "abcd"))
    assert [one.state for one in outcomes] == [ActionState.DONE] * 4
    assert store.commits == [1, 2, 2, 2, 1]


async def test_a_start_that_was_stored_when_a_stop_came_is_taken_back() -> None:
    """The stop comes while the end of `a` and the start of `b` are written."""
    bench = Bench()

    class Stopping(CountingStore):
        stopping = False

        def save_actions(self, results: Any) -> None:
            super().save_actions(results)
            self.stopping = self.stopping or any(one.action.state is ActionState.DONE for one in results)

    store = bench.store = bench.fleet.store = Stopping()
    outcomes = await bench.run(create(spec("a")), create(spec("b")), stopping=lambda: store.stopping)
    assert [one.state for one in outcomes] == [ActionState.DONE, ActionState.SKIPPED]
    assert set(bench.edge.served) == {"a"}
    recorded = store.actions(COMMAND)[1]
    assert (recorded.state, recorded.started_at) == (ActionState.SKIPPED, None)
