"""One server a data directory."""

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from garrison.base.errors import ConflictError, InvalidError

__all__ = ["ServerLock"]


class ServerLock:
    """Held while a server runs on a data directory; the file names its process. Ends with the process, however it ends.

    Raises:
        ConflictError: a server runs there. Details: `pid` where it is known.
        InvalidError: the file cannot be made.
    """

    def __init__(self, data_dir: Path) -> None:
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
            details = {"pid": int(text)} if text.isdigit() else {}
            raise ConflictError(
                f"a server runs on {data_dir} already", hint="`garrison down` ends it.", details=details
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
