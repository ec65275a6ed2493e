"""A real server on a data directory of its own."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from server_lab import Labs, ServerLab


@pytest.fixture
def labs(tmp_path: Path, clean_environ: Mapping[str, str]) -> Iterator[Labs]:
    """`labs(**settings)`: a lab whose server is not started yet."""
    made: list[ServerLab] = []

    def make(**settings: str) -> ServerLab:
        made.append(ServerLab(tmp_path / f"lab{len(made)}", dict(clean_environ), **settings))
        (tmp_path / f"lab{len(made) - 1}").mkdir()
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def lab(labs: Labs) -> ServerLab:
    """A lab whose server runs."""
    made = labs()
    made.start()
    return made
