"""The models on disk as llamactl lists them, and which of them a removal means. What reads the disk blocks."""

import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from garrison.base.errors import ConflictError, ModelInvalidError, ModelNotFoundError
from garrison.instances.values.spec import InstanceSpec
from garrison.models.layout import Layout
from garrison.models.library import ModelEntry, list_models, remove_model
from garrison.models.validate import list_files

__all__ = ["OnDisk", "Removed", "choose", "on_disk", "remove", "used_by"]

_MOST_FILES = 1000
_HUB = "hf-cache"


@dataclass(frozen=True, slots=True)
class OnDisk:
    """One model below the models root, with the bytes of its files by name."""

    entry: ModelEntry
    files: Mapping[str, int]

    def to_json(self, users: Sequence[str], node: str) -> dict[str, Any]:
        """llamactl's fields, and Garrison's."""
        entry = self.entry
        directory = entry.path if entry.path.suffix != ".gguf" else entry.path.parent
        return {
            "node": node,
            "repo": entry.model_id,
            "tag": entry.revision or "",
            "files": [
                {"name": name, "path": str(directory / name), "size_bytes": size, "type": _kind(name)}
                for name, size in list(self.files.items())[:_MOST_FILES]
            ],
            "size_bytes": entry.bytes,
            "name": entry.name,
            "source": entry.source,
            "path": str(entry.path),
            "format": entry.format,
            "valid": entry.valid,
            "reason": entry.reason,
            "used_by": list(users),
        }


@dataclass(frozen=True, slots=True)
class Removed:
    """What is gone."""

    entries: tuple[ModelEntry, ...]


def on_disk(layout: Layout) -> list[OnDisk]:
    """Return every model, by name, whole or broken. Blocks.

    Raises:
        InvalidError: the models root cannot be listed.
    """
    return [OnDisk(entry, _files(entry.path)) for entry in list_models(layout)]


def choose(entries: Iterable[ModelEntry], repo: str, tag: str = "") -> list[ModelEntry]:
    """Return the models that `repo` and `tag` name: every version of `ORG/NAME` or of a name, or those of a tag, which
    is the beginning of a revision, or the quantization of a GGUF file.

    Raises:
        ModelNotFoundError: there is none.
        ConflictError: the tag names one of several versions that a Hugging Face cache keeps together.
    """
    every = [one for one in entries if repo in (one.model_id, one.name)]
    found = [one for one in every if not tag or _has_tag(one, tag)]
    if not found:
        asked = f"{repo}:{tag}" if tag else repo
        raise ModelNotFoundError(
            f"there is no model {asked[:300]!r} on disk", hint="GET /api/v1/models lists those that there are.",
            details={"model_id": repo, "tried": []},
        )  # fmt: skip
    kept_too = [one for one in every if one.source == _HUB and one not in found]
    if kept_too and any(one.source == _HUB for one in found):
        raise ConflictError(
            f"the cache keeps {len(kept_too)} other versions of {repo} in the same files",
            hint="Leave the tag out to remove all of them.",
        )
    return found


def used_by(entry: ModelEntry, specs: Iterable[InstanceSpec]) -> list[str]:
    """Return the names of the instances that name this model in an option or in their command."""
    return sorted(spec.name for spec in specs if any(_names(text, entry) for text in _texts(spec)))


def remove(layout: Layout, repo: str, tag: str, specs: Sequence[InstanceSpec]) -> Removed:
    """Remove models from the disk. Blocks.

    Args:
        specs: of every instance.

    Raises:
        ModelNotFoundError: there is none.
        ConflictError: an instance uses it. Details: `instances`.
        LockedError: it is being downloaded.
        InvalidError: the file system refuses.
    """
    chosen = choose(list_models(layout), repo, tag)
    users = sorted({name for one in chosen for name in used_by(one, specs)})
    if users:
        raise ConflictError(
            f"model {repo} is used by {', '.join(users[:10])}",
            hint="Delete these instances, or give them another model.",
            details={"instances": users},
        )
    gone: list[ModelEntry] = []
    for one in chosen:
        if one.source == _HUB and any(other.source == _HUB for other in gone):
            continue  # the cache of a repository goes as a whole
        gone.append(remove_model(layout, str(one.path)))
    return Removed(tuple(gone))


def _files(path: Path) -> dict[str, int]:
    try:
        status = path.stat()
        return {path.name: status.st_size} if stat.S_ISREG(status.st_mode) else list_files(path)
    except (ModelInvalidError, OSError):
        return {}


def _kind(name: str) -> str:
    lower = name.lower()
    if lower.endswith(".gguf"):
        return "mmproj" if "mmproj" in lower else "gguf"
    return "safetensors" if lower.endswith(".safetensors") else "other"


def _has_tag(entry: ModelEntry, tag: str) -> bool:
    if (entry.revision or "").startswith(tag):
        return True
    return entry.format == "gguf" and f"-{tag.lower()}" in f"-{entry.name.lower().removesuffix('.gguf')}"


def _texts(spec: InstanceSpec) -> Iterator[str]:
    yield from _strings(spec.options)
    if spec.custom is not None:
        yield from spec.custom.argv


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _strings(one)


def _names(text: str, entry: ModelEntry) -> bool:
    """Whether an option's value is this model: a name, a name with a revision or a tag, a path, or a file in it."""
    if text.startswith("/"):
        path = Path(text)
        return path == entry.path or entry.path in path.parents
    name = text.partition("@")[0].partition(":")[0]
    known = {entry.model_id, entry.name}
    if name in known:
        asked = text.partition("@")[2]
        return not (asked and entry.revision) or _may_be(asked, entry.revision)
    return name.endswith(".gguf") and any(name.startswith(f"{one}/") for one in known)


def _may_be(asked: str, revision: str) -> bool:
    """Whether a revision that was asked for may be that commit: a branch or a tag may be any."""
    is_commit = len(asked) >= 7 and all(one in "0123456789abcdef" for one in asked)
    return not is_commit or revision.startswith(asked)
