"""Parse the help of Python's argparse, which vLLM and MLX LM use. Lines must not be wrapped: see `describe`."""

import re
from collections.abc import Iterator, Sequence

from garrison.engines.catalogue import Option
from garrison.engines.help.text import default_of, kind_of

__all__ = ["parse_argparse"]

_SECTION = re.compile(r"(\S.*):\Z")
_ENTRY = re.compile(r"  (-.*?)(?:\s{2,}(\S.*))?\Z")
_SPELLING = re.compile(r"(-{1,2}[A-Za-z0-9][\w.-]*)(?: (.+))?\Z")
_CHOICES = re.compile(r"\[?\{([^{}]*)\}\]?( \[\{[^{}]*\} \.\.\.\])?\Z")
"""Nothing may follow: in `{a,b} or name registered in …` the braces are examples."""
_REPEATABLE = re.compile(r"multiple\s+--")
_REMOVED_FROM_FORMS = {"-h", "--help"}


def parse_argparse(text: str) -> list[Option]:
    """All options, in the order of the help."""
    return [option for entry in _entries(text.splitlines()) if (option := _option(*entry)) is not None]


def _entries(lines: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """(group, invocation, help) of each option."""
    group, invocation, help_lines = "", "", list[str]()
    for line in lines:
        entry = _ENTRY.match(line) if line.startswith("  -") else None
        section = _SECTION.match(line)
        if invocation and (entry or section):
            yield group, invocation, "\n".join(help_lines).strip()
            invocation = ""
        if section:
            group = section[1]
        elif entry and _spellings(entry[1]):
            invocation, help_lines = entry[1], [entry[2]] if entry[2] else []
        elif invocation:
            help_lines.append(line.strip())
    if invocation:
        yield group, invocation, "\n".join(help_lines).strip()


def _option(group: str, invocation: str, help: str) -> Option | None:
    spellings = _spellings(invocation)
    names = [name for name, _ in spellings]
    if set(names) & _REMOVED_FROM_FORMS:
        return None
    metavar = next((values for _, values in spellings if values), "")
    negations = tuple(name for name in names if name.startswith("--no-") and "--" + name[5:] in names)
    positive = [name for name in names if name not in negations]
    flag = next((name for name in positive if name.startswith("--")), positive[0])
    found = _CHOICES.match(metavar)
    choices = tuple(choice for choice in found[1].split(",") if choice != "None") if found else ()
    nargs = _nargs(metavar)
    default, said = default_of(help)
    repeatable = _REPEATABLE.search(said) is not None
    return Option(
        flag=flag,
        aliases=tuple(name for name in positive if name != flag),
        negations=negations,
        type=_type(nargs, choices, default, said, repeatable=repeatable),
        nargs=nargs,
        choices=choices,
        default=default,
        group="" if group == "options" else group,
        help=said,
        metavar=None if found or not metavar else metavar,
        repeatable=repeatable,
    )


def _type(nargs: str, choices: tuple[str, ...], default: str | None, help: str, *, repeatable: bool) -> str:
    """As `kind_of`. The value of an option that takes one word for a whole list is JSON."""
    if nargs == "1" and not repeatable and default is not None and default.startswith("["):
        return "json"
    return kind_of(nargs, choices, default, help)


def _spellings(invocation: str) -> list[tuple[str, str]]:
    """`-q X, --quantization X` to pairs of a spelling and what follows it; empty if the line is prose."""
    parts = re.split(r", (?=-)", invocation)
    found = [_SPELLING.match(part) for part in parts]
    return [(match[1], match[2] or "") for match in found if match] if all(found) else []


def _nargs(metavar: str) -> str:
    if not metavar:
        return "0"
    if metavar.endswith("...]"):
        return "+"
    return "?" if re.fullmatch(r"\[[A-Z_]+\]", metavar) else "1"
