"""Adapter files on this machine: the `Artifacts` of real disks, over digests, checks and stores."""

import contextlib
import ipaddress
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from garrison.base.clock import Clock, SystemClock
from garrison.base.errors import InvalidError, ModelInvalidError
from garrison.fleet.artifacts.check import being_written, broken, refusal, single_file
from garrison.fleet.artifacts.digests import AdapterDigests, ContentRecord, read_stamp
from garrison.fleet.artifacts.entry import fault_of, intact
from garrison.fleet.artifacts.protocol import Content, EntryFault, Staged
from garrison.fleet.artifacts.store import AdapterStore
from garrison.fleet.values.target import NO_STORE, TargetSpec, instance_place
from garrison.models.adapters.adapter import ADAPTER_FILES, AdapterInfo
from garrison.models.adapters.fit import Base, Fit, check_against_base, read_base
from garrison.models.adapters.inspect import inspect_adapter
from garrison.models.files.content import file_size, is_dir, is_file, open_tree
from garrison.models.validate import PARAMS_NAME

__all__ = ["DiskArtifacts", "default_store", "is_here", "store_root"]

_MOST_BASES = 8


class DiskArtifacts:
    """Reads, checks and stages adapter files. Thread-safe.

    Args:
        data_dir: Garrison's data directory, which holds the default store.
        identity: of the database (`FleetStore.identity`), as the owner of what is staged.
        record: keeps digests beyond the life of this process.
    """

    def __init__(
        self, data_dir: Path, identity: str, *, record: ContentRecord | None = None, clock: Clock | None = None
    ) -> None:
        self._data_dir = data_dir.absolute()
        self._identity = identity
        self._clock = clock or SystemClock()
        self._digests = AdapterDigests(record, self._clock)
        self._stores: dict[Path, AdapterStore] = {}
        self._whole: dict[str, tuple[str, int]] = {}
        """Entries that were found intact, with their marks at that time."""
        self._bases: dict[str, tuple[float, Base]] = {}

    def digest(self, path: str) -> str | None:
        return self._digests.digest(path)

    def check(self, path: str, target: TargetSpec, base_root: str | None) -> Content | None:
        if not path.startswith("/"):
            return None
        if is_file(Path(path)):
            return Content(path, failure=single_file(Path(path)))
        if not is_dir(Path(path)):
            return None
        before = read_stamp(path)
        if (outside := _leads_out(Path(path))) is not None:
            # It is never copied. Without a store it is loaded in place: the server follows links with its own rights.
            return Content(path, failure=broken(outside)) if store_root(target, self._data_dir) else None
        try:
            with open_tree(Path(path)) as tree:
                info = inspect_adapter(Path(path), tree)
        except ModelInvalidError as error:
            still = read_stamp(path) == before
            return Content(path, failure=broken(error) if still else being_written(path))
        fit = self._fit(info, base_root)
        failure = refusal(info, target=target.name, max_lora_rank=target.max_lora_rank, misfits=fit.problems)
        digest = self.digest(path)
        if digest is None or read_stamp(path) != before:
            failure = being_written(path)
        return Content(path, digest, info, failure, fit.untold)

    def can_stage(self, target: TargetSpec) -> bool:
        """A declared store is created only in an existing directory: if its disk is not mounted, that is missing."""
        root = store_root(target, self._data_dir)
        if root is None:
            return False
        if is_dir(root):
            return os.access(root, os.W_OK | os.X_OK)
        return target.adapter_store is None or os.access(root.parent, os.W_OK | os.X_OK)

    def staged_path(self, target: TargetSpec, digest: str) -> str | None:
        root = store_root(target, self._data_dir)
        return str(root / digest) if root is not None else None

    def holds(self, target: TargetSpec, digest: str) -> bool:
        root = store_root(target, self._data_dir)
        return root is not None and self._store(root).holds(digest)

    def stage(self, target: TargetSpec, source: str, digest: str, *, instead_of: str | None = None) -> Staged:
        root = store_root(target, self._data_dir)
        if root is None:
            raise InvalidError(f"{target.name} has no adapter store", hint="Declare one with adapter_store.")
        return self._store(root).stage(Path(source), digest, instead_of=Path(instead_of) if instead_of else None)

    def intact(self, path: str) -> bool | None:
        return intact(Path(path), clock=self._clock)

    def faults(self, paths: Sequence[str]) -> dict[str, EntryFault]:
        return {path: fault for path in paths if (fault := self._fault(path)) is not None}

    def _fault(self, path: str) -> EntryFault | None:
        """Check an entry; a few stats are enough if it is as it was when it was last found intact."""
        marks = _marks(path)
        if marks is not None and self._whole.get(path) == marks:
            return None
        fault = fault_of(Path(path), clock=self._clock)
        if fault is None and marks is not None and marks == _marks(path):
            self._whole[path] = marks
        else:
            self._whole.pop(path, None)
        return fault

    def _store(self, root: Path) -> AdapterStore:
        return self._stores.setdefault(root, AdapterStore(root, self._identity, clock=self._clock))

    def _fit(self, info: AdapterInfo, base_root: str | None) -> Fit:
        """Compare with the base model; no result if the base cannot be read here."""
        base = self._base(base_root) if base_root and base_root.startswith("/") else None
        return check_against_base(info, base) if base is not None else Fit()

    def _base(self, root: str) -> Base | None:
        changed = _config_time(root)
        if changed is None:
            return None
        known = self._bases.get(root)
        if known is not None and known[0] == changed:
            return known[1]
        try:
            base = read_base(Path(root))
        except ModelInvalidError:
            return None
        if len(self._bases) >= _MOST_BASES:
            self._bases.clear()
        self._bases[root] = (changed, base)
        return base


def _config_time(root: str) -> float | None:
    """Return when the config of the model at `root` was last written; None if it has none that can be read here."""
    for name in ("config.json", PARAMS_NAME):
        with contextlib.suppress(OSError):
            return Path(root, name).stat().st_mtime
    return None


def _leads_out(path: Path) -> ModelInvalidError | None:
    """Return the error if a file that a server would read is a link to a place outside the adapter; else None."""
    try:
        with open_tree(path) as tree:
            for name in ADAPTER_FILES:
                file_size(path / name, tree)
    except ModelInvalidError as error:
        return error
    return None


def _marks(path: str) -> tuple[str, int] | None:
    """Return the stamp of an entry and the number of hard links to its files; None if it cannot be read."""
    stamp = read_stamp(path)
    if stamp is None:
        return None
    names = 0
    for name in ADAPTER_FILES:
        with contextlib.suppress(OSError):
            names += os.stat(f"{path}/{name}").st_nlink  # noqa: PTH116 - as in `read_stamp`
    return stamp.text, names


def default_store(data_dir: Path) -> Path:
    return data_dir / "adapter-store"


def store_root(target: TargetSpec, data_dir: Path) -> Path | None:
    """Return where adapters of `target` are staged; None if it has no store. Pure.

    That is the declared store, or the default store if the target's address is a loopback address.
    """
    if target.adapter_store == NO_STORE:
        return None
    if target.adapter_store is not None:
        return Path(target.adapter_store)
    return default_store(data_dir) if is_here(target.base_url) else None


@lru_cache(maxsize=16_384)  # a plan asks for every adapter of a target
def is_here(base_url: str) -> bool:
    """Return whether an address is one of this machine. Pure."""
    if (instance := instance_place(base_url)) is not None:
        return instance.node is None
    host = urlsplit(base_url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
        return address.is_loopback or address.is_unspecified
    except ValueError:
        return False
