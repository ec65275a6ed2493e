"""The options of an engine, from its own `--help`. `findings` checks arguments against them."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from garrison.base.errors import InvalidError
from garrison.engines.argv import is_flag, spelled_out
from garrison.engines.environments import version_key

__all__ = [
    "Catalogue",
    "Option",
    "from_json",
    "load",
    "most_values",
    "shipped",
    "to_json",
    "without_flags",
]


_DIRECTORY = Path(__file__).with_name("catalogues")
"""Not importlib.resources, which takes longer to import than the rest of this room."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        flag: its usual spelling, `--max-model-len`.
        aliases: other spellings, including short ones.
        negations: spellings that turn it off, `--no-enable-lora`.
        type: `flag` has no value; `integer`, `number`, `text`, `json`, `path` and `choice` have values.
        nargs: the number of values: `0`, `1`, `?` (none or one), `+` (one or more), or another number.
        default: as the help prints it; None if it prints none.
        repeatable: a further occurrence adds a value instead of replacing it.
        removed: the engine recognises it only to reject it.
    """

    flag: str
    aliases: tuple[str, ...] = ()
    negations: tuple[str, ...] = ()
    type: str = "text"
    nargs: str = "1"
    choices: tuple[str, ...] = ()
    default: str | None = None
    group: str = ""
    help: str = ""
    metavar: str | None = None
    env: str | None = None
    repeatable: bool = False
    removed: bool = False

    @property
    def spellings(self) -> tuple[str, ...]:
        return (self.flag, *self.aliases, *self.negations)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The options of one version of one engine."""

    engine: str
    version: str
    options: tuple[Option, ...]
    _by_spelling: Mapping[str, Option] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        known = {spelling: option for option in self.options for spelling in option.spellings}
        object.__setattr__(self, "_by_spelling", known)

    def by_spelling(self) -> Mapping[str, Option]:
        return self._by_spelling

    def spelled_out(self, token: str) -> str:
        """The flag in a token in its normal spelling, and unabbreviated where the engine's parser is argparse, which
        takes `--max-model` for `--max-model-len`. llama-server takes no abbreviations."""
        return spelled_out(token, () if self.engine == "llama_cpp" else self._by_spelling)


def without_flags(
    catalogue: Catalogue, args: Sequence[str], flags: Collection[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Leave some options out of `args`, with their values.

    Args:
        flags: in their usual spelling; other spellings and abbreviations of them are found too.

    Returns:
        What is left, in its order, and the options that were left out, as they were written.
    """
    known = catalogue.by_spelling()
    wanted = set(flags) | {one for flag in flags if flag in known for one in known[flag].spellings}
    kept: list[str] = []
    found: list[str] = []
    position = 0
    while position < len(args):
        word = args[position]
        if word == "--":
            return (*kept, *args[position:]), tuple(found)
        end = position + 1
        if is_flag(word) and spelled_out(word, known) in wanted:
            found.append(word.split("=", 1)[0])
            option = known.get(spelled_out(word, known))
            most = 0 if "=" in word else 1 if option is None else most_values(option)
            while end < len(args) and end - position <= most and not is_flag(args[end]):
                end += 1
        else:
            kept.append(word)
        position = end
    return tuple(kept), tuple(found)


@cache
def shipped(engine: str) -> tuple[str, ...]:
    """Versions with a shipped catalogue, oldest first."""
    found = _DIRECTORY.glob(f"{engine}-*.json")
    return tuple(
        sorted((path.name.removeprefix(f"{engine}-").removesuffix(".json") for path in found), key=version_key)
    )


def load(engine: str, version: str | None = None) -> Catalogue:
    """Load the catalogue of that version, else of the newest older one, else of the oldest; the newest if None.

    Raises:
        InvalidError: none is shipped for the engine.
    """
    versions = shipped(engine)
    if not versions:
        raise InvalidError(f"no option catalogue is shipped for {engine}", hint=f"`garrison engine describe {engine}`")
    return _load(engine, _nearest_version(versions, version))


def to_json(catalogue: Catalogue) -> dict[str, Any]:
    """The format of the shipped files: fields equal to their default are left out."""
    empty = Option("")
    names = [name for name in Option.__slots__ if name != "flag"]
    options = [
        {"flag": option.flag}
        | {name: getattr(option, name) for name in names if getattr(option, name) != getattr(empty, name)}
        for option in catalogue.options
    ]
    return {"schema": 1, "engine": catalogue.engine, "version": catalogue.version, "options": options}


def from_json(content: Mapping[str, Any]) -> Catalogue:
    options = tuple(_option(item) for item in content["options"])
    return Catalogue(content["engine"], content["version"], options)


def _option(item: Mapping[str, Any]) -> Option:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in item.items()}
    return Option(**values)


@cache
def _load(engine: str, version: str) -> Catalogue:
    return from_json(json.loads((_DIRECTORY / f"{engine}-{version}.json").read_text(encoding="utf-8")))


def _nearest_version(versions: Sequence[str], wanted: str | None) -> str:
    if wanted is None or not version_key(wanted):
        return versions[-1]
    older = [version for version in versions if version_key(version) <= version_key(wanted)]
    return older[-1] if older else versions[0]


def most_values(option: Option) -> int:
    """How many words after the option can be its values."""
    if option.nargs == "+":
        return 1 << 30
    return 1 if option.nargs == "?" else int(option.nargs)
