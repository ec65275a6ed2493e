"""Simulators in a loop of their own, for tests of commands that run one too."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from garrison.sim.config import SimConfig
from garrison.sim.simulator import Simulator


@contextmanager
def simulators() -> Iterator[Callable[..., Any]]:
    """`start(**SimConfig fields)` gives a simulator with LoRA routes and a `base_url`; `stop(it)` takes it away."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    running: list[Simulator] = []

    class Running:
        def __init__(self, sim: Simulator) -> None:
            self.sim = sim
            self.url = f"http://127.0.0.1:{sim.port}"

        def stop(self) -> None:
            running.remove(self.sim)
            asyncio.run_coroutine_threadsafe(self.sim.stop(), loop).result(10)

        def load(self, name: str, path: Any) -> None:
            self._post("load", {"lora_name": name, "lora_path": str(path)})

        def unload(self, name: str) -> None:
            self._post("unload", {"lora_name": name})

        def _post(self, verb: str, body: dict[str, str]) -> None:
            import json
            import urllib.request

            request = urllib.request.Request(
                f"{self.url}/v1/{verb}_lora_adapter", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            urllib.request.urlopen(request, timeout=10).close()

    def start(**options: Any) -> Running:
        fields = {"port": 0, "model": "acme/tiny", "enable_lora": True, "runtime_lora": True} | options
        sim = Simulator(SimConfig(**fields))
        asyncio.run_coroutine_threadsafe(sim.start(), loop).result(10)
        running.append(sim)
        return Running(sim)

    try:
        yield start
    finally:
        for sim in running:
            asyncio.run_coroutine_threadsafe(sim.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
