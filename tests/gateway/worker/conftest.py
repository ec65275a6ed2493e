"""A worker's plane in the loop of the test, which is uvloop's, as in a worker."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest_asyncio
import uvloop
from gateway_lab import GatewayLab


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
