"""The record in an installed model: which model it is and where it came from.

Written into a download last, before it is renamed into place, so that a directory with a record is whole. A
hand-copied directory has none, and its name says what it is.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from garrison.base.files import write_atomic
from garrison.models.files.content import read_small
from garrison.models.layout import RECORD_NAME
from garrison.models.names import ModelName

__all__ = ["ModelRecord", "known_id", "read_record", "write_record"]

_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """Attributes:
    model_id: `org/name`.
    source: the source it came from, or `import`.
    revision: the commit, where it is known.
    asked: the branch, tag or commit that was asked for.
    created_at: UTC, ISO 8601.
    """

    model_id: str
    source: str
    created_at: str
    revision: str | None = None
    asked: str | None = None

    def is_for(self, model: ModelName) -> bool:
        """Whether the directory holds what is asked for. What is not on record counts as a match."""
        return self.same_id(model) and self._same_revision(model)

    def same_id(self, model: ModelName) -> bool:
        """Whether it is the same model, in any revision."""
        mine, asked = self.model_id.lower(), model.model_id.lower()  # the hub ignores case
        if mine == asked or "/" not in mine:
            return True
        return "/" not in asked and mine.endswith("/" + asked)

    def _same_revision(self, model: ModelName) -> bool:
        if model.revision is None or (self.revision is None and self.asked is None):
            return True
        if model.revision == (self.asked or "main"):
            return True
        # A commit may be abbreviated; seven digits is what git itself prints.
        return len(model.revision) >= 7 and (self.revision or "").startswith(model.revision)


def read_record(directory: Path) -> ModelRecord | None:
    """The record; None if there is none that can be read: the directory then counts as hand-copied."""
    try:
        content = json.loads(read_small(directory, RECORD_NAME))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("schema") != _SCHEMA:
        return None
    fields = {name: content.get(name) for name in ModelRecord.__slots__}
    if not all(isinstance(fields[name], str) for name in ("model_id", "source", "created_at")):
        return None
    if not all(value is None or isinstance(value, str) for value in fields.values()):
        return None
    return ModelRecord(**fields)  # type: ignore[arg-type]  # checked above, name by name


def write_record(directory: Path, record: ModelRecord) -> None:
    """Write the record atomically."""
    write_atomic(directory / RECORD_NAME, json.dumps({"schema": _SCHEMA, **asdict(record)}, indent=2) + "\n")


def known_id(directory: Path, model: ModelName) -> str:
    """The id on record of what is imported again as `model`. An organisation that was not known is put on record."""
    record = read_record(directory)
    if record is None or model.org is None or "/" in record.model_id:
        return record.model_id if record is not None else model.model_id
    write_record(directory, replace(record, model_id=model.model_id))
    return model.model_id
