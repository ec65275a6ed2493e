"""The parts of a split GGUF on disk."""

import os
from pathlib import Path

from garrison.models.files.content import is_file
from garrison.models.shards import ShardName

__all__ = ["is_later_part", "parts_on_disk"]


def parts_on_disk(path: Path) -> list[Path]:
    """What belongs to `path`: of a split GGUF, all parts that are there; else the path itself."""
    shard = ShardName.parse(path.name) if is_file(path) else None
    if shard is None:
        return [path]
    return [part for name in shard.of.names(()) if os.path.lexists(part := path.with_name(name))]


def is_later_part(path: Path) -> bool:
    """Whether it belongs to a split GGUF that is listed by its first part."""
    shard = ShardName.parse(path.name)
    return shard is not None and shard.number > 1 and is_file(path.with_name(shard.of.first))
