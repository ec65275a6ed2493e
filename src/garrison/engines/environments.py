"""Engine environments below the data directory: which are complete, and which one is in use.

<data_dir>/engines/<engine>/<version>[+device]/       a virtual environment
<data_dir>/engines/<engine>/<version>[+device]/garrison-engine.json    written last: without it the rest is incomplete
<data_dir>/engines/<engine>/in-use                    the name of the environment `engine use` chose
"""

import contextlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from garrison.base.errors import InvalidError
from garrison.base.files import write_atomic

__all__ = [
    "MARKER",
    "Environment",
    "environment_of",
    "environments",
    "forget_choice",
    "in_use",
    "mark_complete",
    "root",
    "use",
]

MARKER = "garrison-engine.json"
_IN_USE = "in-use"


@dataclass(frozen=True, slots=True)
class Environment:
    """A complete environment. `device` is `cpu`, `cuda` or `metal`; `executable` is absolute."""

    engine: str
    version: str
    device: str
    path: Path
    executable: Path
    installed_at: str

    @property
    def name(self) -> str:
        return self.path.name

    def to_json(self) -> dict[str, Any]:
        return {key: str(value) for key, value in asdict(self).items()} | {"name": self.name}


def root(data_dir: Path, engine: str) -> Path:
    return data_dir / "engines" / engine


def environments(data_dir: Path, engine: str) -> list[Environment]:
    """The complete environments, oldest version first."""
    found = [_read(engine, place / MARKER) for place in _places(root(data_dir, engine))]
    return sorted((item for item in found if item is not None), key=lambda item: (version_key(item.version), item.name))


def _places(directory: Path) -> list[Path]:
    """The directories in `directory` that may be environments; none where this user may not look."""
    try:
        with os.scandir(directory) as entries:
            return [Path(entry.path) for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return []


def environment_of(data_dir: Path, engine: str, name: str) -> Environment:
    """Find the environment called `name` (`0.32.0+cpu`), or the only one of version `name` (`0.32.0`).

    Raises:
        InvalidError: there is none, or more than one.
    """
    known = environments(data_dir, engine)
    exact = [item for item in known if item.name == name]
    found = exact or [item for item in known if item.version == name]
    if len(found) == 1:
        return found[0]
    names = ", ".join(item.name for item in known) or "none"
    what = f"{len(found)} environments" if found else "no environment"
    raise InvalidError(
        f"{engine} has {what} for {name!r}; installed: {names}",
        hint=f"`garrison engine install {engine} --version {name.split('+')[0]}` installs it."
        if not found
        else "Give its name with the device.",
    )


def in_use(data_dir: Path, engine: str) -> Environment | None:
    """The environment that `engine use` chose; the newest if nothing was chosen or the choice is gone."""
    known = environments(data_dir, engine)
    try:
        chosen = (root(data_dir, engine) / _IN_USE).read_text(encoding="utf-8").strip()
    except OSError:
        chosen = ""
    return next((item for item in known if item.name == chosen), known[-1] if known else None)


def use(data_dir: Path, engine: str, name: str) -> Environment:
    """Choose the environment to serve with from now on.

    Raises:
        InvalidError: it is not installed.
    """
    chosen = environment_of(data_dir, engine, name)
    write_atomic(root(data_dir, engine) / _IN_USE, chosen.name + "\n")
    return chosen


def forget_choice(data_dir: Path, engine: str, name: str) -> None:
    """Take back the choice of an environment that is removed: one that is installed later under its name is another."""
    file = root(data_dir, engine) / _IN_USE
    with contextlib.suppress(OSError):
        if file.read_text(encoding="utf-8").strip() == name:
            file.unlink()


def mark_complete(path: Path, *, engine: str, version: str, device: str, executable: str, installed_at: str) -> None:
    """Mark an installation as complete, which makes it visible."""
    content = {
        "schema": 1,
        "engine": engine,
        "version": version,
        "device": device,
        "executable": executable,
        "installed_at": installed_at,
    }
    write_atomic(path / MARKER, json.dumps(content, indent=2) + "\n")


def version_key(version: str) -> tuple[int, ...]:
    """`0.32.0+cpu` to (0, 32, 0), for comparing versions."""
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0]))


def _read(engine: str, marker: Path) -> Environment | None:
    try:
        content = json.loads(marker.read_text(encoding="utf-8"))
        return Environment(
            engine=engine,
            version=str(content["version"]),
            device=str(content["device"]),
            path=marker.parent,
            executable=marker.parent / str(content["executable"]),
            installed_at=str(content["installed_at"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
