"""What one run of an engine is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from garrison.engines.engine import Endpoint, Engine, EngineCommand
from garrison.launch.run.patience import Patience

__all__ = ["Job"]


@dataclass(frozen=True, slots=True)
class Job:
    """What to run and how long to wait for it.

    Attributes:
        endpoint: where and how the engine will listen, by its arguments.
        environment: the engine's whole environment.
        log_path: the file for the engine's output, unless a running engine writes to it.
        stop_timeout: seconds for the whole stop.
        notes: the directory in which a command that stops a server leaves a note.
        records: the directory of the engines that Garrison started, by which later preflights recognise this one; None
            keeps no record.
    """

    engine: Engine
    command: EngineCommand
    endpoint: Endpoint
    environment: Mapping[str, str]
    log_path: Path
    patience: Patience
    stop_timeout: float
    notes: Path
    records: Path | None = None
