"""One server a data directory."""

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from garrison.base.errors import ConflictError, InvalidError

__all__ = ["ServerLock"]

_BRIEFLY = " briefly"


class ServerLock:
    """Held while a server runs on a data directory; the file names its process. Ends with the process, however it ends.

    Args:
        briefly: it is held by a command, for as long as that stops what a server left.

    Raises:
        ConflictError: a server runs there. Details: `pid` where it is known; `briefly` where a command holds it.
        InvalidError: the file cannot be made.
    """

    def __init__(self, data_dir: Path, *, briefly: bool = False) -> None:
        path = data_dir / "server.lock"
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InvalidError(
                f"the data directory {data_dir} cannot be used: {error.strerror}", hint="Set GARRISON_DATA_DIR."
            ) from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            text = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise InvalidError(f"{path} cannot be locked: {error.strerror}") from None
            pid, _, held = text.partition(" ")
            details: dict[str, int | bool] = {"pid": int(pid)} if pid.isdigit() else {}
            if held:
                details["briefly"] = True
                raise ConflictError(
                    f"a command stops what runs on {data_dir}", hint="Try again in a moment.", details=details
                ) from None
            raise ConflictError(
                f"a server runs on {data_dir} already", hint="`garrison down` ends it.", details=details
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}{_BRIEFLY if briefly else ''}\n".encode(), 0)

    def release(self) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
