"""Every error Garrison raises on purpose, in one tree.

    GarrisonError                   code                  exit  http
    ├── InvalidError                invalid                  1   400
    │   └── GpuThresholdError       gpu-threshold            1   503
    ├── PortError
    │   ├── PortForeignError        port-foreign             2   409
    │   ├── PortOtherUserError      port-other-user          3   409
    │   ├── PortUnattributableError port-unattributable      4   409
    │   └── PortStuckError          port-stuck               5   409
    ├── ModelError
    │   ├── ModelNotFoundError      model-not-found         10   404
    │   ├── ModelInvalidError       model-invalid           11   422
    │   └── FetchError              fetch-failed            12   502
    ├── LockedError                 locked                  13   423
    ├── DiskFullError               disk-full               14   507
    ├── EngineError
    │   ├── EngineMissingError      engine-missing          20   424
    │   ├── EngineDiedError         engine-died             21   502
    │   └── EngineTimeoutError      engine-timeout          22   504
    ├── FleetError
    │   ├── ApplyFailedError        apply-failed            30   502
    │   ├── UnreachableError        unreachable             31   504
    │   └── ConflictError           conflict                33   409
    ├── DeniedError                 denied                  40   403
    ├── UsageError                  usage                   64   400
    └── InternalError               internal                70   500

A message says what happened; `hint` names the next step and is shown on its own line; `details` are the facts behind
it, JSON-ready, and go into `--json` output. No secret may enter any of the three.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from garrison.base.exit_codes import ExitCode

__all__ = [
    "ApplyFailedError",
    "ConflictError",
    "DeniedError",
    "DiskFullError",
    "EngineDiedError",
    "EngineError",
    "EngineMissingError",
    "EngineTimeoutError",
    "FetchError",
    "FleetError",
    "GarrisonError",
    "GpuThresholdError",
    "InternalError",
    "InvalidError",
    "LockedError",
    "ModelError",
    "ModelInvalidError",
    "ModelNotFoundError",
    "PortError",
    "PortForeignError",
    "PortOtherUserError",
    "PortStuckError",
    "PortUnattributableError",
    "UnreachableError",
    "UsageError",
    "all_errors",
]


class GarrisonError(Exception):
    """The root of the tree. Raise a leaf, never this."""

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str | None = None, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, Any] = dict(details or {})

    def to_json(self) -> dict[str, Any]:
        """`{"ok": false, "code", "exit_code", "error", "hint"?, ...details}`; the shape `--json` prints on failure.
        A detail cannot take the place of one of these."""
        body: dict[str, Any] = {
            "ok": False,
            "code": self.code,
            "exit_code": int(self.exit_code),
            "error": self.message,
        }
        if self.hint:
            body["hint"] = self.hint
        return body | {name: value for name, value in self.details.items() if name not in body}


class InvalidError(GarrisonError):
    """A value, a file or a combination of options that cannot be used."""

    code = "invalid"
    exit_code = ExitCode.INVALID
    http_status = 400


class GpuThresholdError(InvalidError):
    """A GPU is too hot, too busy or too full, and the user asked for that to be fatal."""

    code = "gpu-threshold"
    http_status = 503


class PortError(GarrisonError):
    """The port that was asked for cannot be had. Details: `pids`, `cmdlines`, `uids`."""

    http_status = 409


class PortForeignError(PortError):
    """What holds the port may not be stopped: it is not vLLM, or it serves and --replace was not given."""

    code = "port-foreign"
    exit_code = ExitCode.PORT_FOREIGN


class PortOtherUserError(PortError):
    """A vLLM that runs as another user holds the port."""

    code = "port-other-user"
    exit_code = ExitCode.PORT_OTHER_USER


class PortUnattributableError(PortError):
    """Something listens, and its socket cannot be mapped to a process (hidepid, another namespace)."""

    code = "port-unattributable"
    exit_code = ExitCode.PORT_UNATTRIBUTABLE


class PortStuckError(PortError):
    """The holder was signalled and the port still listens."""

    code = "port-stuck"
    exit_code = ExitCode.PORT_STUCK


class ModelError(GarrisonError):
    """A model or an adapter could not be had."""


class ModelNotFoundError(ModelError):
    """No source has it. Details: `tried`, one entry a source with its reason."""

    code = "model-not-found"
    exit_code = ExitCode.MODEL_NOT_FOUND
    http_status = 404


class ModelInvalidError(ModelError):
    """Found, but incomplete or corrupt. The message names the file."""

    code = "model-invalid"
    exit_code = ExitCode.MODEL_INVALID
    http_status = 422


class FetchError(ModelError):
    """The network, the credentials or the hub failed while fetching."""

    code = "fetch-failed"
    exit_code = ExitCode.FETCH_FAILED
    http_status = 502


class LockedError(GarrisonError):
    """Another command holds the lock. Details: `path`, and `pid` where it is known."""

    code = "locked"
    exit_code = ExitCode.LOCKED
    http_status = 423


class DiskFullError(GarrisonError):
    """Not enough room. Details: `needed_bytes`, `free_bytes`, `path`."""

    code = "disk-full"
    exit_code = ExitCode.DISK_FULL
    http_status = 507


class EngineError(GarrisonError):
    """An engine could not be found, started or reached."""


class EngineMissingError(EngineError):
    """The engine's executable is not there."""

    code = "engine-missing"
    exit_code = ExitCode.ENGINE_MISSING
    http_status = 424


class EngineDiedError(EngineError):
    """The engine exited before it was ready. Details: `returncode`, `log_tail`, `diagnosis`."""

    code = "engine-died"
    exit_code = ExitCode.ENGINE_DIED
    http_status = 502


class EngineTimeoutError(EngineError):
    """The engine was not ready in time, or showed no sign of life for too long."""

    code = "engine-timeout"
    exit_code = ExitCode.ENGINE_TIMEOUT
    http_status = 504


class FleetError(GarrisonError):
    """What was declared and what targets serve could not be made equal."""


class ApplyFailedError(FleetError):
    """At least one action failed permanently. Details: `failed`, one entry an action."""

    code = "apply-failed"
    exit_code = ExitCode.APPLY_FAILED
    http_status = 502


class UnreachableError(FleetError):
    """Nothing failed, but a target could not be observed. Details: `targets`, name to cause."""

    code = "unreachable"
    exit_code = ExitCode.UNREACHABLE
    http_status = 504


class ConflictError(FleetError):
    """Rejected: somebody else changed what would be overwritten, or another command holds the stack. Details:
    `conflicts`, or `holder` and `since`."""

    code = "conflict"
    exit_code = ExitCode.CONFLICT
    http_status = 409


class DeniedError(GarrisonError):
    """Authentication or permission."""

    code = "denied"
    exit_code = ExitCode.DENIED
    http_status = 403


class UsageError(GarrisonError):
    """A bad command line."""

    code = "usage"
    exit_code = ExitCode.USAGE
    http_status = 400


class InternalError(GarrisonError):
    """A bug of ours."""

    code = "internal"
    exit_code = ExitCode.INTERNAL


def all_errors() -> list[type[GarrisonError]]:
    """Every leaf and branch that has a code of its own, in the order of the tree; the reference is made from it."""
    found: list[type[GarrisonError]] = []

    def walk(cls: type[GarrisonError]) -> None:
        for child in cls.__subclasses__():
            if "code" in vars(child):
                found.append(child)
            walk(child)

    walk(GarrisonError)
    return found
