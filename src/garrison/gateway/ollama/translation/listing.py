"""The gateway's list of models as Ollama's: names with tags, `tags`, `show` and `ps`.

Ollama's names have a tag, and `latest` is the one of a name without; clients look names up in either form. So a model
`qwen` is listed as `qwen:latest`, and answers to both.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from garrison.gateway.ollama.translation.errors import AnswerError
from garrison.gateway.ollama.translation.objects import stamp

__all__ = ["Entry", "Resolved", "listed_name", "loaded", "read_entries", "resolve", "shown", "tags", "without_latest"]

_LATEST = ":latest"
_FOR_EVER = datetime(2318, 1, 1, tzinfo=UTC)
"""What Ollama gives for a model that stays: as far ahead as its durations go."""
_IN_MEMORY = ("running", "draining")
_HOST = "host"
_TEMPLATE = "{{ .Prompt }}"
_FORMATS = {"llama_cpp": "gguf"}
_CAPABILITIES = ("completion", "tools")
"""What clients may try. An engine that was not started for tools says so."""


class Entry(msgspec.Struct, frozen=True):
    """One model of `GET /v1/models`.

    Attributes:
        created: Unix time.
        state: of its instance; None for a model that is none.
        model: what the instance serves: a name or a path.
        max_model_len: its context in tokens.
        memory: bytes by device.
        idle_timeout: seconds without requests after which it is unloaded; 0 for never.
    """

    id: str
    created: int = 0
    state: str | None = None
    model: str | None = None
    engine: str | None = None
    max_model_len: int | None = None
    memory: dict[str, int] | None = None
    idle_timeout: float | None = None


class _Entries(msgspec.Struct, frozen=True):
    data: list[Entry]


class Resolved(msgspec.Struct, frozen=True):
    """A model that a client named.

    Attributes:
        name: for the gateway.
        entry: the one listed, or, of an adapter, that of its instance; None where there is none.
    """

    name: str
    entry: Entry | None = None

    @property
    def served(self) -> int | None:
        """The context that it is known to have, in tokens."""
        return None if self.entry is None else self.entry.max_model_len


_decoder = msgspec.json.Decoder(_Entries)


def read_entries(body: bytes) -> list[Entry]:
    """Return the entries of the gateway's list. Raises AnswerError."""
    try:
        return _decoder.decode(body).data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AnswerError(f"the gateway's list of models cannot be read: {error}") from None


def without_latest(name: str) -> str:
    """Return a name without the tag that a name without a tag has anyway."""
    return name.removesuffix(_LATEST)


def listed_name(name: str) -> str:
    """Return a name as Ollama lists it: with a tag."""
    return name if ":" in name.rpartition("/")[2] else name + _LATEST


def resolve(name: str, entries: Sequence[Entry]) -> Resolved:
    """Return the model that a client means. One that does not exist keeps its name, and the gateway refuses it."""
    by_id = {one.id: one for one in entries}
    for candidate in (name, without_latest(name)):
        if candidate in by_id:
            return Resolved(candidate, by_id[candidate])
    plain = without_latest(name)
    base = plain
    while "/" in base:  # an adapter, or a model of a server behind an instance
        base = base.rpartition("/")[0]
        if base in by_id:
            return Resolved(plain, by_id[base])
    return Resolved(plain)


def tags(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return the answer to `GET /api/tags`."""
    return {"models": [{**_row(one), "modified_at": _created(one), "capabilities": _CAPABILITIES} for one in entries]}


def loaded(entries: Sequence[Entry], now: datetime) -> dict[str, Any]:
    """Return the answer to `GET /api/ps`: the instances that are in memory.

    When one is unloaded is told as if its last request had just ended: not before that time, if nobody asks again.
    """
    rows = []
    for one in entries:
        if one.state not in _IN_MEMORY:
            continue
        until = now + timedelta(seconds=one.idle_timeout) if one.idle_timeout else _FOR_EVER
        on_gpus = sum(count for device, count in (one.memory or {}).items() if device != _HOST)
        more = {"expires_at": stamp(until), "size_vram": on_gpus, "context_length": one.max_model_len or 0}
        rows.append({**_row(one), **more})
    return {"models": rows}


def shown(name: str, entry: Entry) -> dict[str, Any]:
    """Return the answer to `POST /api/show`.

    Args:
        name: of the model, which may be an adapter of the entry.
    """
    family, length = _family(entry), entry.max_model_len
    info: dict[str, Any] = {"general.architecture": family, "general.basename": name}
    if length is not None:
        info[f"{family}.context_length"] = length
    return {
        "license": "",
        "modelfile": f"# served by Garrison\nFROM {entry.model or entry.id}\n",
        "parameters": "" if length is None else f"num_ctx                        {length}",
        "template": _TEMPLATE,
        "details": _details(entry),
        "model_info": info,
        "capabilities": _CAPABILITIES,
        "modified_at": _created(entry),
    }


def _row(entry: Entry) -> dict[str, Any]:
    name = listed_name(entry.id)
    size = sum((entry.memory or {}).values())
    return {"name": name, "model": name, "size": size, "digest": _digest(entry), "details": _details(entry)}


def _digest(entry: Entry) -> str:
    """Something that stays while the model is the same one. Its files are not read for this."""
    return hashlib.sha256(f"{entry.id}\n{entry.model}\n{entry.created}".encode()).hexdigest()


def _details(entry: Entry) -> Mapping[str, Any]:
    family = _family(entry)
    found: dict[str, Any] = {
        "parent_model": "",
        "format": _FORMATS.get(entry.engine or "", "safetensors"),
        "family": family,
        "families": [family],
        "parameter_size": "",
        "quantization_level": "",
    }
    return found if entry.max_model_len is None else {**found, "context_length": entry.max_model_len}


def _family(entry: Entry) -> str:
    """The engine: which architecture the model has, the gateway does not know."""
    return entry.engine or "unknown"


def _created(entry: Entry) -> str:
    return stamp(datetime.fromtimestamp(entry.created, UTC))
