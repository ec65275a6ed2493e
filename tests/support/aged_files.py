"""Files old enough that a stamp tells every later write."""

import os
from pathlib import Path


def aged(adapter: Path) -> str:
    """Make the files of an adapter an hour old; its path, as text."""
    for file in adapter.iterdir():
        then = file.stat().st_mtime - 3600
        os.utime(file, (then, then))
    return str(adapter)
