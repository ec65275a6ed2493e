"""The options of an engine, from its own `--help`, and a check of arguments against them."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from garrison.base.errors import InvalidError
from garrison.engines.argv import flag_of, is_flag, normal, spelled_out
from garrison.engines.environments import version_key

__all__ = [
    "Catalogue",
    "Finding",
    "Option",
    "check_args",
    "from_json",
    "load",
    "nearest_flag",
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

    def by_spelling(self) -> Mapping[str, Option]:
        return {spelling: option for option in self.options for spelling in option.spellings}


@dataclass(frozen=True, slots=True)
class Finding:
    """A remark on an argument. `level` is `warning` or `error`: an error is known to be rejected by the engine, which
    still decides."""

    level: str
    flag: str
    message: str
    suggestion: str | None = None


def check_args(catalogue: Catalogue, args: Sequence[str]) -> list[Finding]:
    """Check arguments as the engine's parser will. `args` are not changed."""
    if not catalogue.options:
        return []
    known = catalogue.by_spelling()
    # llama-server reads the next word as a value whatever it looks like; the other parsers do not.
    greedy = catalogue.engine == "llama_cpp"
    pairs = _split(args, known, greedy=greedy)
    return [finding for flag, values in pairs for finding in _check(catalogue, known, flag, values)]


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
            most = 0 if "=" in word else 1 if option is None else _most_values(option)
            while end < len(args) and end - position <= most and not is_flag(args[end]):
                end += 1
        else:
            kept.append(word)
        position = end
    return tuple(kept), tuple(found)


def nearest_flag(catalogue: Catalogue, flag: str) -> str | None:
    """The known spelling closest to `flag`; None if none is close. What means the opposite is not close."""
    wanted = flag_of(flag).partition(".")[0]
    known = catalogue.by_spelling()
    opposite = _opposite(wanted)
    if opposite in known:
        return next(iter(known[opposite].negations), None)
    spellings = [spelling for spelling in known if spelling.startswith("--") == flag.startswith("--")]
    return _nearest(wanted, spellings, cutoff=0.75)


def shipped(engine: str) -> list[str]:
    """Versions with a shipped catalogue, oldest first."""
    found = _DIRECTORY.glob(f"{engine}-*.json")
    return sorted((path.name.removeprefix(f"{engine}-").removesuffix(".json") for path in found), key=version_key)


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


def _split(args: Sequence[str], known: Mapping[str, Option], *, greedy: bool) -> Iterator[tuple[str, list[str]]]:
    """Each flag as written, with its values."""
    position = 0
    while position < len(args):
        token = args[position]
        position += 1
        if not is_flag(token):
            continue
        if "=" in token:
            flag, value = token.split("=", 1)
            yield flag, [value]
            continue
        option = known.get(flag_of(token))
        limit = _most_values(option) if option is not None else 1
        values: list[str] = []
        take_all = greedy and option is not None
        while position < len(args) and len(values) < limit and (take_all or not is_flag(args[position])):
            values.append(args[position])
            position += 1
        yield token, values


def _most_values(option: Option) -> int:
    if option.nargs == "+":
        return 1 << 30
    return 1 if option.nargs == "?" else int(option.nargs)


def _check(catalogue: Catalogue, known: Mapping[str, Option], flag: str, values: Sequence[str]) -> Iterator[Finding]:
    spelling = normal(flag)
    option = known.get(spelling)
    if option is None and "." in spelling:
        option = known.get(spelling.partition(".")[0])
        if option is not None and option.type == "json":
            return  # `--compilation-config.mode 3`: a key of a JSON option, which only the engine can judge
        option = None
    if option is None:
        if catalogue.engine == "vllm" and spelling.startswith("-O"):
            return  # -O, -O2, -O=2: valid, though the help does not list it
        near = nearest_flag(catalogue, flag)
        hint = f"did you mean {near}?" if near else "it is passed on unchanged"
        message = f"{catalogue.engine} {catalogue.version} does not list {flag}; {hint}"
        yield Finding("warning", flag, message, near)
        return
    if option.removed:
        yield Finding("error", flag, f"{flag} has been removed: {option.help}")
        return
    if len(values) < _fewest_values(option):
        yield Finding("error", flag, f"{flag} needs a value")
    if option.nargs == "0" and values:
        yield Finding("error", flag, f"{flag} accepts no value", option.negations[0] if option.negations else None)
    for value in values if option.choices else ():
        if value not in option.choices:
            listed = ", ".join(option.choices)
            message = f"{flag} accepts {listed}, not {value!r}"
            yield Finding("error", flag, message, _nearest(value, option.choices, cutoff=0.6))


def _fewest_values(option: Option) -> int:
    if option.nargs == "?":
        return 0
    return 1 if option.nargs == "+" else int(option.nargs)


def _opposite(flag: str) -> str:
    """`--enable-x` for `--disable-x`, and the reverse; empty for others."""
    for one, other in (("--disable-", "--enable-"), ("--enable-", "--disable-")):
        if flag.startswith(one):
            return other + flag.removeprefix(one)
    return ""


def _nearest(wanted: str, known: Iterable[str], *, cutoff: float) -> str | None:
    import difflib  # lazily: only needed after a typo

    close = difflib.get_close_matches(wanted, list(known), 1, cutoff)
    return close[0] if close else None
