"""What an instance is: the value that a manifest, the API and a pasted command line are turned into."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from garrison.base.errors import InvalidError
from garrison.engines.llama_router import is_router
from garrison.net.endpoint import Secret

__all__ = ["CustomServer", "InstanceSpec", "require_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}\Z")


def require_name(name: str) -> str:
    """Return `name` if an instance may have it: 1 to 50 letters, digits, dots, underscores and dashes (llamactl's
    rule), the first of which is a letter or digit, since the name is part of paths.

    Raises:
        InvalidError: it may not.
    """
    if not _NAME.match(name):
        raise InvalidError(
            f"invalid instance name {name!r}",
            hint="Use 1 to 50 letters, digits, dots, underscores and dashes, beginning with a letter or digit.",
            details={"name": name},
        )
    return name


@dataclass(frozen=True, slots=True)
class CustomServer:
    """An OpenAI-compatible server of any kind.

    Attributes:
        argv: its command; `{port}`, `{host}` and `{model}` in it are replaced.
        ready_path: answers 200 once it can serve.
        apis: API families that it speaks, as in `engines.engine.Capabilities`.
    """

    argv: tuple[str, ...]
    ready_path: str = "/health"
    apis: frozenset[str] = frozenset({"chat", "completions"})


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSpec:
    """One instance as it was declared.

    Attributes:
        engine: `vllm`, `llama_cpp`, `mlx_lm`, `sim` or `custom`.
        options: the engine's options as JSON, `model` among them, with underscores; `extra_args` holds those that the
            engine's catalogue does not know.
        custom: for the engine `custom`.
        preset_ini: for llama-server as a router: the text of a preset file, which names its models. May hold secrets.
        executable: words that replace the engine's program, such as `("python", "-m", "vllm")`.
        container: whether it runs in a container; None for what the engine's settings say.
        env: variables for the engine.
        secrets: further variables, as references that are read at each start.
        port: a fixed port; None for one of the configured range.
        on_demand: a request starts it.
        idle_seconds: it is stopped or put to sleep when it had no request for this long; 0 or less: never, and it is
            not evicted either; None for the configured default.
        auto_restart: it is restarted when it ends by itself.
        max_restarts: restarts in a row before it counts as failed.
        restart_delay: seconds before the first of them; doubled for each further one.
        group: the name of a group with a limit of its own.
        pin: it is never evicted.
        priority: of two instances that can be evicted, the one with the lower priority goes first.
        weight: of its return: it counts as if it took so many times as long to start it again. Above 1 it is kept
            longer than others, below 1 it goes earlier.
        devices: indices or UUIDs of the GPUs that it may use; empty for any.
        memory_bytes: what it takes, where that should not be measured.
        preload: it is started when the server starts, in the order of priorities, is not stopped when idle, and comes
            back after an eviction as soon as there is room.
        sleep_level: the level of sleep that replaces a stop where the engine can sleep; 0 for none; None for whichever
            costs least.
        stack: the stack that declared it; None for one made by the API.
    """

    name: str
    engine: str = "vllm"
    options: Mapping[str, Any] = field(default_factory=dict)
    custom: CustomServer | None = None
    preset_ini: str | None = field(default=None, repr=False)
    executable: tuple[str, ...] = ()
    container: bool | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    port: int | None = None
    on_demand: bool = True
    idle_seconds: float | None = None
    auto_restart: bool = True
    max_restarts: int = 3
    restart_delay: float = 5.0
    group: str | None = None
    pin: bool = False
    priority: int = 0
    weight: float = 1.0
    devices: tuple[str, ...] = ()
    memory_bytes: int | None = None
    preload: bool = False
    sleep_level: int | None = None
    stack: str | None = None

    @property
    def model(self) -> str | None:
        found = self.options.get("model")
        return found if isinstance(found, str) and found else None

    @property
    def router(self) -> bool:
        """Whether it has no model of its own: requests name one of the models that it loads."""
        return is_router(self.engine, self.options, preset=self.preset_ini is not None)

    def restarts_for(self, other: "InstanceSpec") -> bool:
        """Whether a running engine has to be restarted to be as `other` says."""
        return any(getattr(self, name) != getattr(other, name) for name in _OF_THE_ENGINE)


_OF_THE_ENGINE = (
    "engine", "options", "custom", "preset_ini", "executable", "container", "env", "secrets", "port", "devices",
)  # fmt: skip
"""Fields that the command, the environment or the place of an engine depends on."""
