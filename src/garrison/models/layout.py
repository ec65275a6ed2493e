"""Where models live on disk, and the names of everything beside them.

    <root>/<NAME>/                                 a model; hand-copied or installed
    <root>/<ORG>/<NAME>/                           if <NAME> is taken by another organisation's model
    <root>/<NAME>.bak.<time>                       the previous one, while it is being replaced
    <root>/<NAME>.replaced.<time>                  a hand-copied one that was broken and has been replaced
    <root>/hub/models--ORG--NAME/snapshots/<rev>/  a Hugging Face cache
    <root>/.staging/<slug>.<hash12>/<source>/      a download in progress; kept when it is interrupted
    <root>/.staging/trash.<time>                   being deleted
    <root>/.locks/<slug>.<hash12>.lock             one lock per model id
    <data>/adapters/<NAME>/                        adapters

Nothing here touches the disk.
"""

import os
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from garrison.base.errors import InvalidError
from garrison.base.home import expanded
from garrison.base.settings import Settings
from garrison.models.names import RESERVED, ModelName, hash12, slug

__all__ = ["RECORD_NAME", "Layout", "backup_of", "is_model_entry", "require_inside"]

RECORD_NAME = ".garrison-model.json"
"""File in an installed model that says which model it is and where it came from; see `models.record`."""

_ASIDE = re.compile(r"(?P<name>.+)\.(?P<kind>bak|replaced)\.\d{8}T\d{6}\.\d{6}Z\Z")
_TIME = "%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below the models root and the data directory. Both attributes are absolute."""

    root: Path
    data_dir: Path

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(root=_absolute(settings.models_root), data_dir=_absolute(settings.data_dir))

    @property
    def hub(self) -> Path:
        """The `hub` directory of the Hugging Face cache whose `HF_HOME` is the models root."""
        return self.root / "hub"

    @property
    def adapters(self) -> Path:
        return self.data_dir / "adapters"

    @property
    def env_files(self) -> Path:
        """Where env files go when there is no `FLOX_ENV_CACHE`."""
        return self.data_dir / "env"

    @property
    def staging_root(self) -> Path:
        return self.root / ".staging"

    @property
    def swap_lock(self) -> Path:
        """Held while directories below the root are renamed."""
        return self.root / ".locks" / "swap.lock"

    @property
    def install_lock(self) -> Path:
        """Held from the choice of a new model's directory until the model is there."""
        return self.root / ".locks" / "install.lock"

    def model_dir(self, model: ModelName) -> Path:
        """Where the model lives, unless its name is taken by another one."""
        return self.root / model.directory

    def org_dir(self, model: ModelName) -> Path | None:
        """`<root>/<ORG>/<NAME>`; None for a bare name."""
        return self.root / model.org / model.directory if model.org else None

    def staging_dir(self, model: ModelName, source: str) -> Path:
        return self.staging_root / f"{model.slug}.{model.hash12}" / _staging_name(model, source)

    def log_file(self, model: ModelName, source: str) -> Path:
        """The log of a download."""
        return self.staging_root / f"{model.slug}.{model.hash12}" / f"{source}.log"

    def lock_path(self, model_id: str) -> Path:
        """The lock of a model (or of an adapter, by `adapters/<NAME>`), for `base.locks.file_lock`."""
        return self.root / ".locks" / f"{slug(model_id)}.{hash12(model_id)}.lock"

    def backup_path(self, target: Path, now: datetime) -> Path:
        """A name for the directory that `target` replaces; names sort by time."""
        return target.with_name(f"{target.name}.bak.{now.strftime(_TIME)}")

    def replaced_path(self, target: Path, now: datetime) -> Path:
        """Where a directory goes that Garrison did not make, and so must not delete, when it is replaced."""
        return target.with_name(f"{target.name}.replaced.{now.strftime(_TIME)}")

    def trash_path(self, now: datetime) -> Path:
        return self.staging_root / f"trash.{now.strftime(_TIME)}.{secrets.token_hex(3)}"


def backup_of(name: str) -> str | None:
    """The name of the model that a directory is the backup of; None if it is not a backup that Garrison made."""
    match = _ASIDE.match(name)
    return match["name"] if match and match["kind"] == "bak" else None


def is_model_entry(name: str) -> bool:
    """Whether an entry of the models root can be a model or an organisation: not reserved, hidden or set aside."""
    return name not in RESERVED and not name.startswith(".") and _ASIDE.match(name) is None


def require_inside(path: Path, root: Path) -> None:
    """Raise InvalidError if `path` is not below `root`, by its name: links are not followed."""
    if root not in path.parents or ".." in path.parts:
        raise InvalidError(f"{path} is not below {root}", hint="Remove it by hand.")


def _absolute(path: Path) -> Path:
    # Not resolve(): a models root that is a symlink stays what the user wrote.
    return Path(os.path.abspath(expanded(path)))  # noqa: PTH100 - Path.absolute() keeps `..`


def _staging_name(model: ModelName, source: str) -> str:
    if model.quantization is not None:
        return f"{source}.{hash12(':' + model.quantization)}"
    return source if model.file is None else f"{source}.{hash12(model.file)}"
