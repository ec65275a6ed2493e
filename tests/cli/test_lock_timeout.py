"""`--lock-timeout`: a stack that the agent heals is free again soon."""

import asyncio
import threading

import pytest
from fleet_files import write

from garrison.base.errors import ConflictError
from garrison.cli.fleet.lock_wait import once_free
from garrison.fleet.execute.lease import hold
from garrison.testing.views import RecordingFleetView


@pytest.fixture
def file(cli, world, tmp_path):
    path = write(tmp_path / "garrison.json")
    assert cli("apply", path, "--yes").code == 0
    return path


@pytest.fixture
def held(world):
    """The stack, held as by an agent until the event is set."""
    ready, free = threading.Event(), threading.Event()

    async def heal():
        async with hold(world.fleet, "lab", "agent"):
            ready.set()
            await asyncio.to_thread(free.wait, 20)

    thread = threading.Thread(target=lambda: asyncio.run(heal()))
    thread.start()
    assert ready.wait(10)
    yield free
    free.set()
    thread.join(10)


@pytest.mark.parametrize("words", [["apply", "FILE"], ["destroy", "FILE"], ["adopt", "edge-1/mine", "-s", "lab"]])
def test_waits_until_the_stack_is_free(cli, world, file, held, words):
    world.edge.served["mine"] = "/tmp/mine"
    argv = [file if word == "FILE" else word for word in words]
    done = cli(*argv, "--yes")
    assert done.code == 33
    assert "has been held by" in done.err
    threading.Timer(0.5, held.set).start()
    done = cli(*argv, "--yes", "--lock-timeout", "15")
    assert done.code == 0, done.err
    assert "waiting: stack lab has been held by" in done.out


async def test_no_longer_than_asked_and_not_for_another_conflict():
    view, tries = RecordingFleetView(), []

    async def work(details):
        tries.append(details)
        raise ConflictError("no", hint="", details=details)

    with pytest.raises(ConflictError):
        await once_free(lambda: work({"conflicts": []}), 60, view)
    assert len(tries) == 1
    with pytest.raises(ConflictError):
        await once_free(lambda: work({"holder": "x"}), 0.3, view)
    assert len(tries) > 2
