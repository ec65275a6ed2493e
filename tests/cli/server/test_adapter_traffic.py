"""The server of this machine, asked to keep requests away from an adapter."""

from types import TracebackType
from typing import Any

import pytest

from garrison.base.errors import UnreachableError
from garrison.cli.server.adapter_traffic import TrafficOfServer
from garrison.net.thread_pool import ThreadPool


class Client:
    """A server that answers as a test says, and what it was asked."""

    def __init__(self, *, unused: bool = True, away: str = "") -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self._unused, self._away = unused, away

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def call(self, method: str, path: str, *, body: Any = None) -> Any:
        self.asked.append((method, path, body))
        if method == self._away:
            raise UnreachableError("it does not answer")
        return {"id": "7", "unused": self._unused}


def traffic(client: Client) -> TrafficOfServer:
    return TrafficOfServer(lambda: client, ThreadPool("test", 1))  # type: ignore[arg-type, return-value]  # as a client


@pytest.mark.parametrize("unused", [True, False])
async def test_the_server_keeps_them_away_for_as_long(unused: bool) -> None:
    client = Client(unused=unused)
    async with traffic(client).leaving("edge/1", "sql@1", 3.0) as found:
        assert found is unused
        assert client.asked == [("POST", "/targets/edge%2F1/holds", {"adapter": "sql@1", "seconds": 3.0})]
    assert client.asked[1:] == [("DELETE", "/targets/edge%2F1/holds/7", None)]


async def test_where_it_does_not_answer_the_adapter_may_be_in_use() -> None:
    client = Client(away="POST")
    async with traffic(client).leaving("edge", "sql@1", 3.0) as unused:
        assert not unused
    assert len(client.asked) == 1


async def test_a_hold_that_cannot_be_ended_ends_by_itself() -> None:
    async with traffic(Client(away="DELETE")).leaving("edge", "sql@1", 3.0) as unused:
        assert unused


def test_what_is_in_use_is_for_the_server_to_know() -> None:
    demand = traffic(Client()).demand()
    assert demand.elsewhere
    assert demand.uses(("edge", "sql@1"))
