"""Read the files of a model. Every failure is a `ModelInvalidError` that names the file.

Functions that accept a `tree` read only below it, for models that are copied or that may come from a stranger. Without
a tree, links are followed, as an engine does when it serves a directory in place: the owner chose where the files are.
"""

import errno
import json
import os
from pathlib import Path
from typing import Any

from garrison.base.beneath import IrregularError, OutsideError, Tree, open_regular
from garrison.base.errors import ModelInvalidError
from garrison.base.presence import is_dir, is_file
from garrison.models.files.problem import Problem

__all__ = [
    "file_size",
    "is_dir",
    "is_file",
    "json_object",
    "open_file",
    "open_tree",
    "parse_json_object",
    "read_small",
    "require_content",
    "unreadable",
]

_MAX_JSON_BYTES = 512 * 1024 * 1024
_MAX_RECORD_BYTES = 64 * 1024
_LFS_START = b"version https://git-lfs"
_LINK_START = b"../../blobs/"


def open_file(path: Path, tree: Tree | None = None) -> int:
    """Open the regular file `path` for reading, without blocking, and return a descriptor.

    Args:
        tree: the path must stay below it; None to follow links.

    Raises:
        ModelInvalidError: missing, not a regular file, unreadable, or outside the tree.
    """
    try:
        return open_regular(path) if tree is None else tree.open_path(path)
    except OSError as error:
        raise unreadable(path, error) from None


def open_tree(path: Path) -> Tree:
    """Open the directory `path` for reading below it. Close it, or use it in a `with` statement.

    Raises:
        ModelInvalidError: it is not a directory, or cannot be opened.
    """
    try:
        return Tree(path)
    except NotADirectoryError:
        raise Problem(str(path), "is not a directory").error() from None
    except FileNotFoundError:
        raise Problem(str(path), "does not exist").error() from None
    except OSError as error:
        raise unreadable(path, error) from None


def read_small(directory: Path, name: str) -> bytes:
    """The first 64 KiB of a file that Garrison writes into directories of models. Links are not followed: they may come
    from whoever made the directory.

    Raises:
        OSError: missing, not a regular file, or unreadable.
    """
    with Tree(directory) as tree, open(tree.open(name), "rb") as handle:
        return handle.read(_MAX_RECORD_BYTES)


def file_size(path: Path, tree: Tree | None = None) -> int | None:
    """The size of the regular file `path` in bytes; None if there is none.

    Raises:
        ModelInvalidError: a link leads out of the tree.
    """
    if tree is None:
        return path.stat().st_size if is_file(path) else None
    try:
        found = tree.find(path.relative_to(tree.path).as_posix())
    except OutsideError as error:
        raise unreadable(path, error) from None
    except OSError:
        return None
    return found.bytes if found is not None and found.kind == "file" else None


def json_object(path: Path, tree: Tree | None = None) -> dict[str, Any]:
    """The object in the JSON file `path`. `tree` as in `open_file`.

    Raises:
        ModelInvalidError: missing, unreadable, empty, not UTF-8, not JSON, or not a JSON object.
    """
    try:
        with open(open_file(path, tree), "rb") as handle:
            if os.fstat(handle.fileno()).st_size > _MAX_JSON_BYTES:
                raise Problem(str(path), "is too large to be JSON that belongs to a model").error()
            content = handle.read()
    except OSError as error:
        raise unreadable(path, error) from None
    return parse_json_object(content, path)


def parse_json_object(content: bytes, path: Path) -> dict[str, Any]:
    if not content:
        raise Problem(str(path), "is empty").error()
    require_content(content[:32], path)
    try:
        value = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise Problem(str(path), "is not UTF-8 text").error() from None
    except (ValueError, RecursionError) as error:
        raise Problem(str(path), f"is not valid JSON: {error}").error() from None
    if not isinstance(value, dict):
        raise Problem(str(path), f"must hold a JSON object, not {_kind(value)}").error()
    return value


def require_content(start: bytes, path: Path) -> None:
    """Raise ModelInvalidError if a file with this start only stands for the real one.

    It is the pointer that git leaves in place of a large file that was not fetched, or a link of a hub cache that was
    copied as a file with the link's text.
    """
    if start.startswith(_LFS_START):
        what, hint = "is a Git LFS pointer, not the file itself", "Run `git lfs pull` in the clone it came from."
    elif start.startswith(_LINK_START):
        what = "holds the text of a link into a hub cache, not the file itself"
        hint = "Copy the cache again with its links: `cp -a`, `rsync -a`, or `tar`."
    else:
        return
    raise Problem(str(path), what, hint).error()


def unreadable(path: Path, error: OSError) -> ModelInvalidError:
    if isinstance(error, OutsideError):
        return _outside(error)
    if isinstance(error, IrregularError):
        return Problem(str(path), "is not a regular file", "Replace it with the file itself.").error()
    if error.errno == errno.ENOENT:
        # Pruning the hub cache by hand removes the blob behind a snapshot's link.
        gone = f"is a link to {path.readlink()}, which is missing" if path.is_symlink() else "is missing"
        return Problem(str(path), gone).error()
    hint = "Make it readable for this user." if error.errno in (errno.EACCES, errno.EPERM) else "Check the disk."
    return Problem(str(path), f"cannot be read: {error.strerror}", hint).error()


def _outside(error: OutsideError) -> ModelInvalidError:
    hint = (
        "If you trust its maker, copy the directory with the files that its links point to (`cp -rL`), or serve it "
        "where it is: there links are followed."
    )
    reason = f"is a link to {error.points_to}, which leads out of {error.tree}: it was not followed"
    return Problem(str(error.link), reason, hint).error()


def _kind(value: object) -> str:
    return {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a bare value")
