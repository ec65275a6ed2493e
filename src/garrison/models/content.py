"""Reading the files of a model. Whatever goes wrong is a `ModelInvalidError` that names the file."""

import errno
import json
import os
from pathlib import Path
from typing import Any

from garrison.base.errors import ModelInvalidError
from garrison.models.problem import Problem

__all__ = ["is_dir", "is_file", "json_object", "lfs_pointer", "parse_json_object", "pointer_error", "unreadable"]

_MAX_JSON_BYTES = 512 * 1024 * 1024
_LFS_START = b"version https://git-lfs"


def json_object(path: Path) -> dict[str, Any]:
    """The object in the JSON file `path`.

    Raises:
        ModelInvalidError: missing, unreadable, empty, not UTF-8, not JSON, or JSON that is no object.
    """
    try:
        with open(path, "rb") as handle:
            if os.fstat(handle.fileno()).st_size > _MAX_JSON_BYTES:
                raise Problem(str(path), "is too large to be JSON that belongs to a model").error()
            content = handle.read()
    except OSError as error:
        raise unreadable(path, error) from None
    return parse_json_object(content, path)


def parse_json_object(content: bytes, path: Path) -> dict[str, Any]:
    if not content:
        raise Problem(str(path), "is empty").error()
    if lfs_pointer(content):
        raise pointer_error(path)
    try:
        value = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise Problem(str(path), "is not UTF-8 text").error() from None
    except (ValueError, RecursionError) as error:
        raise Problem(str(path), f"is not valid JSON: {error}").error() from None
    if not isinstance(value, dict):
        raise Problem(str(path), f"must hold a JSON object, not {_kind(value)}").error()
    return value


def is_dir(path: Path) -> bool:
    """False too where this user may not look; `Path.is_dir` raises there in the Pythons we run on."""
    try:
        return path.is_dir()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """As `is_dir`."""
    try:
        return path.is_file()
    except OSError:
        return False


def lfs_pointer(start: bytes) -> bool:
    """Whether a file that starts so is what git leaves in place of a large file that was not fetched."""
    return start.startswith(_LFS_START)


def pointer_error(path: Path) -> ModelInvalidError:
    return Problem(
        str(path), "is a Git LFS pointer, not the file itself", "Run `git lfs pull` in the clone it came from."
    ).error()


def unreadable(path: Path, error: OSError) -> ModelInvalidError:
    if error.errno == errno.ENOENT:
        # The blob behind a snapshot's link goes away when somebody prunes the hub cache by hand.
        gone = f"is a link to {path.readlink()}, which is missing" if path.is_symlink() else "is missing"
        return Problem(str(path), gone).error()
    hint = "Make it readable for this user." if error.errno in (errno.EACCES, errno.EPERM) else "Check the disk."
    return Problem(str(path), f"cannot be read: {error.strerror}", hint).error()


def _kind(value: object) -> str:
    return {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a bare value")
