"""The tree of errors that Garrison raises on purpose.

    GarrisonError                   code                  exit  http
    ├── InvalidError                invalid                  1   400
    │   ├── NotFoundError           not-found                1   404
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
    │   ├── EngineTimeoutError      engine-timeout          22   504
    │   ├── NotReadyError           not-ready               31   503
    │   ├── BusyError               busy                    31   429
    │   └── SleepFailedError        sleep-failed            31   503
    ├── FleetError
    │   ├── ApplyFailedError        apply-failed            30   502
    │   ├── UnreachableError        unreachable             31   504
    │   ├── UnusableError           unusable                31   502
    │   └── ConflictError           conflict                33   409
    ├── DeniedError                 denied                  40   403
    │   ├── UnauthenticatedError    unauthenticated         40   401
    │   └── RateLimitedError        rate-limited            40   429
    ├── DeclinedError               declined                41   409
    ├── UsageError                  usage                   64   400
    └── InternalError               internal                70   500

A message says what happened. `hint` names the next step and is shown on its own line. `details` are the underlying
facts, JSON-ready, and go into `--json` output. None of the three may contain a secret.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from garrison.base.exit_codes import ExitCode

__all__ = [
    "ApplyFailedError",
    "BusyError",
    "ConflictError",
    "DeclinedError",
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
    "NotFoundError",
    "NotReadyError",
    "PortError",
    "PortForeignError",
    "PortOtherUserError",
    "PortStuckError",
    "PortUnattributableError",
    "RateLimitedError",
    "SleepFailedError",
    "UnauthenticatedError",
    "UnreachableError",
    "UnusableError",
    "UsageError",
    "all_errors",
]


class GarrisonError(Exception):
    """Root of the tree. Raise a leaf, never this class."""

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str | None = None, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, Any] = dict(details or {})

    def to_json(self) -> dict[str, Any]:
        """Return `{"ok": false, "code", "exit_code", "error", "hint"?, ...details}`, as `--json` prints on failure.

        A detail cannot overwrite any of the named keys.
        """
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


class NotFoundError(InvalidError):
    """Something that was named does not exist: an instance, a key, a node."""

    code = "not-found"
    http_status = 404


class GpuThresholdError(InvalidError):
    """A GPU exceeds a temperature, utilization or memory threshold that the user made fatal."""

    code = "gpu-threshold"
    http_status = 503


class PortError(GarrisonError):
    """The requested port is not available. Details: `pids`, `cmdlines`, `uids`."""

    http_status = 409


class PortForeignError(PortError):
    """The port is held by a process that is not stopped: a foreign one, or one that serves, without --replace."""

    code = "port-foreign"
    exit_code = ExitCode.PORT_FOREIGN


class PortOtherUserError(PortError):
    """The port is held by a vLLM that runs as another user."""

    code = "port-other-user"
    exit_code = ExitCode.PORT_OTHER_USER


class PortUnattributableError(PortError):
    """The port has a listener whose socket cannot be mapped to a process (hidepid, another namespace)."""

    code = "port-unattributable"
    exit_code = ExitCode.PORT_UNATTRIBUTABLE


class PortStuckError(PortError):
    """The holder was signalled, but still listens on the port."""

    code = "port-stuck"
    exit_code = ExitCode.PORT_STUCK


class ModelError(GarrisonError):
    """A model or an adapter could not be obtained."""


class ModelNotFoundError(ModelError):
    """No source has the model. Details: `tried`, one entry per source with its reason."""

    code = "model-not-found"
    exit_code = ExitCode.MODEL_NOT_FOUND
    http_status = 404


class ModelInvalidError(ModelError):
    """The model was found, but is incomplete or corrupt. The message names the file."""

    code = "model-invalid"
    exit_code = ExitCode.MODEL_INVALID
    http_status = 422


class FetchError(ModelError):
    """A fetch failed because of the network, the credentials or the hub."""

    code = "fetch-failed"
    exit_code = ExitCode.FETCH_FAILED
    http_status = 502


class LockedError(GarrisonError):
    """Another command holds the lock. Details: `path`, and `pid` if known."""

    code = "locked"
    exit_code = ExitCode.LOCKED
    http_status = 423


class DiskFullError(GarrisonError):
    """There is not enough disk space. Details: `needed_bytes`, `free_bytes`, `path`."""

    code = "disk-full"
    exit_code = ExitCode.DISK_FULL
    http_status = 507


class EngineError(GarrisonError):
    """An engine could not be found, started or reached."""


class EngineMissingError(EngineError):
    """The engine's executable does not exist."""

    code = "engine-missing"
    exit_code = ExitCode.ENGINE_MISSING
    http_status = 424


class EngineDiedError(EngineError):
    """The engine exited before it was ready. Details: `returncode`, `log_tail`, `diagnosis`."""

    code = "engine-died"
    exit_code = ExitCode.ENGINE_DIED
    http_status = 502


class EngineTimeoutError(EngineError):
    """The engine was not ready in time, or showed no activity for too long."""

    code = "engine-timeout"
    exit_code = ExitCode.ENGINE_TIMEOUT
    http_status = 504


class NotReadyError(EngineError):
    """An instance cannot answer now, and may later. Details: `retry_after` in seconds; `loading` while it starts."""

    code = "not-ready"
    exit_code = ExitCode.UNREACHABLE
    http_status = 503


class BusyError(EngineError):
    """A route carries as many requests as it may, and as many wait as may, or this one has waited for too long.

    Details: `retry_after` in seconds.
    """

    code = "busy"
    exit_code = ExitCode.UNREACHABLE
    http_status = 429


class SleepFailedError(EngineError):
    """An engine did not fall asleep, did not wake up, or is not what it was before. It is stopped."""

    code = "sleep-failed"
    exit_code = ExitCode.UNREACHABLE
    http_status = 503


class FleetError(GarrisonError):
    """The targets could not be made to serve what was declared."""


class ApplyFailedError(FleetError):
    """At least one action failed permanently. Details: `failed`, one entry per action."""

    code = "apply-failed"
    exit_code = ExitCode.APPLY_FAILED
    http_status = 502


class UnreachableError(FleetError):
    """No action failed, but a target could not be observed. Details: `targets`, from name to cause."""

    code = "unreachable"
    exit_code = ExitCode.UNREACHABLE
    http_status = 504


class UnusableError(FleetError):
    """Something answered there, but not as what was expected: with another status, or in another form."""

    code = "unusable"
    exit_code = ExitCode.UNREACHABLE
    http_status = 502


class ConflictError(FleetError):
    """The command was rejected: it would overwrite an outside change, another command holds the stack, or what was
    confirmed is not what would be done now.

    Details: `conflicts`; `holder` and `since`; or `fingerprint`, with the `plan` as it is now.
    """

    code = "conflict"
    exit_code = ExitCode.CONFLICT
    http_status = 409


class DeniedError(GarrisonError):
    """Authentication failed, or permission was denied."""

    code = "denied"
    exit_code = ExitCode.DENIED
    http_status = 403


class UnauthenticatedError(DeniedError):
    """A call needs a key, and has none or one that is not accepted. Details: `reason`."""

    code = "unauthenticated"
    http_status = 401


class RateLimitedError(DeniedError):
    """A key may do no more for the moment. Details: `limit`, and `retry_after` in seconds."""

    code = "rate-limited"
    http_status = 429


class DeclinedError(GarrisonError):
    """A question at the terminal was not answered with yes, so nothing was done."""

    code = "declined"
    exit_code = ExitCode.DECLINED
    http_status = 409


class UsageError(GarrisonError):
    """The command line is invalid."""

    code = "usage"
    exit_code = ExitCode.USAGE
    http_status = 400


class InternalError(GarrisonError):
    """A bug in Garrison."""

    code = "internal"
    exit_code = ExitCode.INTERNAL


def all_errors() -> list[type[GarrisonError]]:
    """Return every class with a code of its own, in tree order; the error reference is generated from this list."""
    found: list[type[GarrisonError]] = []

    def walk(cls: type[GarrisonError]) -> None:
        for child in cls.__subclasses__():
            if "code" in vars(child):
                found.append(child)
            walk(child)

    walk(GarrisonError)
    return found
