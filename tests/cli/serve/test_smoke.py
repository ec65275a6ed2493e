import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from serve_command import free_port

from garrison.sim.config import LoraModule, SimConfig
from garrison.sim.simulator import Simulator

pytestmark = pytest.mark.system


@pytest.fixture
def sim() -> Iterator[Callable[..., str]]:
    """Simulators in a loop of their own, since the command runs its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    running: list[Simulator] = []

    def start(**options: Any) -> str:
        simulator = Simulator(SimConfig(**({"port": 0, "model": "acme/tiny"} | options)))
        asyncio.run_coroutine_threadsafe(simulator.start(), loop).result(10)
        running.append(simulator)
        return f"http://127.0.0.1:{simulator.port}"

    yield start
    for simulator in running:
        asyncio.run_coroutine_threadsafe(simulator.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def test_all_well(cli: Any, sim: Any) -> None:
    url = sim()
    done = cli("smoke", url)
    assert done.code == 0
    lines = done.out.splitlines()
    assert [line[0] for line in lines[:6]] == ["✓"] * 5 + ["–"]
    assert lines[-1] == f"all checks passed at {url}"
    assert "ms" in lines[0]


def test_failure(cli: Any, sim: Any) -> None:
    done = cli("smoke", sim(), "--model", "nope")
    assert done.code == 31
    assert "✗ models" in done.out
    assert "4 of 6 checks failed at http://" in done.out.splitlines()[-1]


def test_json(cli: Any, sim: Any) -> None:
    done = cli("smoke", sim(), "--json")
    body = json.loads(done.out)
    assert (done.code, body["ok"], body["model"]) == (0, True, "acme/tiny")
    assert [step["name"] for step in body["steps"]][:2] == ["health", "models"]


def test_json_of_a_failure_is_one_object_too(cli: Any) -> None:
    done = cli("smoke", "http://127.0.0.1:9", "--json")
    assert (done.code, json.loads(done.out)["ok"]) == (31, False)


def test_key(cli: Any, sim: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    url = sim(api_keys=("sk-secret",))
    assert cli("smoke", url).code == 31
    done = cli("smoke", url, "--key-env", "MY_KEY")
    assert done.code == 0
    assert "sk-secret" not in done.out + done.err


def test_key_variable_not_set(cli: Any) -> None:
    done = cli("smoke", "http://127.0.0.1:9", "--key-env", "MY_KEY")
    assert done.code == 1
    assert "MY_KEY is not set" in done.err


def test_adapters(cli: Any, sim: Any, adapter: Any) -> None:
    modules = (LoraModule("[sql]", str(adapter("sql"))),)
    done = cli("smoke", sim(enable_lora=True, lora_modules=modules))
    assert done.code == 0
    assert "✓ adapter [sql]" in done.out


def test_no_address(cli: Any) -> None:
    assert cli("smoke", "ftp://x").code == 1


def test_where_nobody_listens_it_says_what_to_do(cli: Any) -> None:
    done = cli("smoke", str(free_port()))
    assert done.code == 31
    assert done.out.endswith("\n  → Start the server, or check its address and port.\n")
