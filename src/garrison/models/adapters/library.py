"""The adapters on this machine: list, show, import, verify, remove. The functions behind `garrison adapters`.

They are in `<data_dir>/adapters/<NAME>/`. A directory copied there by hand counts like an imported one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from garrison.base.beneath import Tree
from garrison.base.clock import Clock, SystemClock
from garrison.base.errors import InvalidError, ModelInvalidError, ModelNotFoundError
from garrison.base.locks import file_lock
from garrison.models.adapters.adapter import ADAPTER_FILES, MLX_WEIGHTS, AdapterInfo
from garrison.models.adapters.gguf import is_gguf_adapter
from garrison.models.adapters.inspect import inspect_adapter
from garrison.models.files.archive import is_archive
from garrison.models.files.content import is_dir
from garrison.models.files.progress import Progress
from garrison.models.files.space import FreeBytes, free_bytes
from garrison.models.files.stop_token import StoppableClock, StopToken
from garrison.models.ingest import Ingest, ingest
from garrison.models.layout import Layout, is_model_entry
from garrison.models.names import safe_element
from garrison.models.record import ModelRecord
from garrison.models.swap import discard
from garrison.models.validate import list_files
from garrison.models.verify import Verification, verify

__all__ = [
    "AdapterEntry",
    "ImportedAdapter",
    "find_adapter",
    "import_adapter",
    "list_adapters",
    "remove_adapter",
    "show_adapter",
    "verify_adapter",
]

_LOCK_SECONDS = 10.0
_DOCUMENTS = ("README", "LICENSE", "LICENCE", "NOTICE")
_TAR_SUFFIXES = (".zst", ".gz", ".bz2", ".xz", ".tar", ".tgz", ".tbz2", ".txz", ".tzst")
_GGUF = ".gguf"


@dataclass(frozen=True, slots=True)
class AdapterEntry:
    """A row of `garrison adapters list`. `info` is None if the adapter cannot be served; `reason` says why."""

    name: str
    path: Path
    bytes: int
    info: AdapterInfo | None
    reason: str | None

    @property
    def valid(self) -> bool:
        return self.reason is None


@dataclass(frozen=True, slots=True)
class ImportedAdapter:
    """`changed` is False if the same content was already there; `kept` is where a hand-copied predecessor went."""

    info: AdapterInfo
    changed: bool
    kept: Path | None = None


def list_adapters(layout: Layout) -> list[AdapterEntry]:
    """Every adapter, by name; broken ones with the reason. Empty if there is no directory of adapters.

    Raises:
        InvalidError: the directory cannot be listed.
    """
    if not is_dir(layout.adapters):
        return []
    try:
        paths = sorted(path for path in layout.adapters.iterdir() if is_model_entry(path.name) and is_dir(path))
    except OSError as error:
        raise InvalidError(
            f"{layout.adapters} cannot be listed: {error.strerror}", hint="Make it readable for this user."
        ) from None
    return [_entry(path) for path in paths]


def find_adapter(layout: Layout, name: str) -> AdapterEntry:
    """Find an adapter by its name, whole or broken.

    Raises:
        ModelNotFoundError: there is none.
    """
    path = layout.adapters / safe_element(name, "the adapter name")
    if is_dir(path):
        return _entry(path)
    import difflib

    close = difflib.get_close_matches(name, [entry.name for entry in list_adapters(layout)], 1)
    hint = f"Did you mean {close[0]}?" if close else "Run `garrison adapters list` for their names."
    raise ModelNotFoundError(f"there is no adapter {name} in {layout.adapters}", hint=hint, details={"tried": []})


def show_adapter(layout: Layout, name: str) -> AdapterInfo:
    """Everything about one adapter. Raises ModelNotFoundError, or ModelInvalidError for the faulty file."""
    return inspect_adapter(find_adapter(layout, name).path)


def verify_adapter(
    layout: Layout, name: str, *, progress: Progress | None = None, stop: StopToken | None = None
) -> Verification:
    """Inspect the adapter, then hash its files and compare with the digests on record; record them if there are none.

    Raises:
        ModelNotFoundError, ModelInvalidError: as `show_adapter`. Changed files do not raise: see
            `Verification.raise_faults`.
    """
    entry = find_adapter(layout, name)
    inspect_adapter(entry.path)
    return verify(entry.path, progress=progress, stop=stop)


def import_adapter(
    layout: Layout,
    origin: Path,
    *,
    name: str | None = None,
    replacing: bool = False,
    move: bool = False,
    progress: Progress | None = None,
    clock: Clock | None = None,
    free: FreeBytes = free_bytes,
    lock_timeout: float = _LOCK_SECONDS,
    stop: StopToken | None = None,
) -> ImportedAdapter:
    """Check the adapter in a directory, a GGUF file or a tar, and bring it into the library: its own files, and none of
    what a trainer leaves beside them. Arguments as `library.import_model`.

    Raises:
        ModelInvalidError: incomplete or corrupt; the message names the file.
        InvalidError: the name is taken by other content, or cannot be used.
        DiskFullError: it does not fit; raised before the copy starts.
        LockedError: another command works on this adapter.
        StoppedError: `stop` was stopped; the library is as it was.
    """
    stop = stop or StopToken()
    clock = StoppableClock(clock or SystemClock(), stop)
    name = safe_element(name or _default_name(origin), "the adapter name")
    home = _home(layout)
    with file_lock(
        layout.lock_path(f"adapters/{name}"), timeout=lock_timeout, purpose=f"is working on {name}", clock=clock
    ):
        done = ingest(
            Ingest(
                origin=origin,
                target=home.root / name,
                staging=home.staging_root / name / "import",
                layout=home,
                record=ModelRecord(name, "import", clock.now().isoformat()),
                check=_check,
                replacing=replacing,
                move=move,
                progress=progress,
                clock=clock,
                free=free,
                stop=stop,
                belongs=_belongs,
            )
        )
    return ImportedAdapter(inspect_adapter(home.root / name), done.changed, done.kept)


def remove_adapter(
    layout: Layout, name: str, *, clock: Clock | None = None, lock_timeout: float = _LOCK_SECONDS
) -> AdapterEntry:
    """Remove an adapter: rename it away, then delete it. If it is a link, only the link is removed.

    The caller must know that no target serves it any more: an engine whose adapter's files are gone dies at the next
    request for it.

    Raises:
        ModelNotFoundError: there is none.
        LockedError: another command works on this adapter.
        InvalidError: the file system refuses.
    """
    clock = clock or SystemClock()
    entry = find_adapter(layout, name)
    with file_lock(
        layout.lock_path(f"adapters/{name}"), timeout=lock_timeout, purpose=f"is working on {name}", clock=clock
    ):
        try:
            discard(entry.path, _home(layout), clock)
        except OSError as error:
            raise InvalidError(
                f"{entry.path} cannot be removed: {error.strerror}", hint="Check the permissions of its directory."
            ) from None
    return entry


def _home(layout: Layout) -> Layout:
    """A layout for staging and swaps beside the adapters: models may be on another disk."""
    return Layout(root=layout.adapters, data_dir=layout.data_dir)


def _check(path: Path, tree: Tree | None) -> None:
    inspect_adapter(path, tree)


def _belongs(directory: Path, files: Mapping[str, int], tree: Tree | None) -> dict[str, int]:
    """The adapter alone: trainers leave checkpoints, optimizer states and a tokenizer in the same directory."""
    return {name: size for name, size in files.items() if _is_part(directory / name, name, tree)}


def _is_part(file: Path, name: str, tree: Tree | None) -> bool:
    if name in (*ADAPTER_FILES, MLX_WEIGHTS) or name.startswith(_DOCUMENTS):
        return "/" not in name
    return "/" not in name and name.endswith(_GGUF) and is_gguf_adapter(file, tree)


def _entry(path: Path) -> AdapterEntry:
    try:
        info, reason = inspect_adapter(path), None
    except ModelInvalidError as error:
        info, reason = None, error.message
    try:
        size = sum(list_files(path).values())
    except ModelInvalidError:
        size = 0
    return AdapterEntry(path.name, path, size, info, reason)


def _default_name(origin: Path) -> str:
    name = origin.absolute().name
    if is_archive(origin):
        for suffix in _TAR_SUFFIXES:
            name = name.removesuffix(suffix)
    return name if is_dir(origin) else name.removesuffix(_GGUF)
