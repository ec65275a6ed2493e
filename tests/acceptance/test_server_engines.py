"""One server with three real engines, driven as the seed's curl calls drive it."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from server_lab import ServerLab, wait_for
from tiny_model import make_gguf

pytestmark = [pytest.mark.engine("vllm"), pytest.mark.engine("llama_cpp"), pytest.mark.engine("mlx_lm")]

Home = Callable[[str], dict[str, str]]
NAMES = ("big", "small", "apple")
PROMPT = "Hello there, tell me about the weather in the mountains today, please."
"""Long on purpose: on a CPU with AMX, a first prompt of four tokens kills vLLM 0.32."""
_START_SECONDS = 240


class Engines:
    """A server and the options of its three instances."""

    def __init__(self, lab: ServerLab, model: Path, gguf: Path) -> None:
        self.lab = lab
        vllm = {"model": str(model), "enforce_eager": True, "dtype": "bfloat16", "max_model_len": 512}
        self.options: dict[str, dict[str, Any]] = {
            "big": {"backend_type": "vllm", "backend_options": vllm},
            "small": {"backend_type": "llama_cpp", "backend_options": {"model": str(gguf), "ctx-size": 512}},
            "apple": {"backend_type": "mlx_lm", "backend_options": {"model": str(model)}},
        }

    def curl(self, method: str, path: str, body: Any = None) -> Any:
        """The seed's call, as it is written there."""
        given = [] if body is None else ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        address = f"http://localhost:{self.lab.port}{path}"
        argv = ["curl", "-sS", "--noproxy", "*", "-X", method, address, "-H", "Authorization: Bearer any", *given]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=True)
        return json.loads(done.stdout)

    def chat(self, name: str) -> str:
        body = {"model": name, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 4}
        answer = self.curl("POST", "/v1/chat/completions", body)
        assert "choices" in answer, answer
        message = answer["choices"][0]["message"]
        return str(message.get("content") or message.get("reasoning") or "empty")

    def states(self) -> dict[str, str]:
        return {one["name"]: one["state"] for one in self.curl("GET", "/api/v1/instances")}

    def processes(self) -> set[int]:
        """Every process below a shim of this server."""
        found: set[int] = set()
        for one in self.curl("GET", "/api/v1/instances"):
            if one["pid"] is not None and psutil.pid_exists(one["pid"]):
                main = psutil.Process(one["pid"])
                found |= {main.pid, *(child.pid for child in main.children(recursive=True))}
        return found


@pytest.fixture
def engines(home_with: Home, tmp_path: Path, tiny_model: Path) -> Iterator[Callable[..., Engines]]:
    labs: list[ServerLab] = []

    def make(**settings: str) -> Engines:
        (tmp_path / "lab").mkdir()
        lab = ServerLab(tmp_path / "lab", home_with("vllm"), on_demand_start_timeout=str(_START_SECONDS), **settings)
        lab.http.timeout = _START_SECONDS
        labs.append(lab)
        (lab.data_dir / "engines").mkdir(parents=True)
        for engine in ("vllm", "llama_cpp", "mlx_lm"):
            source = Path(home_with(engine)["GARRISON_DATA_DIR"], "engines", engine).resolve()
            (lab.data_dir / "engines" / engine).symlink_to(source)
        lab.start()
        return Engines(lab, tiny_model, make_gguf(tmp_path / "tiny.gguf"))

    yield make
    for lab in labs:
        lab.close()


@pytest.mark.timeout(900)
def test_three_engines_started_on_demand_served_and_stopped_when_idle(engines: Callable[..., Engines]) -> None:
    there = engines(residency="1")
    for name, options in there.options.items():
        made = there.curl("POST", f"/api/v1/instances/{name}", options)
        assert (made["name"], made["status"]) == (name, "stopped")
    for name in NAMES:
        assert there.chat(name)
    assert there.states() == dict.fromkeys(NAMES, "running")
    seen = [one["costs"]["start_seconds"] for one in there.curl("GET", "/api/v1/instances")]
    assert all(seconds > 0 for seconds in seen)
    with there.lab.http.stream("GET", "/api/v1/instances/small/logs/stream") as answer:
        assert next(answer.iter_lines()).startswith("event: line")
    processes = there.processes()
    assert len(processes) >= 4, "vLLM has an engine core beside its API server"
    for name in NAMES:
        there.lab.api("PATCH", f"/instances/{name}", {"idle_timeout": 0.02})
        assert there.chat(name)
    wait_for(lambda: set(there.states().values()) == {"stopped"}, 60, "all stopped when idle")
    assert not [pid for pid in processes if psutil.pid_exists(pid)]


@pytest.mark.timeout(900)
def test_they_are_evicted_for_each_other(engines: Callable[..., Engines]) -> None:
    there = engines(residency="0", max_running_instances="1")
    for name, options in there.options.items():
        there.curl("POST", f"/api/v1/instances/{name}", options)
    for name in NAMES:
        assert there.chat(name)
        assert there.states() == {one: "running" if one == name else "stopped" for one in NAMES}
    assert "makes room for apple" in there.curl("GET", "/api/v1/instances/small")["reason"]


@pytest.mark.timeout(900)
def test_a_memory_limit_that_fits_two_of_three(engines: Callable[..., Engines]) -> None:
    there = engines(residency="0", memory_limit="7GiB")
    for name, options in there.options.items():
        there.curl("POST", f"/api/v1/instances/{name}", options | {"memory": "3GiB"})
    for name in NAMES:
        assert there.chat(name)
    states = there.states()
    assert states["apple"] == "running"
    assert sorted(states.values()) == ["running", "running", "stopped"]
    explained = there.curl(
        "GET", f"/api/v1/instances/{min(states, key=lambda name: states[name] == 'running')}/explain"
    )
    assert explained["verdict"] == "evicts"


@pytest.mark.timeout(900)
def test_nothing_of_vllm_survives_its_main_process(engines: Callable[..., Engines]) -> None:
    there = engines()
    there.curl("POST", "/api/v1/instances/big", there.options["big"] | {"auto_restart": False})
    assert there.chat("big")
    processes = there.processes()
    assert len(processes) >= 2
    there.lab.kill()
    there.lab.start()
    assert there.processes() == processes, "adopted"
    assert there.chat("big")
    os.kill(there.curl("GET", "/api/v1/instances/big")["pid"], signal.SIGKILL)
    wait_for(lambda: not [pid for pid in processes if psutil.pid_exists(pid)], 30, "no engine core left")
    wait_for(lambda: there.states()["big"] == "failed", 10, "failed")
    assert "SIGKILL" in there.curl("GET", "/api/v1/instances/big")["reason"]
