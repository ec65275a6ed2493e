"""A podman with a store of its own."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from podman_lab import Podman, find_podman


@pytest.fixture
def podman() -> Iterator[Podman]:
    """Podman, and an image whose entry point is the simulator. Without one a developer's run skips; in CI it fails."""
    executable = find_podman()
    if executable is None:
        reason = "podman and runc are not installed, or this user is not root; on Debian: apt-get install podman runc"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="podman-") as home:  # podman takes no path of more than 50 characters
        made = Podman(executable, Path(home))
        made.make_image(sys.executable, "-P", "-m", "garrison.sim")
        yield made
        made.close()
