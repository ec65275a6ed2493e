"""The request and the report of a preflight."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from garrison.base.home import expanded
from garrison.base.settings import Settings

if TYPE_CHECKING:
    from garrison.base.identity import ProcessId
    from garrison.preflight.gpu.gpus import Gpu, Problem

__all__ = ["GpuCheckSource", "PortAction", "PreflightReport", "PreflightRequest", "Thresholds"]

PortAction = Literal["noop", "stopped", "would-stop"]
"""`noop` and `stopped` are the seed's; a dry run says `would-stop` instead of `stopped`."""

GpuCheckSource = Literal["skipped", "nvml", "nvidia-smi", "unavailable"]


@dataclass(frozen=True)
class Thresholds:
    """Limits for the GPUs. A condition in `fail_on` is fatal; the others only warn."""

    min_free_gb: float = 4.0
    max_temp_c: int = 85
    max_util_pct: int = 95
    fail_on: tuple[str, ...] = ("temperature",)


@dataclass(frozen=True, kw_only=True)
class PreflightRequest:
    """The endpoint to clear and the limits to check.

    Attributes:
        host: an IP address or a name; all addresses of a name count.
        stop_timeout: seconds from SIGTERM to SIGKILL, and again (at least two) until the port is free.
        signatures: command-line signatures of vLLM beside the built-in ones.
        skip_port: the server uses no TCP port: none is looked at, and nothing is stopped.
        notes: the directory of notes about who stopped a server; None writes none.
        records: the directory of the engines that Garrison started, which count as the user's own like a vLLM. With
            None only a vLLM does.
    """

    host: str
    port: int
    skip_gpu: bool = False
    thresholds: Thresholds = field(default_factory=Thresholds)
    gpu_devices: tuple[str, ...] = ()
    stop_timeout: float = 15
    signatures: tuple[str, ...] = ()
    lockfile: Path
    skip_port: bool = False
    notes: Path | None = field(default=None, compare=False)
    records: Path | None = field(default=None, compare=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(
            host=settings.engine_host,
            port=settings.engine_port,
            skip_gpu=settings.skip_gpu_check,
            thresholds=Thresholds(
                settings.min_free_gpu_gb, settings.max_gpu_temp_c, settings.max_gpu_util_pct, settings.gpu_fail_on
            ),
            gpu_devices=settings.gpu_devices,
            stop_timeout=settings.stop_timeout,
            signatures=settings.process_signatures,
            lockfile=expanded(settings.preflight_lockfile.replace("{port}", str(settings.engine_port))),
            notes=settings.run_dir,
            records=settings.engine_records,
        )


@dataclass(frozen=True, kw_only=True)
class PreflightReport:
    """A preflight that succeeded: the port was free, or was freed. Failures are errors, not reports.

    Attributes:
        reclaimed_roots: pids of the servers that were stopped, each with its tree.
        blocked_roots: always empty here; in the JSON of a failure, the pids in the way.
        could_scan: whether the socket table could be read; if not, the port was tried by binding it.
        would_stop_roots: in a dry run, the pids that would be stopped.
        killed: pids that needed SIGKILL.
        released_mib: GPU memory that came free after the stop; None when nothing was stopped or measured.
        gpu_problems: thresholds exceeded without being fatal; in a dry run, the fatal ones too.
        would_fail: in a dry run, what would have ended a real run with exit 1.
        agreed: living servers that somebody was asked about and agreed to stop.
        held_by: the registry name of the engine that holds, or held, the port; None when the port was free.
    """

    host: str
    port: int
    ok: Literal[True] = True
    port_action: PortAction = "noop"
    reclaimed_roots: tuple[int, ...] = ()
    blocked_roots: tuple[int, ...] = ()
    could_scan: bool = True
    gpus: "tuple[Gpu, ...]" = ()
    gpu_check_source: GpuCheckSource = "skipped"
    would_stop_roots: tuple[int, ...] = ()
    killed: tuple[int, ...] = ()
    released_mib: int | None = None
    gpu_problems: "tuple[Problem, ...]" = ()
    would_fail: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    agreed: "frozenset[ProcessId]" = frozenset()
    held_by: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The seed's nine fields in the seed's order, then Garrison's."""
        return {
            "ok": self.ok,
            "host": self.host,
            "port": self.port,
            "port_action": self.port_action,
            "reclaimed_roots": list(self.reclaimed_roots),
            "blocked_roots": list(self.blocked_roots),
            "could_scan": self.could_scan,
            "gpus": gpus_json(self.gpus, self.gpu_problems),
            "gpu_check_source": self.gpu_check_source,
            "would_stop_roots": list(self.would_stop_roots),
            "killed": list(self.killed),
            "released_mib": self.released_mib,
            "would_fail": list(self.would_fail),
            "warnings": list(self.warnings),
        }


def gpus_json(gpus: "tuple[Gpu, ...]", problems: "tuple[Problem, ...]") -> list[dict[str, Any]]:
    """Each GPU, with its problems under `warnings`."""
    return [
        gpu.to_json([f"{one.condition}: {one.message}" for one in problems if one.gpu == gpu.index]) for gpu in gpus
    ]
