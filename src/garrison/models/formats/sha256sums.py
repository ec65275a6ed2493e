"""The text format of `sha256sum`, as it writes and checks it."""

import re
from collections.abc import Mapping
from pathlib import Path

from garrison.models.files.problem import Problem

__all__ = ["parse_sums", "render_sums"]

_LINE = re.compile(r"(?P<escaped>\\?)(?P<digest>[0-9a-fA-F]{64}) [ *](?P<name>.+)", re.DOTALL)


def render_sums(digests: Mapping[str, str]) -> bytes:
    """One line per file, sorted by name; `\\`, newline and return in names are escaped as `sha256sum` does."""
    lines = []
    for name, digest in sorted(digests.items()):
        escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        mark = "\\" if escaped != name else ""
        lines.append(f"{mark}{digest}  {escaped}\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def parse_sums(content: bytes, path: Path) -> dict[str, str]:
    """Parse a list into name to hex digest. Blank lines and `#` lines are skipped. `path` is for the message.

    Raises:
        ModelInvalidError: a line is malformed, or names a file outside the model.
    """
    digests: dict[str, str] = {}
    for number, line in enumerate(content.decode("utf-8", "surrogateescape").split("\n"), 1):
        line = line.removesuffix("\r")
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise Problem(
                str(path), f"line {number} is not `DIGEST  NAME`", "Remove the file, or fix the line."
            ).error()
        name = _unescape(match["name"]) if match["escaped"] else match["name"]
        name = name.removeprefix("./")
        if name.startswith("/") or ".." in name.split("/"):
            raise Problem(str(path), f"line {number} names a file outside the model", "Remove the file.").error()
        digests[name] = match["digest"].lower()
    return digests


def _unescape(name: str) -> str:
    return re.sub(r"\\([\\nr])", lambda match: {"\\": "\\", "n": "\n", "r": "\r"}[match[1]], name)
