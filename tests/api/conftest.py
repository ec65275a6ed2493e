"""Fixtures for the API: an application over the twins, with a client in the same process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from served_api import ServedApi


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[ServedApi]:
    """`served.client.get("/api/v1/instances")`: an application in memory, which ends after the test."""
    made = await ServedApi(tmp_path).startup()
    yield made
    await made.shutdown()
