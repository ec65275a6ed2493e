"""The environment tests run commands in: nothing of the developer's own reaches them."""

import os
from pathlib import Path

__all__ = ["environment"]

_OWN_PREFIXES = ("GARRISON_", "VLLM_", "_VLLM_", "HF_", "FLOX_", "R2_", "XDG_", "CUDA_VISIBLE")


def environment(home: Path) -> dict[str, str]:
    """This process's environment without anything that Garrison reads; data, config and home are below `home`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_PREFIXES)}
    return kept | {
        "HOME": str(home),
        "GARRISON_DATA_DIR": str(home / "data"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_DATA_HOME": str(home / "share"),
        "NO_COLOR": "1",
        "TERM": "dumb",
        "COLUMNS": "200",
    }
