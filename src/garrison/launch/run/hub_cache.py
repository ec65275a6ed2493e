"""The cache directory of the Hugging Face hub, for engines that fail without one."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from garrison.models.hub_caches import user_hub_caches

__all__ = ["make_hub_cache"]


def make_hub_cache(environment: Mapping[str, str]) -> None:
    """Create the directory that an engine with this environment takes for the hub's cache.

    Where that is not possible, the engine starts all the same: it serves its model without the cache.
    """
    home = environment.get("HOME")
    named = dict(environment)
    if home and not environment.get("XDG_CACHE_HOME"):  # that of the engine, not of this process
        named["XDG_CACHE_HOME"] = str(Path(home, ".cache"))
    for cache in user_hub_caches(named)[:1]:
        with contextlib.suppress(OSError, ValueError):
            cache.mkdir(parents=True, exist_ok=True)
