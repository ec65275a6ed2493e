"""A declared instance: an engine that a Garrison server runs. Holds references to secrets, never the secrets."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from garrison.fleet.values.target import headers_from_json, headers_to_json
from garrison.net.endpoint import Secret

__all__ = ["CustomCommand", "InstanceDeclaration"]

_UNITS = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10}
_LISTS = ("args", "executable", "devices")
_MAPPINGS = ("options",)


@dataclass(frozen=True, slots=True)
class CustomCommand:
    """An OpenAI-compatible server of any kind.

    Attributes:
        argv: its command; `{port}`, `{host}` and `{model}` in it are replaced.
        ready_path: answers 200 once it can serve.
        apis: API families that it speaks.
    """

    argv: tuple[str, ...]
    ready_path: str = "/health"
    apis: tuple[str, ...] = ("chat", "completions")

    def to_json(self) -> dict[str, Any]:
        return {"argv": list(self.argv), "ready_path": self.ready_path, "apis": list(self.apis)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "CustomCommand":
        return cls(tuple(body["argv"]), body["ready_path"], tuple(body["apis"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceDeclaration:
    """One instance. None means the configured default.

    Attributes:
        options: the engine's options as JSON, with underscores; without `model`.
        args: engine arguments, verbatim, after the options.
        custom: for the engine `custom`.
        preset_ini: for llama-server as a router: the text of a preset file, which names its models.
        executable: words that replace the engine's program.
        env: variables for the engine; a value may be a secret.
        runtime_lora: adapters are loaded and unloaded while it runs.
        port: a fixed port.
        idle: seconds without requests after which it is stopped or put to sleep; 0 for never.
        restart_delay: seconds.
        devices: indices or UUIDs of the GPUs that it may use; empty for any.
        memory: bytes that it takes, where that should not be measured.
        sleep_level: of the sleep that replaces a stop where the engine can sleep; 0 for none.
        preload: it is started when the server starts.
        node: the node that runs it; None for the one that applies the manifest.
    """

    name: str
    engine: str = "vllm"
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    args: tuple[str, ...] = ()
    custom: CustomCommand | None = None
    preset_ini: str | None = None
    executable: tuple[str, ...] = ()
    container: bool | None = None
    env: Mapping[str, str | Secret] = field(default_factory=dict)
    served_model_name: str | None = None
    runtime_lora: bool = False
    max_loras: int | None = None
    max_lora_rank: int | None = None
    port: int | None = None
    on_demand: bool | None = None
    idle: float | None = None
    auto_restart: bool | None = None
    max_restarts: int | None = None
    restart_delay: float | None = None
    group: str | None = None
    pin: bool = False
    priority: int = 0
    weight: float = 1.0
    devices: tuple[str, ...] = ()
    memory: int | None = None
    sleep_level: int | None = None
    preload: bool = False
    node: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what the manifest says, JSON-ready and without defaults; `from_json` reads it back.

        Contains references, no secrets.
        """
        empty = InstanceDeclaration(name=self.name)
        body = {
            one.name: value
            for one in fields(self)
            if one.name != "name" and (value := getattr(self, one.name)) != getattr(empty, one.name)
        }
        body |= {name: list(body[name]) for name in _LISTS if name in body}
        body |= {name: dict(body[name]) for name in _MAPPINGS if name in body}
        if self.custom is not None:
            body["custom"] = self.custom.to_json()
        if self.env:
            body["env"] = headers_to_json(self.env)
        if self.idle == 0:
            body["idle"] = "never"
        if self.memory is not None:
            body["memory"] = _size_text(self.memory)
        return body

    @classmethod
    def from_json(cls, name: str, body: Mapping[str, Any]) -> "InstanceDeclaration":
        """Read what `to_json` returned. Keys of a later program are ignored."""
        known = {one.name for one in fields(cls)}
        values: dict[str, Any] = {key: value for key, value in body.items() if key in known}
        values |= {key: tuple(values[key]) for key in _LISTS if key in values}
        if "custom" in values:
            values["custom"] = CustomCommand.from_json(values["custom"])
        if "env" in values:
            values["env"] = headers_from_json(values["env"])
        if values.get("idle") == "never":
            values["idle"] = 0.0
        if isinstance(values.get("memory"), str):
            values["memory"] = _bytes_of(values["memory"])
        return cls(name=name, **values)


def _size_text(count: int) -> str | int:
    """Return a size that reads well and loses nothing: `14GiB`, or the number of bytes."""
    return next((f"{count // size}{unit}" for unit, size in _UNITS.items() if count % size == 0), count)


def _bytes_of(text: str) -> int:
    return int(text[:-3]) * _UNITS[text[-3:]]
