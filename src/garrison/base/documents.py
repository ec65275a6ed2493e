"""Reads YAML, JSON and TOML with positions, so that an error can name file, line and column."""

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from garrison.base.errors import InvalidError
from garrison.base.positions.hints import JSON_HINT, TOML_HINT, yaml_hint
from garrison.base.positions.in_json import LazyPositions, json_positions, repeated_key
from garrison.base.positions.in_toml import toml_positions

if TYPE_CHECKING:
    import yaml

__all__ = ["Document", "Path", "inside", "read_document"]

Path = tuple[str | int, ...]
"""The location of a value in a document: keys and indexes from the root."""

_MOST_VALUES = 300_000
_OPTIONS = "options"
_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z")
"""Such as `1e6`: a number in JSON and in YAML 1.2, and a text in YAML 1.1."""
_TOML_PLACE = re.compile(r" \(at line (\d+), column (\d+)\)")


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file. All its keys are text.

    Attributes:
        positions: (line, column) from 1; in TOML, only of tables and keys that begin a line.
        scalars: by path, how the numbers, dates, booleans and nulls of YAML are written there.
        keys: by path, what YAML reads a key as that is not text to it: the key `off`, as false.
    """

    name: str
    content: Any
    positions: Mapping[Path, tuple[int, int]] = field(default_factory=dict)
    scalars: Mapping[Path, str] = field(default_factory=dict)
    keys: Mapping[Path, Any] = field(default_factory=dict)

    def where(self, path: Path) -> str:
        """Return `file:line:column` of the value at `path`, or of its nearest ancestor with a position."""
        for length in range(len(path), -1, -1):
            if position := self.positions.get(path[:length]):
                return f"{self.name}:{position[0]}:{position[1]}"
        return self.name


def read_document(text: str, name: str, *, suffix: str | None = None) -> Document:
    """Parse `text` by `suffix`, or by the suffix of `name`: `.toml`, `.json`, and YAML for anything else.

    Raises:
        InvalidError: the text does not parse, repeats a key, is nested too deeply or expands to too many values.
    """
    try:
        kind = suffix or name
        if kind.endswith(".toml"):
            content = _toml(text, name)
            return Document(name, content, toml_positions(text, content))
        return _json(text, name) if kind.endswith(".json") else _yaml(text, name)
    except RecursionError:
        raise InvalidError(
            f"{name} is nested too deeply, or contains itself", hint="Check its aliases (`*name`) and its brackets."
        ) from None


def inside(content: Any, loc: Path) -> tuple[Path, Any, Path]:
    """Split the location that a validator reports into the part that exists in the file and the rest.

    Returns the existing path, the value there, and the remaining parts, which name the alternatives of a union that
    were tried.
    """
    path: Path = ()
    tried: Path = ()
    for part in loc:
        if isinstance(content, list):
            found = isinstance(part, int) and part < len(content)
        else:
            found = isinstance(content, dict) and part in content
        if found:
            content = content[part]
            path = (*path, part)
        else:
            tried = (*tried, part)
    return path, content, tried


def _toml(text: str, name: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and int() for a number that is too long
        said = str(error)
        match = _TOML_PLACE.search(said)
        where = f"{name}:{match[1]}:{match[2]}" if match else name
        said = _TOML_PLACE.sub("", said)
        raise InvalidError(f"{where}: not valid TOML: {said[:1].lower()}{said[1:]}", hint=TOML_HINT) from None


def _json(text: str, name: str) -> Document:
    """Parse JSON. Positions are found by a second pass, when an error needs them.

    The YAML parser is not used: it is slow, and reads some JSON differently (`1e5` is text there, and a surrogate pair
    is two characters).
    """
    twice = False

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        found = dict(pairs)
        twice = twice or len(found) < len(pairs)
        return found

    try:
        content = json.loads(text, object_pairs_hook=mapping)
    except ValueError as error:
        where, said = name, str(error)  # int() for a number that is too long
        if isinstance(error, json.JSONDecodeError):
            where, said = f"{name}:{error.lineno}:{error.colno}", f"{error.msg[:1].lower()}{error.msg[1:]}"
        raise InvalidError(f"{where}: not valid JSON: {said}", hint=JSON_HINT) from None
    if twice and (found := repeated_key(text)) is not None:
        key, (line, column) = found
        raise InvalidError(f"{name}:{line}:{column}: duplicate key {key!r}", hint="Remove one of the two.")
    return Document(name, content, LazyPositions(lambda: json_positions(text)))


def _yaml(text: str, name: str) -> Document:
    import yaml

    node = None
    walk = _Walk(name)
    try:
        node = _compose(text)
        if node is not None:
            walk.value(node, ())
        content = None if node is None else yaml.constructor.SafeConstructor().construct_document(node)
    except yaml.MarkedYAMLError as error:
        said = (error.problem or "not valid YAML").removeprefix("but ")
        if error.context and error.context_mark:
            said += f" ({error.context} that begins at line {error.context_mark.line + 1})"
        hint = yaml_hint(f"{error.problem} {error.context}")
        raise InvalidError(f"{_at(name, error.problem_mark)}: {said}", hint=hint) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = f"{before.count(chr(10)) + 1}:{error.position - before.rfind(chr(10))}"
        said = f"the character U+{error.character:04X} is not allowed in YAML"
        raise InvalidError(f"{name}:{place}: {said}", hint=yaml_hint(said)) from None
    except yaml.YAMLError as error:
        raise InvalidError(f"{name} is not valid YAML: {error}", hint=yaml_hint(str(error))) from None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        # PyYAML's constructors do not wrap these: `2026-13-45`, `!!bool maybe`, `!!timestamp soon`.
        said = f": {error}" if isinstance(error, ValueError) else ""
        where = _at(name, _unreadable(node))
        raise InvalidError(f"{where}: the value does not match its type{said}", hint="Quote the value.") from None
    return Document(name, content, walk.positions, walk.scalars, walk.keys)


def _at(name: str, mark: "yaml.Mark | None") -> str:
    return f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name


def _unreadable(node: "yaml.Node | None") -> "yaml.Mark | None":
    """Return the position of the first value below `node` that cannot be read as what it looks like."""
    import yaml

    if isinstance(node, yaml.ScalarNode):
        try:
            yaml.constructor.SafeConstructor().construct_document(node)
        except (ValueError, KeyError, AttributeError, TypeError):
            return node.start_mark
        return None
    if node is None:
        return None
    parts = [one for pair in node.value for one in pair] if isinstance(node, yaml.MappingNode) else node.value
    return next((mark for part in parts if (mark := _unreadable(part)) is not None), None)


def _compose(text: str) -> "yaml.Node | None":
    import yaml

    loader = yaml.SafeLoader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


@dataclass(slots=True)
class _Walk:
    """Collects what a document says of the nodes of a YAML file, and makes text of its keys."""

    name: str
    positions: dict[Path, tuple[int, int]] = field(default_factory=dict)
    scalars: dict[Path, str] = field(default_factory=dict)
    keys: dict[Path, Any] = field(default_factory=dict)

    def value(self, node: "yaml.Node", path: Path) -> None:
        import yaml

        # An alias is walked at every use, so a small file can expand to millions of values.
        if len(self.positions) > _MOST_VALUES:
            raise InvalidError(f"{self.name} expands to more than {_MOST_VALUES} values", hint="Use fewer aliases.")
        self.positions.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if _is_json_of_an_option(path) and _is_exponent(node):
            node.tag = "tag:yaml.org,2002:float"
        if isinstance(node, yaml.MappingNode):
            self.mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self.value(value, (*path, index))
        elif isinstance(node, yaml.ScalarNode) and node.style is None and node.tag != _TEXT and node.value:
            self.scalars[path] = node.value

    def mapping(self, node: "yaml.MappingNode", path: Path) -> None:
        import yaml

        seen: set[str] = set()
        for index, (key, value) in enumerate(node.value):
            place = (key.start_mark.line + 1, key.start_mark.column + 1)
            at = f"{self.name}:{place[0]}:{place[1]}"
            if not isinstance(key, yaml.ScalarNode):
                raise InvalidError(f"{at}: a key must be plain text", hint="Write `key: value`.")
            if key.value in seen:
                raise InvalidError(f"{at}: duplicate key {key.value!r}", hint="Remove one of the two.")
            seen.add(key.value)
            self.positions[(*path, key.value)] = place
            if key.tag not in (_TEXT, _MERGE):
                node.value[index] = (self.text(key, (*path, key.value)), value)
            self.value(value, (*path, key.value))

    def text(self, key: "yaml.ScalarNode", path: Path) -> "yaml.Node":
        """Return a key as text. An alias may stand for it elsewhere, so the node itself remains what it is."""
        import yaml

        with contextlib.suppress(ValueError, KeyError, AttributeError, TypeError, yaml.YAMLError):
            self.keys[path] = yaml.constructor.SafeConstructor().construct_document(key)
        return yaml.ScalarNode(_TEXT, key.value, key.start_mark, key.end_mark, style=key.style)


def _is_json_of_an_option(path: Path) -> bool:
    """Whether the value becomes JSON for an engine: inside an option, or a key of one, `hf-overrides.rope_theta`.

    Elsewhere `1e6` may be a name or a revision.
    """
    return _OPTIONS in path[:-2] or (path[-2:-1] == (_OPTIONS,) and "." in str(path[-1]))


def _is_exponent(node: "yaml.Node") -> bool:
    import yaml

    return isinstance(node, yaml.ScalarNode) and node.style is None and _EXPONENT.match(node.value) is not None
