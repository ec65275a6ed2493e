"""YAML, JSON and TOML read with positions, so that an error can say file, line and column."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from garrison.base.errors import InvalidError

__all__ = ["Document", "Path", "read_document"]

Path = tuple[str | int, ...]
"""Where a value is in a document: keys and indexes from the top."""


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file. `positions` are (line, column), from 1; TOML has none."""

    name: str
    content: Any
    positions: Mapping[Path, tuple[int, int]] = field(default_factory=dict)

    def where(self, path: Path) -> str:
        """`file:line:column` of the value at `path`, or of the nearest parent that has a position."""
        for length in range(len(path), -1, -1):
            if position := self.positions.get(path[:length]):
                return f"{self.name}:{position[0]}:{position[1]}"
        return self.name


def read_document(text: str, name: str) -> Document:
    """Parse `text` by the suffix of `name`: `.toml`, `.json`, and YAML for all else.

    Raises:
        InvalidError: it does not parse, or a key is given twice.
    """
    if name.endswith(".toml"):
        return Document(name, _toml(text, name))
    if name.endswith(".json"):
        # YAML takes nearly all JSON, but not tabs: the strict parser speaks first.
        try:
            json.loads(text)
        except ValueError as error:
            raise InvalidError(f"{name} is not valid JSON: {error}", hint="Mend the file.") from None
        text = text.replace("\t", " ")
    return _yaml(text, name)


def _toml(text: str, name: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidError(f"{name} is not valid TOML: {error}", hint="Mend the file.") from None


def _yaml(text: str, name: str) -> Document:
    import yaml

    positions: dict[Path, tuple[int, int]] = {}

    def walk(node: yaml.Node | None, path: Path) -> None:
        if node is None:
            return
        positions.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                at = f"{name}:{key.start_mark.line + 1}:{key.start_mark.column + 1}"
                if not isinstance(key, yaml.ScalarNode):
                    raise InvalidError(f"{at}: a key must be a plain word", hint="Mend the file.")
                if key.value in seen:
                    raise InvalidError(f"{at}: {key.value!r} is given twice", hint="Remove one of the two.")
                seen.add(key.value)
                positions[(*path, key.value)] = (key.start_mark.line + 1, key.start_mark.column + 1)
                walk(value, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                walk(value, (*path, index))

    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            walk(node, ())
            content = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise InvalidError(f"{at}: {error.problem or 'not valid YAML'}", hint="Mend the file.") from None
    except yaml.YAMLError as error:
        raise InvalidError(f"{name} is not valid YAML: {error}", hint="Mend the file.") from None
    return Document(name, content, positions)
