import os
import subprocess
import sys
from pathlib import Path

import pytest

from garrison.base.children import child_environment


@pytest.mark.parametrize(
    ("name", "value", "made"),
    [
        ("LD_LIBRARY_PATH", ":/opt/lib", "/opt/lib"),
        ("LD_LIBRARY_PATH", "/opt/lib:", "/opt/lib"),
        ("LD_LIBRARY_PATH", "/a::/b;;/c", "/a:/b:/c"),
        ("LD_LIBRARY_PATH", "lib:/a", f"{Path.cwd()}/lib:/a"),
        ("LD_LIBRARY_PATH", ":", None),
        ("LD_LIBRARY_PATH", "", None),
        ("PYTHONPATH", ":/a;b", "/a;b"),
        ("PYTHONPATH", ":", None),
    ],
)
def test_no_entry_stands_for_the_current_directory(name: str, value: str, made: str | None) -> None:
    assert child_environment({name: value}).get(name) == made


def test_a_child_takes_no_shared_library_from_the_current_directory(tmp_path: Path) -> None:
    (tmp_path / "libof-a-stranger.so").write_bytes(b"no library at all")
    load = "import ctypes\ntry: ctypes.CDLL('libof-a-stranger.so')\nexcept OSError as error: print(error)"
    environ = child_environment(os.environ | {"LD_LIBRARY_PATH": ":/nowhere"})
    done = subprocess.run(
        [sys.executable, "-c", load], env=environ, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "cannot open shared object file" in done.stdout  # looked for and not found; a found one is "too short"
