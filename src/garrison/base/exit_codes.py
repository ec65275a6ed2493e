"""The exit codes of every command. The numbers are a stable contract: scripts match on them.

0 to 5 match `vllm-preflight`, which Garrison replaces; a usage error is 64 so that 2 keeps its meaning there.
"""

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    """Exit status of a command."""

    OK = 0
    INVALID = 1
    PORT_FOREIGN = 2
    PORT_OTHER_USER = 3
    PORT_UNATTRIBUTABLE = 4
    PORT_STUCK = 5
    MODEL_NOT_FOUND = 10
    MODEL_INVALID = 11
    FETCH_FAILED = 12
    LOCKED = 13
    DISK_FULL = 14
    ENGINE_MISSING = 20
    ENGINE_DIED = 21
    ENGINE_TIMEOUT = 22
    APPLY_FAILED = 30
    UNREACHABLE = 31
    DRIFT = 32
    CONFLICT = 33
    DENIED = 40
    DECLINED = 41
    USAGE = 64
    INTERNAL = 70

    @property
    def label(self) -> str:
        """Name used in docs and JSON: `port-foreign` for `PORT_FOREIGN`."""
        return self.name.lower().replace("_", "-")

    @property
    def meaning(self) -> str:
        """One-line description for the reference and for `--help`."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "success",
    ExitCode.INVALID: "bad value, bad config, or a failed GPU threshold",
    ExitCode.PORT_FOREIGN: "the port is held by a process that Garrison must not stop",
    ExitCode.PORT_OTHER_USER: "the port is held by another user's vLLM",
    ExitCode.PORT_UNATTRIBUTABLE: "the port is held by a listener that cannot be mapped to a process",
    ExitCode.PORT_STUCK: "the holder was signalled but still listens, or a command did not bind the port in time",
    ExitCode.MODEL_NOT_FOUND: "no source has the model",
    ExitCode.MODEL_INVALID: "the model was found, but is incomplete or corrupt",
    ExitCode.FETCH_FAILED: "network, credentials or hub error during a fetch",
    ExitCode.LOCKED: "another command holds the lock and did not release it in time",
    ExitCode.DISK_FULL: "not enough disk space; reported before the download starts",
    ExitCode.ENGINE_MISSING: "the engine's executable does not exist",
    ExitCode.ENGINE_DIED: "the engine exited before it was ready, or unexpectedly while serving",
    ExitCode.ENGINE_TIMEOUT: "the engine was not ready in time",
    ExitCode.APPLY_FAILED: "at least one action failed permanently",
    ExitCode.UNREACHABLE: "no action failed, but a target could not be observed",
    ExitCode.DRIFT: "`--exit-code` was given and there is drift or a non-empty plan",
    ExitCode.CONFLICT: "rejected: the stack drifted, or another command holds it",
    ExitCode.DENIED: "authentication failed or permission denied",
    ExitCode.DECLINED: "a question at the terminal was not answered with yes; nothing was done",
    ExitCode.USAGE: "invalid command line",
    ExitCode.INTERNAL: "a bug; the message says where the report is",
}
