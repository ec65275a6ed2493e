"""Exported instances: what `export` prints, and what `import`, `create --file` and `edit` read."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from garrison.base.documents import read_document
from garrison.base.errors import InvalidError, UsageError
from garrison.cli.server.instance.options import Options

__all__ = ["as_yaml", "exported", "instances_of", "options_in", "read_file", "read_text"]

_MOST_BYTES = 8 * 2**20
_INSTANCES = "instances"
_HINT = "`garrison instance export` prints one that can be imported."


def exported(found: Mapping[str, Options]) -> dict[str, Any]:
    """The document of these instances, by name."""
    return {_INSTANCES: dict(found)}


def as_yaml(content: Any) -> str:
    """`content` as YAML, in its own order."""
    from garrison.base.yaml_text import yaml_text

    return yaml_text(content, width=110)


def read_file(path: str) -> Any:
    """Read JSON or YAML from a file, or from standard input for `-`.

    Raises:
        InvalidError: it cannot be read, or is neither.
    """
    name, text = read_text(path)
    suffix = ".json" if text.lstrip()[:1] == "{" and path == "-" else None
    return read_document(text, name, suffix=suffix).content


def read_text(path: str) -> tuple[str, str]:
    """Read a text from a file, or from standard input for `-`; return what to call it, and the text.

    Raises:
        InvalidError: it cannot be read, or is too long.
    """
    try:
        if path == "-":
            name, text = "standard input", sys.stdin.read(_MOST_BYTES + 1)
        else:
            name = path
            with Path(path).open(encoding="utf-8") as file:
                text = file.read(_MOST_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InvalidError(f"{path} cannot be read: {said}", hint="Check the path.") from None
    if len(text) > _MOST_BYTES:
        raise InvalidError(f"{name} has more than {_MOST_BYTES} bytes")
    return name, text


def instances_of(content: Any, where: str) -> dict[str, Options]:
    """The instances of an exported document, by name: one with `instances:`, by name or as a list as `list --json`
    prints it, a bare list of them, or one instance with `name` and `options`.

    Raises:
        InvalidError: it is none of them.
    """
    if isinstance(content, Mapping) and "stack" in content:
        raise InvalidError(f"{where} is a manifest", hint=f"garrison apply -f {where}")
    if isinstance(content, Mapping) and isinstance(named := content.get(_INSTANCES), Mapping):
        return {str(name): _mapping(options, f"{where}: {name}") for name, options in named.items()}
    if isinstance(content, Mapping) and isinstance(content.get(_INSTANCES), list):
        content = content[_INSTANCES]
    listed = content if isinstance(content, list) else [content]
    if not all(isinstance(one, Mapping) and isinstance(one.get("name"), str) and "options" in one for one in listed):
        raise InvalidError(f"{where} holds no instances", hint=_HINT)
    return {one["name"]: _mapping(one["options"], f"{where}: {one['name']}") for one in listed}


def options_in(content: Any, where: str) -> Options:
    """The options of one instance: a bare mapping with `backend_type`, or a document that holds one instance.

    Raises:
        InvalidError: it is something else.
        UsageError: it holds several instances.
    """
    if isinstance(content, Mapping) and "backend_type" in content:
        return dict(content)
    found = instances_of(content, where)
    if len(found) != 1:
        raise UsageError(f"{where} holds {len(found)} instances", hint="`garrison instance import` creates them all.")
    return next(iter(found.values()))


def _mapping(options: Any, where: str) -> Options:
    if not isinstance(options, Mapping):
        raise InvalidError(f"{where} is no mapping of options", hint=_HINT)
    return {str(name): value for name, value in options.items()}
