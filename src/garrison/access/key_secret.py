"""The secret of the data directory, with which tokens are digested."""

import errno
import os
import secrets
import stat
from pathlib import Path

from garrison.base.errors import DeniedError, InvalidError
from garrison.base.files import write_atomic
from garrison.base.locks import file_lock

__all__ = ["FILE", "load_key_secret"]

FILE = "key-secret"
_BYTES = 32
_LONGEST = 64
_WAIT_SECONDS = 10.0


def load_key_secret(data_dir: Path) -> bytes:
    """Return the secret of a data directory; create it, with mode 0600, if there is none.

    Blocks on the disk. Several processes may call it at once: all get the same secret.

    Raises:
        DeniedError: the file or its directory belongs to another user or is open to others, or it cannot be read or
            created.
        InvalidError: the file is not a secret.
        LockedError: another process is still creating it.
    """
    path = data_dir / FILE
    try:
        if (found := _read(path)) is not None:
            return found
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(data_dir, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        with file_lock(path.with_name(f".{FILE}.lock"), timeout=_WAIT_SECONDS, purpose="is creating the key secret"):
            if (found := _read(path)) is not None:
                return found
            made = secrets.token_bytes(_BYTES)
            write_atomic(path, made.hex() + "\n", mode=0o600)
            return made
    except PermissionError as error:
        raise DeniedError(
            f"the key secret {path} cannot be read or created: {error.strerror}",
            hint="Run the command as the owner of the data directory; GARRISON_DATA_DIR names another.",
            details={"path": str(path)},
        ) from None


def _read(path: Path) -> bytes | None:
    """Return the secret in a file; None if there is none. A link is not followed, and nothing blocks."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except PermissionError:
        raise
    except OSError as error:
        raise _unusable(path, f"it cannot be opened: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise _unusable(path, "it is not a file")
        _check_private(path, found)
        text = file.read(4 * _LONGEST)
    try:
        secret = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        raise _unusable(path, "it is not made of hexadecimal digits") from None
    if not _BYTES <= len(secret) <= _LONGEST:
        raise _unusable(path, f"it has {len(secret)} bytes, not {_BYTES} to {_LONGEST}")
    return secret


def _check_private(path: Path, found: os.stat_result) -> None:
    directory = path.parent.stat()
    if found.st_uid != os.geteuid():
        raise DeniedError(
            f"the key secret {path} belongs to another user (uid {found.st_uid})",
            hint="Run the command as its owner; GARRISON_DATA_DIR names another data directory.",
            details={"path": str(path)},
        )
    if found.st_mode & 0o077:
        raise DeniedError(
            f"the key secret {path} can be read by others",
            hint=f"chmod 600 {path}; if somebody may have read it, rotate all keys.",
            details={"path": str(path)},
        )
    if directory.st_mode & stat.S_IWOTH and not directory.st_mode & stat.S_ISVTX:
        raise DeniedError(
            f"the key secret {path} lies in a directory that anybody can write",
            hint=f"chmod o-w {path.parent}",
            details={"path": str(path)},
        )


def _unusable(path: Path, why: str) -> InvalidError:
    return InvalidError(
        f"the key secret {path} cannot be used: {why}",
        hint="Restore it from a backup. Without it no key works: move it away, and rotate every key.",
        details={"path": str(path)},
    )
