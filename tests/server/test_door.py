"""What a worker is answered."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from garrison.gateway.link import messages
from garrison.gateway.link.messages import RouteValue, TargetValue
from garrison.server.workers.door import WorkerDoor
from garrison.server.workers.routes import Known
from garrison.server.workers.workers import Workers


class _Peer:
    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> bool:
        self.sent.append(message)
        return True


async def _fails(*_: object, **__: object) -> None:
    raise RuntimeError("a bug")


def door(**given: Any) -> tuple[WorkerDoor, _Peer]:
    """A door to whose questions everything fails."""
    routes = {"sql": RouteValue(name="sql", targets=("target:a",), adapters=("sql",))}
    known = Known({"target:a": TargetValue(id="target:a")}, routes, {}, {"sql": (("a", "sql"),)})
    manager = SimpleNamespace(acquire=_fails, start=_fails, find=lambda _: None)
    made = WorkerDoor(
        instances=manager, routers=SimpleNamespace(), known=lambda: known, fresh=_fails,
        node=lambda _: TargetValue(id="node:n"), adapters=SimpleNamespace(ready=_fails),
        greeted=lambda *_: None, told=lambda *_: None, lost=lambda *_: None, **given,
    )  # type: ignore[arg-type]  # fmt: skip
    peer = made.peer = _Peer()  # type: ignore[assignment]
    return made, peer  # type: ignore[return-value]


@pytest.mark.parametrize(
    "question",
    [
        messages.Activate(id=7, target="instance:a"),
        messages.Activate(id=7, target="target:a", route="sql"),
        messages.Load(id=7, target="instance:a"),
    ],
    ids=["an instance", "an adapter", "a load"],
)
async def test_a_question_is_answered_whatever_happens(question: Any) -> None:
    made, peer = door()
    made._received(question)
    async with asyncio.timeout(5):
        while not peer.sent:
            await asyncio.sleep(0)
    (refused,) = (one for one in peer.sent if isinstance(one, messages.Refused))
    assert (refused.id, refused.code, "bug" in refused.message) == (7, "internal", False)
    assert not made._starting


def test_a_worker_that_leaves_is_not_told_to_listen_elsewhere() -> None:
    leaving, staying = (SimpleNamespace(leaves=leaves, peer=_Peer()) for leaves in (True, False))
    workers: Any = object.__new__(Workers)
    workers._doors = [leaving, staying]
    workers._told_settings = lambda: "settings"
    workers.move("127.0.0.1", 8081)
    assert (leaving.peer.sent, staying.peer.sent) == ([], ["settings"])
