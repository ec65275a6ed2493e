"""Whether `/proc` may be used. Other systems have none; there psutil and process groups do the work."""

import os
from pathlib import Path

__all__ = ["WITHOUT_PROC", "has_proc"]

WITHOUT_PROC = "GARRISON_WITHOUT_PROC"
"""A variable for tests: with any value, Linux is treated as a system without `/proc`, pidfds and subreapers. Children
inherit it, so that a server and its shims agree on what identifies a process."""


def has_proc() -> bool:
    """Whether processes can be read from `/proc`."""
    return WITHOUT_PROC not in os.environ and Path("/proc/self/stat").exists()
