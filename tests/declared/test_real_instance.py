"""From a manifest to a process and back: an instance that is declared runs, gets its adapter, stops, and is healed."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from garrison.base.settings import Settings
from garrison.declared.spec import specs_of
from garrison.fleet.artifacts.disk import DiskArtifacts
from garrison.fleet.context import Fleet
from garrison.fleet.instance_dialer import InstanceAddress, InstanceDialer, NotRunning
from garrison.fleet.manifest.load import load_declaration
from garrison.fleet.operations.apply import apply, preview
from garrison.fleet.plan.context import PlanOptions
from garrison.fleet.values.target import InstancePlace
from garrison.fleet.values.view import SilentView
from garrison.instances.engine_runner import EngineRunner
from garrison.instances.runner import Launch, RunningEngine
from garrison.net.client import HttpDialer
from garrison.net.thread_pool import ThreadPool
from garrison.store.sql.store import open_store
from garrison.testing.instance_actions import MemoryInstanceActions

pytestmark = pytest.mark.system

_PORT = 26000 + os.getpid() % 900


class Addresses:
    """`TargetAddresses` for engines that a runner started."""

    def __init__(self) -> None:
        self.running: dict[str, RunningEngine] = {}

    async def find(self, place: InstancePlace) -> InstanceAddress | NotRunning:
        engine = self.running.get(place.name)
        if engine is None:
            return NotRunning(f"instance {place.name} is stopped")
        return InstanceAddress(engine.upstream.url, engine.upstream.key)


async def test_an_adapter_of_a_declared_instance(
    tmp_path: Path, clean_environ: Mapping[str, str], tiny_model: Path, adapter: Callable[..., Path]
) -> None:
    sql = adapter("sql", seed=1)
    (tmp_path / "garrison.yaml").write_text(
        f"stack: box\ninstances: {{tiny: {{engine: sim, model: {tiny_model}, served_model_name: acme/tiny, "
        f"env: {{MARK: {{env: MARK}}}}}}}}\nadapters: {{sql: {{target: tiny, lora_path: {sql}}}}}\n"
    )
    declared = load_declaration([str(tmp_path / "garrison.yaml")], environ={}).declaration
    settings = Settings(data_dir=tmp_path / "data")
    pool = ThreadPool("test", 4)
    runner = EngineRunner(settings, {**clean_environ, "MARK": "a-secret-word"}, ports=(_PORT, _PORT + 9), pool=pool)
    addresses = Addresses()
    store = open_store(tmp_path / "garrison.db")
    artifacts = DiskArtifacts(settings.data_dir, store.identity(), record=store)
    fleet = Fleet(
        store=store,
        dialer=InstanceDialer(HttpDialer(), addresses),
        artifacts=artifacts,
        instances=MemoryInstanceActions(),
    )
    options = PlanOptions()
    launch = Launch(specs_of(declared, settings)["tiny"], _PORT)
    try:
        owed = await apply(fleet, declared, SilentView(), options=options)
        assert owed.plan.unknown["tiny"].endswith("instance tiny is stopped")
        for _ in range(2):  # a restart loses the adapter, and the next apply heals it
            async with asyncio.timeout(60):
                addresses.running["tiny"] = engine = await runner.start(launch, lambda _: None)
            done = await apply(fleet, declared, SilentView(), options=options)
            assert done.exit_code == 0
            assert [str(one.kind) for one in done.plan.actions] == ["create"]
            assert (await preview(fleet, declared, SilentView(), options=options)).empty
            environ = Path(f"/proc/{engine.pid}/environ").read_bytes().split(b"\0")
            assert b"MARK=a-secret-word" in environ
            del addresses.running["tiny"]
            await engine.stop("the test is over")
        plan = await preview(fleet, declared, SilentView(), options=options)
        assert "instance tiny is stopped" in plan.unknown["tiny"]
        assert [str(one.kind) for one in plan.actions] == ["keep"]
    finally:
        for engine in addresses.running.values():
            await engine.stop("the test failed")
        fleet.close()
        pool.close(5)
