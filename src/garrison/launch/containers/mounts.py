"""Which files and directories a container must see to read a model. Reads the disk."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from garrison.base.presence import is_dir
from garrison.launch.containers.command import Mount

__all__ = ["mounts_of"]

_SPLIT = re.compile(r"(.*-)\d{5}(-of-\d{5}\.gguf)\Z")
_MOST_FILES = 20_000


def mounts_of(paths: Iterable[Path]) -> tuple[Mount, ...]:
    """The mounts for files and directories that are named by their real paths.

    A file of a split GGUF brings its other parts, and a link out of a directory what it leads to.
    """
    found: list[Path] = []
    for path in paths:
        for one in _needed(path):
            if not any(one == known or known in one.parents for known in found):
                found = [*(known for known in found if one not in known.parents), one]
    return tuple(Mount(path) for path in found)


def _needed(path: Path) -> Iterator[Path]:
    if is_dir(path):
        yield path
        yield from _outside(path)
    elif found := _SPLIT.match(path.name):
        yield from sorted(path.parent.glob(f"{_escaped(found[1])}[0-9][0-9][0-9][0-9][0-9]{_escaped(found[2])}"))
    else:
        yield path


def _outside(directory: Path) -> Iterator[Path]:
    for count, entry in enumerate(directory.rglob("*")):
        if count > _MOST_FILES:
            return
        if entry.is_symlink() and (target := entry.resolve()).exists() and directory not in target.parents:
            # A cache of Hugging Face has all files of a model in one directory. Beside any other file may be anything.
            blobs = target.parent.name == "blobs" and target.parent.parent in directory.parents
            yield target.parent if blobs else target


def _escaped(text: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", text)
