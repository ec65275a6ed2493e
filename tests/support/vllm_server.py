"""A real vLLM that serves the tiny model and takes adapters at run time: one that the tests start, or one that is up.

One that is up is named by `GARRISON_TEST_VLLM_URL` (`scripts/test --vllm-url URL` sets it). It serves what
`scripts/tiny_model.py model` makes, as docs/testing.md says. Its key is in `GARRISON_TEST_VLLM_KEY`, and adapters are
made in `GARRISON_TEST_SHARED_DIR`, which it must be able to read by the same path.
"""

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

__all__ = ["ALIAS", "LOAD", "UNLOAD", "Server", "StartedServer", "installed_vllm", "server_that_is_up"]

ALIAS = "tiny-alias"
BASE = "acme/tiny"
FLAGS = (
    *("--served-model-name", BASE, ALIAS, "--host", "127.0.0.1", "--max-model-len", "512", "--block-size", "128"),
    *("--enable-lora", "--max-lora-rank", "16", "--dtype", "bfloat16", "--enforce-eager"),
)
START_SECONDS = 240.0
STOP_SECONDS = 60.0
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


@dataclass
class Server:
    """A server as anybody sees it who is not Garrison.

    Attributes:
        key: None where it takes requests without one.
        shared: a directory that the server reads by the same path.
    """

    url: str
    key: str | None
    shared: Path

    def call(self, method: str, path: str, body: Any = None, *, timeout: float = 60.0) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx2.request(method, self.url + path, json=body, headers=headers, timeout=timeout, trust_env=False)

    def entries(self) -> dict[str, dict[str, Any]]:
        """The model list, by name."""
        answer = self.call("GET", "/v1/models")
        assert answer.status_code == 200, answer.text
        return {entry["id"]: entry for entry in answer.json()["data"]}

    def adapters(self) -> dict[str, str]:
        """Names and paths of the adapters that are served."""
        return {name: entry["root"] for name, entry in self.entries().items() if entry["parent"] is not None}

    @property
    def base(self) -> str:
        """The first name of the base model, on which adapters hang."""
        return next(name for name, entry in self.entries().items() if entry["parent"] is None)

    def load(self, name: str, path: Path) -> None:
        answer = self.call("POST", LOAD, {"lora_name": name, "lora_path": str(path)})
        assert answer.status_code == 200, answer.text

    def unload(self, name: str) -> None:
        answer = self.call("POST", UNLOAD, {"lora_name": name})
        assert answer.status_code == 200, answer.text

    def answer(self, model: str, prompt: str | list[int] = "able acid acre") -> str:
        body = {"model": model, "prompt": prompt, "max_tokens": 8, "temperature": 0}
        answer = self.call("POST", "/v1/completions", body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["text"])

    def likely(self, model: str, prompt: list[int]) -> tuple[list[str], list[float]]:
        """The next tokens, and the log probability of each."""
        body = {"model": model, "prompt": prompt, "max_tokens": 8, "temperature": 0, "logprobs": 1}
        answer = self.call("POST", "/v1/completions", body)
        assert answer.status_code == 200, answer.text
        told = answer.json()["choices"][0]["logprobs"]
        return list(told["tokens"]), list(told["token_logprobs"])

    def chat(self, model: str) -> str:
        messages = [{"role": "user", "content": "Hello"}]
        body = {"model": model, "messages": messages, "max_tokens": 12, "temperature": 0}
        answer = self.call("POST", "/v1/chat/completions", body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    def warm_up(self) -> None:
        """vLLM compiles what gives log probabilities when they are first asked for, which takes longer than a probe
        that nobody insists on waits. The prompt is not shorter: on a CPU with AMX, a vLLM whose first prompt has four
        tokens dies of an illegal instruction."""
        body = {"model": self.base, "prompt": "able acid acre", "max_tokens": 1, "logprobs": 1}
        answer = self.call("POST", "/v1/completions", body)
        assert answer.status_code == 200, answer.text

    def healthy(self) -> bool:
        try:
            return self.call("GET", "/health", timeout=5.0).status_code == 200
        except httpx2.TransportError:
            return False


class StartedServer(Server):
    """One that the tests start and stop; it comes back at the same address."""

    def __init__(self, executable: Path, model: Path, home: Path, *, flags: tuple[str, ...] = ()) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        super().__init__(url=f"http://127.0.0.1:{self.port}", key="fleet-suite", shared=home)
        self._executable = executable
        self._model = model
        self._flags = (*FLAGS, *flags)
        self._log = home / "vllm.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.routes = True

    def start(self, *, routes: bool = True) -> None:
        """Begin to start; `wait` until it is there. `routes`: whether adapters can be loaded at run time."""
        own = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"} if routes else {}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("VLLM_", "GARRISON_"))}
        settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_API_KEY": str(self.key), "HF_HUB_OFFLINE": "1"}
        argv = [str(self._executable), "serve", str(self._model), *self._flags, "--port", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                argv, stdout=log, stderr=log, env=kept | settings | own, start_new_session=True
            )
        self.routes = routes

    def wait(self) -> float:
        """Until it is healthy; the monotonic time at which it was."""
        deadline = time.monotonic() + START_SECONDS
        while not self.healthy():
            assert self._process is not None
            assert self._process.poll() is None, self.said()[-4000:]
            assert time.monotonic() < deadline, self.said()[-4000:]
            time.sleep(0.05)
        return time.monotonic()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def said(self) -> str:
        return self._log.read_text(errors="replace")


def server_that_is_up(temporary: Path) -> Server | None:
    """The one that `GARRISON_TEST_VLLM_URL` names; None where it names none."""
    url = os.environ.get("GARRISON_TEST_VLLM_URL")
    if not url:
        return None
    shared = Path(os.environ.get("GARRISON_TEST_SHARED_DIR") or temporary).resolve()
    found = Server(url.rstrip("/").removesuffix("/v1"), os.environ.get("GARRISON_TEST_VLLM_KEY"), shared)
    assert found.healthy(), f"nothing healthy answers at {found.url}"
    length = found.entries()[found.base]["max_model_len"]
    assert length >= 512, f"{found.url} must take 512 tokens (--max-model-len), and takes {length}"
    return found


def installed_vllm() -> Path:
    """The program below `GARRISON_TEST_ENGINES`; without one the test is left out, in CI it fails."""
    from garrison.engines.environments import in_use

    directory = os.environ.get("GARRISON_TEST_ENGINES")
    found = in_use(Path(directory), "vllm") if directory else None
    if found is not None:
        return found.executable
    reason = f"vllm is not installed under GARRISON_TEST_ENGINES ({directory or 'unset'})"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
