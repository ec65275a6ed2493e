"""Servers that clients are pointed at, one for all tests of this directory in a process."""

import gc
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from client_lab import Served, on_engines, on_simulators
from tests_environment import environment

Home = Callable[[str], dict[str, str]]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a test leaves of a library's connections is closed before the next test, where it would be an error."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="package")
def simulated(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("simulated")
    made = on_simulators(root, environment(root / "home"), tiny_model)
    yield made
    made.lab.close()


@pytest.fixture(scope="package")
def engines(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, home_with: Home
) -> Iterator[Mapping[str, Served]]:
    """vLLM and llama.cpp."""
    homes = {name: home_with(name) for name in ("vllm", "llama_cpp")}
    places = {name: Path(home["GARRISON_DATA_DIR"], "engines", name).resolve() for name, home in homes.items()}
    root = tmp_path_factory.mktemp("engines")
    made = on_engines(root, environment(root / "home"), places)
    yield made
    made["vllm"].lab.close()


@pytest.fixture
def served(request: pytest.FixtureRequest) -> Served:
    """What `client_lab.on` says."""
    where: str = request.param
    found: Served = (
        request.getfixturevalue("simulated") if where == "simulated" else request.getfixturevalue("engines")[where]
    )
    return found
