"""What to serve: the value that both a command line and a manifest are turned into."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from garrison.engines.custom import Custom
    from garrison.launch.containers.values import ContainerSpec

__all__ = ["AdapterSpec", "LaunchSpec"]


@dataclass(frozen=True, slots=True)
class AdapterSpec:
    """An adapter to serve from the start. `source` is a directory, or the name of an imported adapter."""

    name: str
    source: str


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """One engine to start.

    Attributes:
        model: a name (`org/name`, `org/name@revision`), a directory or a file; empty for a router.
        router: it has no model of its own: its arguments say where those are that it loads.
        executable: the user's own engine instead of an installed one.
        launcher: further words of it, before the arguments: `-m vllm.entrypoints.cli.main` for a Python.
        container: where it runs instead; then `executable` and `launcher` do not count.
        reads: files and directories that it needs beside its model and its adapters; a container sees them.
        custom: the server to start, for the engine `custom`; its `model` is passed on as it is.
        args: engine arguments, verbatim and in order; they override everything that Garrison adds.
        env: variables for the engine.
        runtime_lora: adapters will be loaded and unloaded while the engine runs.
        max_loras: adapters in one batch; the number of adapters when None.
        max_lora_rank: the highest rank to allow; that of the adapters when None.
        api_key_env: the variable that holds the key that clients must send.
    """

    model: str
    engine: str = "vllm"
    executable: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    served_name: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    adapters: tuple[AdapterSpec, ...] = ()
    runtime_lora: bool = False
    max_loras: int | None = None
    max_lora_rank: int | None = None
    api_key_env: str | None = None
    launcher: tuple[str, ...] = ()
    container: "ContainerSpec | None" = None
    custom: "Custom | None" = None
    router: bool = False
    reads: tuple[Path, ...] = ()
