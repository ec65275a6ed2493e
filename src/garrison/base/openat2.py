"""The system call that opens a path only if it stays below a directory. Python 3.11 has no function for it."""

import ctypes
import errno
import os
from functools import cache

__all__ = ["open_beneath", "supported"]

_SYS_OPENAT2 = 437  # the same on every architecture
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_BENEATH = 0x08


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(directory: int, name: str, flags: int) -> int:
    """Return a descriptor of `name`, resolved without leaving the directory of the descriptor `directory`.

    Raises:
        OSError: `EXDEV` if the path leads out, `EAGAIN` if something was renamed during the call, and as `os.open`.
    """
    how = _OpenHow(flags, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    size = ctypes.sizeof(how)
    descriptor: int = _library().syscall(_SYS_OPENAT2, directory, os.fsencode(name), ctypes.byref(how), size)
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return descriptor


@cache
def supported() -> bool:
    """Return whether the kernel has the call and no sandbox forbids it."""
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(open_beneath(root, ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return False
    finally:
        os.close(root)
    return True


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
