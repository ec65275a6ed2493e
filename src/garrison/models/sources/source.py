"""The protocol of a source: it has the model, has a broken one, or has none and says why."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from garrison.base.clock import Clock
from garrison.models.files.problem import Problem
from garrison.models.files.progress import Progress
from garrison.models.files.stop_token import StopToken
from garrison.models.request import ResolveRequest

__all__ = ["Broken", "Found", "Outcome", "Skipped", "Source", "Workspace"]


@dataclass(frozen=True, slots=True)
class Found:
    """A whole model.

    Attributes:
        path: absolute; a directory or a GGUF file. It names one version and keeps naming it.
        revision: the commit, if known.
        hf_home: the Hugging Face home whose cache it is in.
        staged: it was downloaded into the staging directory and must still be checked and moved into place.
        file: the GGUF file below a staged `path` that is the model, relative; None for all of the directory.
    """

    path: Path
    revision: str | None = None
    hf_home: Path | None = None
    staged: bool = False
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """The source does not have this model. `reason` completes "SOURCE: …"; `unused`: it is not configured."""

    reason: str
    unused: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Broken:
    """The source has the model, and it is incomplete or corrupt."""

    problem: Problem


Outcome = Found | Skipped | Broken


@dataclass(frozen=True, slots=True)
class Workspace:
    """What a source may use.

    Attributes:
        check: returns the fault of a candidate; None if it is whole.
        free_bytes: bytes free on the file system of an existing directory.
        stop: asks the source to stop; it checks this before each chunk it writes and in each wait.
    """

    check: Callable[[Path], Problem | None]
    free_bytes: Callable[[Path], int]
    clock: Clock
    stop: StopToken = field(default_factory=StopToken)


class Source(Protocol):
    @property
    def name(self) -> str:
        """One of `SOURCES`."""

    def find(self, request: ResolveRequest, workspace: Workspace, progress: Progress) -> Outcome:
        """Find the model, and download it if this is a network source.

        Raises:
            FetchError: a network, credential or hub error; what was fetched is kept for the next run.
            DiskFullError: not enough free space; raised before the transfer.
            InvalidError: the request cannot be answered as it is.
            StoppedError: `workspace.stop` was stopped; what was fetched is kept for the next run.
        """
