"""`websockets`, through `/upstream/NAME/…` to a server that echoes."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from client_lab import SIMULATED, Served, on
from openai import OpenAI
from server_lab import wait_for
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

pytestmark = [pytest.mark.system, pytest.mark.timeout(200)]

REALTIME = "/upstream/recorded/v1/realtime"


def opened(served: Served, path: str = REALTIME, *, key: str | None = None, **options: Any) -> ClientConnection:
    headers = {"Authorization": f"Bearer {key or served.key}"}
    url = served.url.replace("http://", "ws://") + path
    return connect(url, additional_headers=headers, proxy=None, max_size=2**25, open_timeout=60, **options)


@on(SIMULATED)
def test_messages_both_ways(served: Served) -> None:
    with opened(served, f"{REALTIME}?model=x", subprotocols=[Subprotocol("realtime")]) as socket:
        greeting = json.loads(socket.recv(timeout=30))
        assert greeting == {"path": "/v1/realtime?model=x", "authorization": None}, "the client's key stays here"
        assert socket.subprotocol == "realtime"
        for message in ("hello", "é" * 1000, b"", bytes(range(256)) * 40_000):
            socket.send(message)
            assert socket.recv(timeout=30) == message
        assert socket.ping().wait(30)
        for number in range(300):
            socket.send(str(number))
        assert [socket.recv(timeout=30) for _ in range(300)] == [str(number) for number in range(300)]
        assert served.lab.instance("recorded")["requests"] == 1, "it is in use, and not stopped"
    assert socket.close_code == 1000
    wait_for(lambda: served.lab.instance("recorded")["requests"] == 0, 10, "over")


@on(SIMULATED)
def test_by_another_name(served: Served) -> None:
    with opened(served, "/upstream/claude-haiku/v1/realtime", compression=None) as socket:
        socket.recv(timeout=30)
        socket.send("hello")
        assert socket.recv(timeout=30) == "hello"


@on(SIMULATED)
def test_a_cold_instance_is_started(served: Served) -> None:
    served.stop("recorded")
    with opened(served) as socket:
        assert socket.recv(timeout=30)
    assert served.lab.instance("recorded")["state"] == "running"


@on(SIMULATED)
def test_what_is_refused(served: Served) -> None:
    limited = served.make_key("sockets", permission_mode="per_instance", instances=["fast"])
    cases = [
        (REALTIME, "none", 401),
        (REALTIME, limited, 403),
        ("/upstream/recorder/v1/realtime", None, 404),
        ("/upstream/recorded/health", None, 404),
        ("/upstream/fast/v1/realtime", None, 404),
        ("/v1/chat/completions", None, 404),
    ]
    for path, key, status in cases:
        with pytest.raises(InvalidStatus) as raised, opened(served, path, key=key):
            pass
        assert raised.value.response.status_code == status, path


@on(SIMULATED)
def test_many_at_once(served: Served) -> None:
    def talk(number: int) -> int:
        with opened(served) as socket:
            socket.recv(timeout=60)
            for turn in range(20):
                socket.send(f"{number} {turn}")
                assert socket.recv(timeout=60) == f"{number} {turn}"
        return number

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(talk, range(48))) == list(range(48))


@on(SIMULATED)
def test_the_instance_dies_meanwhile(served: Served) -> None:
    with opened(served) as socket:
        socket.recv(timeout=30)
        os.kill(served.lab.instance("recorded")["pid"], signal.SIGKILL)
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=60)


@pytest.mark.filterwarnings("ignore:connect:DeprecationWarning")  # of how `openai` calls `websockets`
@on(SIMULATED)
def test_openai_realtime(served: Served) -> None:
    client = OpenAI(base_url=f"{served.url}/upstream/recorded/v1", api_key=served.key)
    with client.realtime.connect(model="recorded") as connection:
        assert json.loads(connection.recv_bytes())["path"] == "/v1/realtime?model=recorded"
        connection.response.create()
        assert json.loads(connection.recv_bytes())["type"] == "response.create"
