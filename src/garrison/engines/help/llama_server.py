"""Parse the help table of llama-server: spellings in columns 0 to 39, help from column 40, groups as headings."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from garrison.engines.catalogue import Option
from garrison.engines.help.text import kind_of

__all__ = ["parse_llama_server"]

_COLUMN = 40
_HEADING = re.compile(r"----- (.*?)(?: params)? -----\Z")
_SPELLING = re.compile(r"(-{1,2}[A-Za-z][\w.-]*)(?:,\s*|\s+|\Z)")
_ENV = re.compile(r"\s*\(env: (\w+)\)")
_DEFAULT = re.compile(r"\(default: ((?:[^()]|\([^()]*\))*?)(?:, [^()]*|; [^()]*)?\)")
_ALLOWED = re.compile(r"allowed values: ([\w, ]+?)(?= \(|\Z)")
_INTEGER_METAVARS = {"N", "INDEX", "SECONDS"}


def parse_llama_server(text: str) -> list[Option]:
    """All options, in the order of the help."""
    return [_option(*entry) for entry in _entries(text.splitlines()) if "--help" not in entry[1]]


def _entries(lines: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """(group, left column, help) of each option. Three spaces before column 40 mean that help follows on the line."""
    group, left, help_lines = "", "", list[str]()
    for line in lines:
        heading = _HEADING.match(line)
        if left and (heading or line.startswith("-")):
            yield group, left, " ".join(part for part in help_lines if part)
            left = ""
        if heading:
            group = heading[1]
        elif line.startswith("-"):
            beside = line[_COLUMN - 3 : _COLUMN] == "   " and len(line) > _COLUMN
            left, help_lines = (line[:_COLUMN].rstrip(), [line[_COLUMN:].strip()]) if beside else (line.rstrip(), [])
        elif left:
            help_lines.append(line.strip())
    if left:
        yield group, left, " ".join(part for part in help_lines if part)


def _option(group: str, left: str, help: str) -> Option:
    names, metavar = _names(left)
    positive, negations = _split_negations(names)
    flag = next((name for name in positive if name.startswith("--")), positive[0])
    env = _ENV.search(help)
    said = _ENV.sub("", help).strip()
    found = _DEFAULT.search(said)
    default = found[1].strip("'\"") if found else None
    choices = _choices(metavar, said)
    nargs = str(len(metavar.split())) if re.fullmatch(r"[A-Z]+( [A-Z]+)*", metavar) else "1" if metavar else "0"
    option = Option(
        flag=flag,
        aliases=tuple(name for name in positive if name != flag),
        negations=negations,
        type=kind_of(nargs, choices, default, said),
        nargs=nargs,
        choices=choices,
        default=default,
        group=group,
        help=said,
        metavar=metavar or None,
        env=env[1] if env else None,
        removed=said.startswith("the argument has been removed"),
    )
    if option.type != "text":
        return option
    if metavar == "JSON":
        return replace(option, type="json")
    # Some accept `auto` or `all` as well as numbers, so the type is a hint for forms; nothing is rejected by it.
    return replace(option, type="integer") if metavar in _INTEGER_METAVARS and default != "auto" else option


def _names(left: str) -> tuple[list[str], str]:
    names: list[str] = []
    position = 0
    while match := _SPELLING.match(left, position):
        names.append(match[1])
        position = match.end()
    return names, left[position:].strip()


def _split_negations(names: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Split spellings into those that turn the option on and off. The table lists the former first, each from short to
    long: `-kvo, --kv-offload, -nkvo, --no-kv-offload`. A lone `--no-host` is no negation."""
    first_long = next((place for place, name in enumerate(names) if name.startswith("--")), len(names))
    said_yes = any(name.startswith("--") and not name.startswith("--no-") for name in names)
    if not said_yes or not any(name.startswith("--no-") for name in names):
        return list(names), ()
    negations = tuple(
        name
        for place, name in enumerate(names)
        if name.startswith("--no-") or (place > first_long and not name.startswith("--"))
    )
    return [name for name in names if name not in negations], negations


def _choices(metavar: str, help: str) -> tuple[str, ...]:
    if found := re.fullmatch(r"\{([^{}]+)\}", metavar):
        return tuple(found[1].split(","))
    if found := re.fullmatch(r"[\[<]([\w-]+(?:\|[\w-]+)+)[\]>]", metavar):
        return tuple(found[1].split("|"))
    if found := _ALLOWED.search(help):
        return tuple(value.strip() for value in found[1].split(","))
    return ()
