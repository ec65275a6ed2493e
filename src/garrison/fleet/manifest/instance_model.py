"""The keys of an instance, with types and descriptions."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema, model_validator
from pydantic.functional_validators import AfterValidator

from garrison.base import values
from garrison.fleet.manifest.fields import (
    Flag,
    Integer,
    Keys,
    Name,
    Port,
    Rank,
    SecretModel,
    Text,
    Timeout,
    Variable,
    Word,
    schema_of,
)

__all__ = ["INSTANCE_NAME", "Bytes", "Count", "CustomModel", "InstanceModel", "Weight", "Words", "is_json"]

INSTANCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}\Z")
"""What `instances.values.spec.require_name` accepts."""

_VARIABLE = {"type": "string", "pattern": r"\$\{"}
_DURATION = values.duration()


def _idle(value: Any) -> Any:
    if value == "never":
        return 0.0
    if isinstance(value, str):
        try:
            return _DURATION(value)
        except ValueError as error:
            raise ValueError(f"write `never`, or {error}") from None
    return float(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1e9 else value


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return values.size(value)
    except ValueError as error:
        raise ValueError(f"write {error}") from None


def _env_text(value: Any) -> Any:
    """Accept numbers: `VLLM_CPU_KVCACHE_SPACE: 1` means the text `1`. A boolean has no obvious text; refuse it."""
    if isinstance(value, bool):
        raise ValueError("quote it: nobody knows whether true means `true`, `True` or `1`")
    return str(value) if isinstance(value, int | float) else value


def _words(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _devices(value: Any) -> Any:
    if value == "auto":
        return []
    return (
        [str(one) if isinstance(one, int) and not isinstance(one, bool) else one for one in value]
        if isinstance(value, list)
        else value
    )


def is_json(value: Any) -> bool:
    """Whether a value that YAML has read is one of JSON's."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_json(one) for key, one in value.items())
    if isinstance(value, list):
        return all(map(is_json, value))
    return value is None or isinstance(value, str | int | float)


def _json(value: Any) -> Any:
    if not is_json(value):
        raise ValueError("an option is text, a number, true, false, null, a list or a mapping")
    return value


Option = Annotated[Any, AfterValidator(_json)]
EnvText = Annotated[
    str, BeforeValidator(_env_text), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}]})
]
Words = Annotated[
    list[Word],
    BeforeValidator(_words),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Idle = Annotated[
    float,
    BeforeValidator(_idle),
    Field(ge=0, le=31_536_000),
    schema_of("number", 0, 31_536_000, r"^[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)?$|^never$|\$\{"),
]
Bytes = Annotated[
    int, BeforeValidator(_bytes), Field(ge=1), schema_of("integer", 1, 2**60, r"^[0-9.]+\s*([kKmMgGtT]i?)?[bB]?$|\$\{")
]
Count = Annotated[
    int, BeforeValidator(Integer.func), Field(ge=0, le=1_000_000), schema_of("integer", 0, 1_000_000, r"^[0-9]+$|\$\{")
]
SleepLevel = Annotated[
    int, BeforeValidator(Integer.func), Field(ge=0, le=2), schema_of("integer", 0, 2, r"^[0-2]$|\$\{")
]
Priority = Annotated[int, Field(ge=-1_000_000, le=1_000_000)]
Weight = Annotated[
    float,
    BeforeValidator(lambda value: float(value) if type(value) is int else value),
    Field(gt=0, allow_inf_nan=False),
]
Devices = Annotated[
    list[str],
    BeforeValidator(_devices),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["auto"]},
                {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]}},
                _VARIABLE,
            ]
        }
    ),
]
Preset = Annotated[Word, StringConstraints(min_length=1, max_length=1_000_000)]
Path = Annotated[str, StringConstraints(pattern=r"^/[!-~]*$", max_length=1000)]


class CustomModel(Keys):
    """Any OpenAI-compatible server."""

    argv: list[Word] = Field(
        min_length=1, description="Its command. `{port}`, `{host}` and `{model}` in it are replaced."
    )
    ready_path: Path = Field("/health", description="Answers 200 once the server can serve.")
    apis: list[Name] = Field(
        default_factory=lambda: ["chat", "completions"],
        description="API families that it speaks: `chat`, `completions`, `embeddings`, `responses`, …",
    )


class InstanceModel(Keys):
    """An engine that a Garrison server runs. Its key is its name: 1 to 50 letters, digits, dots, underscores and
    dashes."""

    model: Text | None = Field(
        None,
        description="A name (`org/name`, `org/name@revision`), a directory or a file. `./x` is beside the manifest.",
    )
    engine: Literal["vllm", "llama_cpp", "mlx_lm", "sim", "custom"] | None = Field(
        None, description="The engine; `vllm` when omitted, `custom` where `custom` is given."
    )
    options: dict[str, Option] = Field(
        default_factory=dict,
        description="The engine's own flags without the dashes in front; dashes or underscores within.",
    )
    args: list[Word] = Field(default_factory=list, description="Engine arguments, verbatim, after the options.")
    custom: CustomModel | None = Field(None, description="The server of the engine `custom`.")
    preset_ini: Preset | None = Field(
        None,
        description="For `llama_cpp` as a router, which has no model of its own: the text of a preset file with its "
        "models.",
    )
    executable: Words = Field(
        default_factory=list, description="A program, or several words, instead of the engine's program."
    )
    container: Flag | None = Field(
        None, description="Whether it runs in a container. Default: the setting of its engine."
    )
    env: dict[Variable, EnvText | SecretModel] = Field(
        default_factory=dict, description="Variables for the engine; a value may be a reference to a secret."
    )
    served_model_name: Text | None = Field(None, description="Model name in answers. Default: that of the model.")
    runtime_lora: Flag = Field(
        False,
        description="Allow loading adapters while the engine runs. On where the manifest attaches adapters to it.",
    )
    max_loras: Rank | None = Field(None, description="Adapters in one batch.")
    max_lora_rank: Rank | None = Field(None, description="The highest adapter rank to allow.")
    port: Port | None = Field(None, description="A fixed port on loopback. Default: one of the configured range.")
    on_demand: Flag | None = Field(None, description="A request starts it. Default: the setting.")
    idle: Idle | None = Field(
        None,
        description="It is stopped, or put to sleep, after this time without requests; `never`: it is not, and it is "
        "not evicted either. Default: the setting.",
    )
    auto_restart: Flag | None = Field(None, description="It is restarted when it ends by itself. Default: the setting.")
    max_restarts: Count | None = Field(
        None, description="Restarts in a row before it counts as failed. Default: the setting."
    )
    restart_delay: Timeout | None = Field(
        None, description="Time before the first restart, doubled for each further one. Default: the setting."
    )
    group: Name | None = Field(None, description="A group with a limit of its own; see `group_limits`.")
    pin: Flag = Field(False, description="It is never evicted.")
    priority: Priority = Field(
        0, description="Of two instances that can be evicted, the one with the lower priority goes first."
    )
    weight: Weight = Field(1.0, description="Multiplies what it costs to bring it back, when victims are chosen.")
    devices: Devices = Field(
        default_factory=list, description="`auto`, or a list of the GPUs that it may use, by index or UUID."
    )
    memory: Bytes | None = Field(None, description="What it takes (`14GiB`), where that should not be measured.")
    sleep_level: SleepLevel | None = Field(
        None,
        description="The level of the sleep that replaces a stop where the engine can sleep; 0 for none. "
        "Default: whichever costs less.",
    )
    preload: Flag = Field(False, description="It is started when the server starts.")
    node: Name | None = Field(None, description="The node that runs it. Default: the one that applies the manifest.")

    @model_validator(mode="after")
    def _consistent(self) -> "InstanceModel":
        if self.engine == "custom" and self.custom is None:
            raise ValueError("engine custom requires the key custom, with the server's argv")
        if self.custom is not None and self.engine not in (None, "custom"):
            raise ValueError(f"the key custom is for the engine custom, not {self.engine}")
        if self.preset_ini is not None and self.engine != "llama_cpp":
            raise ValueError(f"the key preset_ini is for the engine llama_cpp, not {self.engine or 'vllm'}")
        return self
