"""A worker's plane in the loop of the test, which is uvloop's, as in a worker."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop
from gateway_lab import GatewayLab
from link_lab import Control, LinkLab

from garrison.gateway.worker import link as link_module


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture
async def lab(tmp_path: Path) -> AsyncIterator[GatewayLab]:
    """A plane that listens. Afterwards no request is counted, and no descriptor is left."""
    made = GatewayLab(tmp_path)
    await made.start()
    try:
        yield made
        await made.settled()
    finally:
        await made.close()


@pytest_asyncio.fixture
async def linked(lab: GatewayLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LinkLab]:
    monkeypatch.setattr(link_module, "_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(link_module, "_QUIET_SECONDS", 0.01)
    control = Control(tmp_path / "link")
    await control.start()
    found = LinkLab(lab, control)
    task = asyncio.create_task(found.link.run())
    await found.connected()
    try:
        yield found
        await lab.quiet()
        assert not found.link._waiting
        assert not found.link._syncing
    finally:
        task.cancel()
        control.stop()
        await asyncio.wait([task])
        if found.link._peer is not None:
            found.link._peer.close()
