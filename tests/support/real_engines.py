"""Real engines. `GARRISON_TEST_ENGINES` names a data directory in which they are installed; `scripts/test` sets it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests_environment import environment

ENGINES = os.environ.get("GARRISON_TEST_ENGINES")


@pytest.fixture(scope="session")
def home_with(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, str]]:
    """`home_with("vllm")`: the environment of a user whose data directory has that engine, by a link."""

    def make(engine: str) -> dict[str, str]:
        source = Path(ENGINES, "engines", engine) if ENGINES else None
        if source is None or not source.is_dir():
            reason = f"{engine} is not installed under GARRISON_TEST_ENGINES ({ENGINES or 'unset'})"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        home = tmp_path_factory.mktemp(engine)
        (home / "data" / "engines").mkdir(parents=True)
        (home / "data" / "engines" / engine).symlink_to(source)
        return environment(home) | {"VLLM_CPU_KVCACHE_SPACE": "1"}

    return make
