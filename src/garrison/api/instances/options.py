"""The options of an instance as JSON, as llamactl has them, and as the value that the manager takes."""

import shlex
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from garrison.base.errors import InvalidError
from garrison.base.server_settings import ServerSettings
from garrison.base.values import size
from garrison.engines import registry
from garrison.engines.options import normal_keys, to_args
from garrison.instances.values.spec import CustomServer, InstanceSpec, require_name
from garrison.net.endpoint import Secret

__all__ = ["Custom", "InstanceOptions", "options_of", "spec_of"]

_MINUTE = 60.0
_FALSY = ("docker_enabled", "sleep_level")
"""Options whose false or zero means something else than none."""
_LONGEST = 10_000_000
_LONGEST_PRESET = 1_000_000


class Custom(BaseModel):
    """An OpenAI-compatible server of any kind, for `backend_type: custom`."""

    model_config = ConfigDict(extra="forbid")

    argv: list[str] = Field(min_length=1, max_length=1000, description="`{port}`, `{host}` and `{model}` are replaced.")
    ready_path: str = Field("/health", pattern=r"^/", max_length=1000)
    apis: list[str] = Field(["chat", "completions"], max_length=50)


class SecretReference(BaseModel):
    """Where a secret is read at each start."""

    model_config = ConfigDict(extra="forbid")

    env: str | None = Field(None, max_length=1000)
    file: str | None = Field(None, max_length=4000)
    command: list[str] | None = Field(None, min_length=1, max_length=100)


class InstanceOptions(BaseModel):
    """What an instance is. What is left out has the server's default; what is null counts as left out."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "backend_type": "vllm",
                    "backend_options": {
                        "model": "ISTA-DASLab/gemma-3-27b-it-GPTQ-4b-128g",
                        "tensor_parallel_size": 2,
                        "gpu_memory_utilization": 0.5,
                        "enable_log_outputs": True,
                    },
                }
            ]
        },
    )

    backend_type: Literal["vllm", "llama_cpp", "mlx_lm", "sim", "custom"]
    backend_options: dict[str, Any] | None = Field(
        None, description="The engine's options, with dashes or underscores; `extra_args` for any other flag."
    )
    custom: Custom | None = None
    preset_ini: str | None = Field(
        None, max_length=_LONGEST_PRESET, description="For llama_cpp as a router: a preset file, with its models."
    )
    auto_restart: bool | None = None
    max_restarts: int | None = Field(None, le=1_000_000, description="Below 0 counts as 0.")
    restart_delay: float | None = Field(None, le=_LONGEST, description="Seconds; below 0 counts as 0.")
    on_demand_start: bool | None = None
    idle_timeout: float | None = Field(None, le=_LONGEST, description="Minutes; 0 or less: never stopped for it.")
    environment: dict[str, str] | None = None
    docker_enabled: bool | None = None
    command_override: str | None = Field(None, max_length=10_000)
    group: str | None = Field(None, max_length=100)
    nodes: list[str] | None = Field(None, max_length=100)
    pin: bool | None = None
    priority: int | None = Field(None, ge=-1_000_000, le=1_000_000)
    devices: list[str | int] | None = Field(None, max_length=64, description="Indices or UUIDs of GPUs.")
    weight: float | None = Field(None, gt=0, le=1_000_000, description="How much its return counts; 1 is usual.")
    preload: bool | None = Field(None, description="It is started with the server, and not stopped when idle.")
    sleep_level: int | None = Field(None, ge=0, le=2, description="Sleep instead of a stop; 0 for never.")
    secrets: dict[str, SecretReference] | None = Field(
        None, description="Variables by reference. Only the owner of the data directory may use them."
    )
    memory: int | str | None = Field(None, description="Bytes, or a size such as `14GiB`.")


def spec_of(name: str, given: InstanceOptions, defaults: ServerSettings, *, stack: str | None = None) -> InstanceSpec:
    """Return the value for the options of instance `name`.

    Raises:
        InvalidError: the name or an option cannot be used.
    """
    require_name(name)
    if given.backend_type == "custom" and given.custom is None:
        raise InvalidError(
            "a custom backend needs `custom`", hint='{"custom": {"argv": ["server", "--port", "{port}"]}}'
        )
    if given.backend_type != "custom" and given.custom is not None:
        raise InvalidError("`custom` is only for backend_type custom", hint="Leave one of the two out.")
    preset = _preset(given)
    if given.backend_options is None and given.backend_type != "custom" and preset is None:
        raise InvalidError(f"backend_options are missing for {given.backend_type}", hint="At least a model.")
    options = normal_keys(given.backend_options or {})
    port = _port(options.pop("port", None))
    _check_options(given.backend_type, options)
    return InstanceSpec(
        name=name,
        engine=given.backend_type,
        options=options,
        custom=_custom(given.custom),
        preset_ini=preset,
        executable=_words(given.command_override),
        container=given.docker_enabled,
        env=dict(given.environment or {}),
        port=port,
        on_demand=_or(given.on_demand_start, defaults.default_on_demand_start),
        idle_seconds=None if given.idle_timeout is None else round(max(0.0, given.idle_timeout) * _MINUTE, 6),
        auto_restart=_or(given.auto_restart, defaults.default_auto_restart),
        max_restarts=max(0, _or(given.max_restarts, defaults.default_max_restarts)),
        restart_delay=max(0.0, _or(given.restart_delay, defaults.default_restart_delay)),
        group=given.group or None,
        pin=bool(given.pin),
        priority=given.priority or 0,
        devices=tuple(str(one) for one in given.devices or ()),
        memory_bytes=_memory(given.memory),
        weight=_or(given.weight, 1.0),
        preload=bool(given.preload),
        sleep_level=given.sleep_level,
        secrets={key: _secret(key, one) for key, one in (given.secrets or {}).items()},
        stack=stack,
    )


def options_of(spec: InstanceSpec, defaults: ServerSettings | None = None) -> dict[str, Any]:
    """Return the options of an instance as JSON; `spec_of` turns them into the same value.

    Args:
        defaults: shown for what follows them; without, those options are left out.
    """
    options = dict(spec.options)
    if spec.port is not None:
        options["port"] = spec.port
    idle = spec.idle_seconds if spec.idle_seconds is not None or defaults is None else defaults.idle_timeout
    found: dict[str, Any] = {
        "backend_type": spec.engine,
        "backend_options": options,
        "auto_restart": spec.auto_restart,
        "max_restarts": spec.max_restarts,
        "restart_delay": _whole(spec.restart_delay),
        "on_demand_start": spec.on_demand,
    }
    if idle is not None:
        found["idle_timeout"] = _whole(idle / _MINUTE)
    optional = {
        "preset_ini": spec.preset_ini,
        "environment": dict(spec.env),
        "docker_enabled": spec.container,
        "command_override": shlex.join(spec.executable),
        "group": spec.group,
        "pin": spec.pin,
        "priority": spec.priority,
        "devices": list(spec.devices),
        "memory": spec.memory_bytes,
        "weight": None if spec.weight == 1.0 else spec.weight,
        "preload": spec.preload,
        "sleep_level": spec.sleep_level,
        "secrets": {key: one.to_json() for key, one in spec.secrets.items()},
    }
    found |= {name: value for name, value in optional.items() if value or (name in _FALSY and value is not None)}
    if spec.custom is not None:
        custom = spec.custom
        found["custom"] = {
            "argv": list(custom.argv), "ready_path": custom.ready_path, "apis": sorted(custom.apis),
        }  # fmt: skip
    return found


def _secret(name: str, given: SecretReference) -> Secret:
    found = given.model_dump(exclude_none=True)
    if len(found) != 1:
        raise InvalidError(f"secret {name} needs one of `env`, `file` and `command`", hint='{"env": "HF_TOKEN"}')
    return Secret.from_json(found)


def _check_options(engine: str, options: Mapping[str, Any]) -> None:
    """Refuse what can never become a command line."""
    if engine == "custom":
        return
    to_args(options, registry.engine(engine).catalogue())


def _port(value: Any) -> int | None:
    if value in (None, 0):
        return None
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).isdigit():
        raise InvalidError(f"invalid port {value!r}", hint="A number from 1 to 65535, or none for one of the range.")
    if not 1 <= int(value) <= 65535:
        raise InvalidError(f"invalid port range: {value}", hint="A number from 1 to 65535.")
    return int(value)


def _custom(given: Custom | None) -> CustomServer | None:
    if given is None:
        return None
    return CustomServer(tuple(given.argv), given.ready_path, frozenset(given.apis))


def _preset(given: InstanceOptions) -> str | None:
    text = given.preset_ini or None
    if text is None:
        return None
    if given.backend_type != "llama_cpp":
        raise InvalidError(
            f"preset_ini is for backend_type llama_cpp, not {given.backend_type}", hint="Leave one of the two out."
        )
    if "\0" in text:
        raise InvalidError("preset_ini holds a null character", hint="It is the text of an INI file.")
    return text


def _words(text: str | None) -> tuple[str, ...]:
    if not text:
        return ()
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise InvalidError(f"command_override {text!r}: {str(error).lower()}", hint="Close the quotes.") from None


def _memory(value: int | str | None) -> int | None:
    if value is None or value == "":
        return None
    try:
        found = value if isinstance(value, int) else size(value)
    except ValueError as error:
        raise InvalidError(f"memory {value!r} must be {error}") from None
    if not 0 < found < 2**60:
        raise InvalidError(f"memory {value!r} is out of range", hint="A size such as 14GiB.")
    return found


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) else value
