"""The adapter files of this machine: `Artifacts` over digests, checks and stores."""

import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from garrison.base.clock import Clock, SystemClock
from garrison.base.errors import InvalidError, ModelInvalidError
from garrison.fleet.adapter_check import being_written, broken, refusal
from garrison.fleet.adapter_digests import AdapterDigests, ContentRecord, read_stamp
from garrison.fleet.adapter_entry import intact
from garrison.fleet.adapter_store import AdapterStore
from garrison.fleet.artifacts import Content, Staged
from garrison.fleet.target import NO_STORE, TargetSpec
from garrison.models.adapter import AdapterInfo, inspect_adapter
from garrison.models.content import is_dir
from garrison.models.fit import BaseShapes, check_against_base, read_base_shapes

__all__ = ["DiskArtifacts", "default_store", "store_root"]

_MOST_BASES = 8


class DiskArtifacts:
    """May be called from several threads.

    Args:
        data_dir: of Garrison: the default store lies in it.
        identity: of the database (`FleetStore.identity`): the owner of what is staged.
        record: where digests outlive this process.
    """

    def __init__(
        self, data_dir: Path, identity: str, *, record: ContentRecord | None = None, clock: Clock | None = None
    ) -> None:
        self._data_dir = data_dir.absolute()
        self._identity = identity
        self._clock = clock or SystemClock()
        self._digests = AdapterDigests(record, self._clock)
        self._stores: dict[Path, AdapterStore] = {}
        self._bases: dict[str, tuple[float, BaseShapes]] = {}

    def digest(self, path: str) -> str | None:
        return self._digests.digest(path)

    def check(self, path: str, target: TargetSpec, base_root: str | None) -> Content | None:
        if not path.startswith("/") or not is_dir(Path(path)):
            return None
        before = read_stamp(path)
        try:
            info = inspect_adapter(Path(path))
        except ModelInvalidError as error:
            still = read_stamp(path) == before
            return Content(path, failure=broken(error) if still else being_written(path))
        misfits = self._misfits(info, base_root)
        failure = refusal(info, target=target.name, max_lora_rank=target.max_lora_rank, misfits=misfits)
        digest = self.digest(path)
        if digest is None or read_stamp(path) != before:
            failure = being_written(path)
        return Content(path, digest, info, failure)

    def can_stage(self, target: TargetSpec) -> bool:
        """A store that was declared is made where its parent is there; a disk that is not mounted has no parent."""
        root = store_root(target, self._data_dir)
        if root is None:
            return False
        if is_dir(root):
            return os.access(root, os.W_OK | os.X_OK)
        return target.adapter_store is None or os.access(root.parent, os.W_OK | os.X_OK)

    def staged_path(self, target: TargetSpec, digest: str) -> str | None:
        root = store_root(target, self._data_dir)
        return str(root / digest) if root is not None else None

    def stage(self, target: TargetSpec, source: str, digest: str) -> Staged:
        root = store_root(target, self._data_dir)
        if root is None:
            raise InvalidError(f"{target.name} has no adapter store", hint="Declare one with adapter_store.")
        return self._store(root).stage(Path(source), digest)

    def intact(self, path: str) -> bool | None:
        return intact(Path(path), clock=self._clock)

    def _store(self, root: Path) -> AdapterStore:
        return self._stores.setdefault(root, AdapterStore(root, self._identity, clock=self._clock))

    def _misfits(self, info: AdapterInfo, base_root: str | None) -> Sequence[str]:
        """Empty where the base cannot be read here: then nothing can be told."""
        base = self._base(base_root) if base_root and base_root.startswith("/") else None
        return check_against_base(info, base) if base is not None else ()

    def _base(self, root: str) -> BaseShapes | None:
        try:
            changed = Path(root, "config.json").stat().st_mtime
        except OSError:
            return None
        known = self._bases.get(root)
        if known is not None and known[0] == changed:
            return known[1]
        try:
            shapes = read_base_shapes(Path(root))
        except ModelInvalidError:
            return None
        if len(self._bases) >= _MOST_BASES:
            self._bases.clear()
        self._bases[root] = (changed, shapes)
        return shapes


def default_store(data_dir: Path) -> Path:
    return data_dir / "adapter-store"


def store_root(target: TargetSpec, data_dir: Path) -> Path | None:
    """Where adapters of `target` are staged: what it declares, else our own store where it runs on this machine, as
    far as its address tells. Pure."""
    if target.adapter_store == NO_STORE:
        return None
    if target.adapter_store is not None:
        return Path(target.adapter_store)
    return default_store(data_dir) if _is_loopback(urlsplit(target.base_url).hostname or "") else None


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
        return address.is_loopback or address.is_unspecified
    except ValueError:
        return False
