"""Real engines for the tests that need one: `GARRISON_TEST_ENGINES` names a data directory with engines installed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from garrison.engines import registry
from garrison.engines.environments import Environment, in_use

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def log_of() -> Callable[[str], list[str]]:
    """The lines of a real engine's log, kept in `fixtures/`."""
    return lambda name: (FIXTURES / f"{name}.log").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def real_engine() -> Callable[[str], Environment]:
    """A real engine by name. Without one a developer's run skips and says so; in CI it fails."""

    def find(name: str) -> Environment:
        directory = os.environ.get("GARRISON_TEST_ENGINES")
        found = in_use(Path(directory), registry.engine(name).name) if directory else None
        if found is not None:
            return found
        reason = f"{name} is not installed under GARRISON_TEST_ENGINES ({directory or 'unset'})"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)

    return find
