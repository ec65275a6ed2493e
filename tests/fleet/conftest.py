"""A fleet in memory for the tests of operations and of the agent."""

from collections.abc import Iterator

import pytest
from fleet_world import World


@pytest.fixture
def world() -> Iterator[World]:
    """A fleet of in-memory targets, closed after the test."""
    made = World()
    yield made
    made.fleet.close()
