"""The models on this machine: list, show, import, verify, remove. The functions behind `garrison models`.

A model is a directory below the models root, copied there by hand, imported or downloaded, or a snapshot in the hub
cache below it. New directories are built in a staging directory and renamed into place.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from garrison.base.beneath import Tree
from garrison.base.clock import Clock, SystemClock
from garrison.base.errors import InvalidError, ModelInvalidError, ModelNotFoundError
from garrison.base.home import expanded
from garrison.base.locks import file_lock
from garrison.base.presence import exists
from garrison.models.files.content import is_dir, is_file
from garrison.models.files.hashing import RECORDED_NAME
from garrison.models.files.problem import Problem
from garrison.models.files.progress import Progress
from garrison.models.files.space import FreeBytes, free_bytes
from garrison.models.files.stop_token import StoppableClock, StopToken
from garrison.models.gguf_parts import is_later_part, parts_on_disk
from garrison.models.info import ModelInfo, model_info
from garrison.models.ingest import Ingest, ingest
from garrison.models.integrity import check_weights, find_fault
from garrison.models.layout import Layout, is_model_entry, require_inside
from garrison.models.names import ModelName, parse_model
from garrison.models.record import ModelRecord, known_id, read_record
from garrison.models.shards import ShardName
from garrison.models.swap import discard
from garrison.models.validate import WeightFormat, check_model, list_files, validate_model
from garrison.models.verify import Verification, verify

__all__ = [
    "ImportedModel",
    "ModelDetails",
    "ModelEntry",
    "find_model",
    "import_model",
    "list_models",
    "remove_model",
    "removed_path",
    "show_model",
    "verify_model",
]

_LOCK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A row of `garrison models list`.

    Attributes:
        name: the directory below the root, or `org/name` in the hub cache.
        model_id: from the record or the cache; else the name.
        source: where it came from; `local` if it was copied by hand.
        bytes: of all its files.
        format: None if the model is not whole.
        reason: why it cannot be served; None if it can.
    """

    name: str
    model_id: str
    source: str
    path: Path
    revision: str | None
    bytes: int
    format: WeightFormat | None
    reason: str | None

    @property
    def valid(self) -> bool:
        return self.reason is None


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """`garrison models show`: the row, the description, whether digests are on record, and what else was noticed."""

    entry: ModelEntry
    info: ModelInfo | None
    record: ModelRecord | None
    digests_recorded: bool
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """`changed` is False if the same content was already there; `kept` is where a hand-copied predecessor went;
    `remarks`: what was noticed and does no harm."""

    model_id: str
    path: Path
    bytes: int
    changed: bool
    kept: Path | None = None
    remarks: tuple[str, ...] = ()


def list_models(layout: Layout, *, skip_tokenizer: bool = False) -> list[ModelEntry]:
    """Every model below the root, by name; broken ones with the reason. Empty if there is no root.

    Raises:
        InvalidError: the root cannot be listed.
    """
    try:
        os.scandir(layout.root).close()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InvalidError(
            f"{layout.root} cannot be listed: {error.strerror}", hint="Make it readable for this user."
        ) from None
    found = [_entry(path, name, skip_tokenizer) for name, path in _directories(layout.root)]
    found += [_hub_entry(path, skip_tokenizer) for path in _snapshots(layout.hub)]
    return sorted(found, key=lambda entry: (entry.name.lower(), entry.revision or ""))


def find_model(layout: Layout, name: str, *, skip_tokenizer: bool = False) -> ModelEntry:
    """Find a model by its name, its id, its path, or `NAME@REVISION` of a hub snapshot; and by whatever else `resolve`
    takes for it, such as `ORG/NAME` of a directory that was copied by hand.

    Raises:
        ModelNotFoundError: there is none.
        InvalidError: several match; the message lists them.
    """
    entries = list_models(layout, skip_tokenizer=skip_tokenizer)
    wanted, _, revision = name.partition("@")
    exact = [entry for entry in entries if wanted in (entry.name, str(entry.path))]
    matches = exact or [entry for entry in entries if wanted == entry.model_id]
    if revision:
        matches = [entry for entry in matches if (entry.revision or "").startswith(revision)]
    matches = matches or _aliases(layout, entries, name)
    if len(matches) == 1:
        return matches[0]
    if matches:
        several = ", ".join(str(entry.path) for entry in matches)
        raise InvalidError(f"{name} names {len(matches)} models: {several}", hint="Give the path of one of them.")
    import difflib

    close = difflib.get_close_matches(wanted, {entry.name for entry in entries}, 1)
    hint = f"Did you mean {close[0]}?" if close else "Run `garrison models list` for their names."
    raise ModelNotFoundError(f"there is no model {name} below {layout.root}", hint=hint, details={"tried": []})


def _aliases(layout: Layout, entries: list[ModelEntry], name: str) -> list[ModelEntry]:
    """The model that `resolve` finds by `name`, which is neither its name nor its id."""
    try:
        model = parse_model(name, exists=lambda _: False)
    except InvalidError:
        return []
    places = [layout.model_dir(model), *([own] if (own := layout.org_dir(model)) else [])]
    found = {entry.path: entry for entry in entries}
    here = [found[place] for place in places if place in found]
    return [one for one in here if (record := read_record(one.path)) is None or record.is_for(model)][:1]


def show_model(layout: Layout, name: str, *, skip_tokenizer: bool = False) -> ModelDetails:
    """Everything about one model; `info` is None if it is broken.

    `name` may also be a path outside the root, of a model that is whole. Raises as `find_model`.
    """
    outside = _outside(name)
    if outside is not None and layout.root not in outside.parents:
        validate_model(outside, skip_tokenizer=skip_tokenizer, allow_gguf=True)
        entry = _entry(outside, outside.name, skip_tokenizer)
    else:
        entry = find_model(layout, name, skip_tokenizer=skip_tokenizer)
    try:
        files = validate_model(entry.path, skip_tokenizer=True, allow_gguf=True)
        info, remarks = model_info(entry.path, files=files), files.remarks
    except ModelInvalidError:
        info, remarks = None, ()
    return ModelDetails(entry, info, read_record(entry.path), is_file(entry.path / RECORDED_NAME), remarks)


def verify_model(
    layout: Layout,
    name: str,
    *,
    skip_tokenizer: bool = False,
    progress: Progress | None = None,
    stop: StopToken | None = None,
) -> Verification:
    """Hash every file of the model and compare with the digests on record; record them if there are none.

    `name` may also be a path outside the root.

    Raises:
        ModelInvalidError: incomplete or corrupt by the quick check, which comes first. Changed files do not raise:
            see `Verification.raise_faults`.
        ModelNotFoundError, InvalidError: as `find_model`.
    """
    path = _outside(name) or find_model(layout, name).path
    check_weights(validate_model(path, skip_tokenizer=skip_tokenizer, allow_gguf=True))
    return verify(path, progress=progress, stop=stop)


def _outside(name: str) -> Path | None:
    """The directory of that path; None for a name."""
    path = expanded(name)
    return path.absolute() if (path.is_absolute() or name.startswith(".")) and is_dir(path) else None


def import_model(
    layout: Layout,
    origin: Path,
    *,
    model_id: str | None = None,
    replacing: bool = False,
    move: bool = False,
    skip_tokenizer: bool = False,
    progress: Progress | None = None,
    clock: Clock | None = None,
    free: FreeBytes = free_bytes,
    lock_timeout: float = _LOCK_SECONDS,
    stop: StopToken | None = None,
) -> ImportedModel:
    """Check the model in a directory, a `.gguf` file or a tar, and bring it into the library.

    Args:
        model_id: `ORG/NAME` or a name; by default the id in the record, if the directory has one, else the name of the
            directory or file.
        replacing: replace other content of that name.
        move: rename instead of copying if that is safe and on one file system; else delete the origin after the copy.

    Raises:
        ModelInvalidError: incomplete or corrupt; the message names the file.
        InvalidError: the name is taken by other content, or cannot be used.
        DiskFullError: it does not fit; raised before the copy starts.
        LockedError: another command works on this model.
        StoppedError: `stop` was stopped; the library is as it was.
    """
    stop = stop or StopToken()
    clock = StoppableClock(clock or SystemClock(), stop)
    model = _parse_id(model_id or _default_id(origin))
    with file_lock(
        layout.lock_path(model.model_id), timeout=lock_timeout, purpose=f"is working on {model.model_id}", clock=clock
    ):
        target = _target(layout, model)
        staging = layout.staging_dir(model, "import")

        def check(path: Path, tree: Tree | None) -> None:
            check_weights(validate_model(path, skip_tokenizer=skip_tokenizer, allow_gguf=True, tree=tree), tree)

        done = ingest(
            Ingest(
                origin=origin,
                target=target,
                staging=staging,
                layout=layout,
                record=ModelRecord(model.model_id, "import", clock.now().isoformat()),
                check=check,
                replacing=replacing,
                move=move,
                progress=progress,
                clock=clock,
                free=free,
                stop=stop,
            )
        )
        model_id = model.model_id if done.changed else known_id(target, model)
    remarks = validate_model(target, skip_tokenizer=skip_tokenizer, allow_gguf=True).remarks
    return ImportedModel(model_id, target, done.bytes, done.changed, done.kept, remarks)


def remove_model(
    layout: Layout, name: str, *, clock: Clock | None = None, lock_timeout: float = _LOCK_SECONDS
) -> ModelEntry:
    """Remove a model below the root; for one in the hub cache, the whole repository with its blobs.

    It is renamed away first, then deleted. If it is a link, only the link is removed.

    Raises:
        ModelNotFoundError, InvalidError: as `find_model`; or the file system refuses.
        LockedError: another command works on this model.
    """
    clock = clock or SystemClock()
    entry = find_model(layout, name)
    path = removed_path(entry)
    require_inside(path, layout.root)
    with file_lock(
        layout.lock_path(entry.model_id), timeout=lock_timeout, purpose=f"is working on {entry.model_id}", clock=clock
    ):
        try:
            for part in parts_on_disk(path):
                discard(part, layout, clock)
        except OSError as error:
            raise InvalidError(
                f"{path} cannot be removed: {error.strerror}", hint="Check the permissions of the models directory."
            ) from None
    return entry


def removed_path(entry: ModelEntry) -> Path:
    """What `remove_model` removes: of a model in the hub cache the whole repository."""
    return entry.path.parent.parent if entry.source == "hf-cache" else entry.path


def _parse_id(text: str) -> ModelName:
    model = parse_model(text, exists=lambda _: False)
    if model != ModelName(model.name, model.org):
        raise InvalidError(f"{text!r} is not ORG/NAME or a name", hint="Give it a name with --as ORG/NAME.")
    return model


def _target(layout: Layout, model: ModelName) -> Path:
    """The model's directory; below its organisation if another organisation's model has the name."""
    target = layout.model_dir(model)
    record = read_record(target)
    own = layout.org_dir(model)
    if own is not None and (exists(own) or (record is not None and not record.is_for(model))):
        return own
    return target


def _default_id(origin: Path) -> str:
    if record := read_record(origin):
        return record.model_id
    name = origin.absolute().name
    if is_dir(origin):
        return name
    if shard := ShardName.parse(name):
        return shard.of.stem
    for suffix in (".zst", ".gz", ".bz2", ".xz", ".tar", ".tgz", ".tbz2", ".txz", ".tzst", ".gguf"):
        name = name.removesuffix(suffix)
    return name


def _directories(root: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of possible models below `root`: directories with files, GGUF files, and those of organisations."""
    for path in _children(root):
        if not is_model_entry(path.name):
            continue
        if is_file(path):
            if path.suffix == ".gguf" and not is_later_part(path):
                yield path.name, path
        elif any(is_file(child) for child in _children(path)):
            yield path.name, path
        else:
            for child in _children(path):
                if is_model_entry(child.name) and any(is_file(inner) for inner in _children(child)):
                    yield f"{path.name}/{child.name}", child


def _snapshots(hub: Path) -> Iterator[Path]:
    for repository in _children(hub):
        if repository.name.startswith("models--"):
            yield from _children(repository / "snapshots")


def _children(directory: Path) -> list[Path]:
    if not is_dir(directory):
        return []
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []  # another user's directory


def _entry(path: Path, name: str, skip_tokenizer: bool) -> ModelEntry:
    record = read_record(path) if is_dir(path) else None
    return _judged(
        ModelEntry(
            name=name,
            model_id=record.model_id if record else name,
            source=record.source if record else "local",
            path=path,
            revision=record.revision if record else None,
            bytes=0,
            format=None,
            reason=None,
        ),
        skip_tokenizer,
    )


def _hub_entry(path: Path, skip_tokenizer: bool) -> ModelEntry:
    name = path.parent.parent.name.removeprefix("models--").replace("--", "/")
    return _judged(ModelEntry(name, name, "hf-cache", path, path.name, 0, None, None), skip_tokenizer)


def _size(file: Path) -> int:
    return sum(part.stat().st_size for part in parts_on_disk(file))


def _judged(entry: ModelEntry, skip_tokenizer: bool) -> ModelEntry:
    verdict = check_model(entry.path, skip_tokenizer=skip_tokenizer, allow_gguf=True)
    problem = verdict if isinstance(verdict, Problem) else find_fault(verdict)
    try:
        size = sum(list_files(entry.path).values()) if is_dir(entry.path) else _size(entry.path)
    except (ModelInvalidError, OSError):
        size = 0
    return replace(
        entry,
        bytes=size,
        format=None if isinstance(verdict, Problem) else verdict.format,
        reason=str(problem) if problem else None,
    )
