"""What is wrong with an engine's arguments, by its catalogue: unknown flags, values that are missing, wrong or too
many, and flags that a page or an editor has spoiled. Pure; the arguments are never changed, and no secret is shown."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from garrison.base.redaction import shown_command
from garrison.engines.argv import flag_of, is_flag, normal
from garrison.engines.catalogue import Catalogue, Option, most_values
from garrison.engines.nearest import nearest_flag, nearest_of, opposite_of
from garrison.engines.pasted_words import flag_and_value, plain_dashes, quoted
from garrison.engines.value_types import unreadable

__all__ = ["Finding", "check_args"]

_FOLDED = ("--moe-backend", "--linear-backend", "--sparse-indexer-topk-backend")
"""Options of vLLM whose value may be written in capitals, and with dashes."""
_TRUE = ("true", "1", "yes", "on")
_FALSE = ("false", "0", "no", "off")


@dataclass(frozen=True, slots=True)
class Finding:
    """A remark on an argument. `level` is `warning` or `error`: an error is known to be rejected by the engine, which
    still decides."""

    level: str
    flag: str
    message: str
    suggestion: str | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """A flag as written with its values, or a word that belongs to no flag.

    Attributes:
        attached: the value follows a `=` in the flag's own word.
        behind: the switch that a word stands right behind.
    """

    flag: str | None
    values: tuple[str, ...] = ()
    attached: bool = False
    behind: str | None = None


def check_args(catalogue: Catalogue, args: Sequence[str], *, strays: bool = True) -> list[Finding]:
    """Check arguments as the engine's parser will.

    Args:
        strays: report words that belong to no option; the engine has its model already.
    """
    if not catalogue.options:
        return []
    known = catalogue.by_spelling()
    found: list[Finding] = []
    for part in _parts(args, catalogue):
        if part.flag is not None:
            found += _of_flag(catalogue, known, part, part.flag)
        elif strays:
            found.append(_of_stray(catalogue, part))
        found += _of_pasted_values(known, part)
    return found


def _parts(args: Sequence[str], catalogue: Catalogue) -> Iterator[_Part]:
    known = catalogue.by_spelling()
    # A known flag of llama-server takes the next word as its value whatever it looks like.
    greedy = catalogue.engine == "llama_cpp"
    position = 0
    switch: str | None = None
    while position < len(args):
        word = args[position]
        position += 1
        plain = plain_dashes(word, known)
        if not is_flag(word) and (plain is None or flag_of(plain) not in known):
            yield _Part(None, (word,), behind=switch)
            if word == "--":
                return
            switch = None
            continue
        if "=" in word:
            flag, value = word.split("=", 1)
            yield _Part(flag, (value,), attached=True)
            switch = None
            continue
        option = known.get(catalogue.spelled_out(plain or word))
        # How many values a flag has that is not listed nobody knows.
        limit = most_values(option) if option is not None else len(args)
        end = position
        while end < len(args) and end - position < limit and args[end] != "--":
            if is_flag(args[end]) and not (greedy and option is not None):
                break
            end += 1
        yield _Part(word, tuple(args[position:end]))
        switch = word if option is not None and option.nargs == "0" else None
        position = end


def _of_flag(catalogue: Catalogue, known: Mapping[str, Option], part: _Part, flag: str) -> Iterator[Finding]:
    spelling = catalogue.spelled_out(flag)
    option = known.get(spelling)
    if option is None:
        yield from _of_unknown(catalogue, known, part, flag)
        return
    if option.removed:
        yield Finding("error", flag, f"{flag} has been removed: {option.help}")
        return
    if part.attached and catalogue.engine == "llama_cpp":
        words = shown_command((flag, *part.values))
        yield Finding("error", flag, f"llama-server takes no value behind `=`; write two words: {words}", words)
    elif part.attached and catalogue.engine == "vllm" and option.flag == "--config":
        words = shown_command((flag, *part.values))
        yield Finding("warning", flag, f"vLLM reads no file for `{flag}=`; write two words: {words}", words)
    if len(part.values) < _fewest_values(option):
        yield Finding("error", flag, f"{flag} needs a value")
    if option.nargs == "0" and part.values:
        yield _of_switch(flag, spelling, part.values[0], option)
    for value in part.values if option.choices else ():
        if not _is_choice(catalogue, option, value):
            listed = ", ".join(option.choices)
            message = f"{flag} accepts {listed}, not {value!r}"
            yield Finding("error", flag, message, nearest_of(value, option.choices, cutoff=0.6))
    judged = option.nargs == "0" or option.choices or any(_is_pasted(known, value) for value in part.values)
    for value in () if judged else part.values:
        if (wrong := unreadable(catalogue, option, value)) is not None:
            yield Finding(wrong[0], flag, f"{flag} {wrong[1]}")
            return


def _of_unknown(catalogue: Catalogue, known: Mapping[str, Option], part: _Part, flag: str) -> Iterator[Finding]:
    spelling = normal(flag)
    parent = known.get(spelling.partition(".")[0]) if "." in spelling else None
    if parent is not None and parent.type == "json":
        # `--compilation-config.mode 3`: a key of a JSON option, which only the engine can judge
        if not part.values:
            yield Finding("error", flag, f"{flag} needs a value; for a switch write {flag} true", f"{flag} true")
        return
    if catalogue.engine == "vllm" and spelling.startswith("-O"):
        return  # -O, -O2, -O=2: valid, though the help does not list it
    if (plain := plain_dashes(flag, known)) is not None:
        yield _long_dash(flag, plain)
        return
    near, opposite = nearest_flag(catalogue, flag), opposite_of(catalogue, flag)
    hint = f"did you mean {near}?" if near else "it is passed on unchanged"
    if opposite is not None and near is None:
        hint = f"{opposite} is what it has: leave both out for the opposite of that"
    message = f"{catalogue.engine} {catalogue.version} does not list {flag}; {hint}"
    yield Finding("warning", flag, message, near)


def _is_choice(catalogue: Catalogue, option: Option, value: str) -> bool:
    if catalogue.engine == "vllm" and option.flag in _FOLDED:
        value = value.lower().replace("-", "_")
    # vLLM reads these two for "not set" where an option has no default.
    unset = catalogue.engine == "vllm" and option.default is None and value in ("", "None")
    return unset or value in option.choices


def _of_switch(flag: str, spelling: str, value: str, option: Option) -> Finding:
    """The value of a switch, of which only the meaning is clear."""
    meaning = value.strip().lower()
    if meaning in _TRUE:
        return Finding("error", flag, f"{flag} accepts no value; write {flag} alone", flag)
    if meaning in _FALSE:
        other = option.flag if spelling in option.negations else next(iter(option.negations), None)
        instead = f"write {other} instead" if other else "leave it out"
        return Finding("error", flag, f"{flag} accepts no value; {instead}", other)
    return Finding("error", flag, f"{flag} accepts no value, and {value!r} follows it")


def _of_stray(catalogue: Catalogue, part: _Part) -> Finding:
    known = catalogue.by_spelling()
    word = part.values[0]
    if word == "--":
        return Finding("error", word, "`--` ends the options: no word behind it is one")
    if (pair := flag_and_value(plain_dashes(word, known) or word, known)) is not None:
        option = known[normal(pair[0])]
        if option.nargs == "0":
            return _of_switch(pair[0], normal(pair[0]), pair[1], option)
        words = shown_command(pair)
        return Finding("error", pair[0], f"{pair[0]} and its value are one word; write two: {words}", words)
    if (plain := plain_dashes(word, known)) is not None:
        return _long_dash(word, plain)
    if part.behind is not None:
        spelled = catalogue.spelled_out(part.behind)
        return _of_switch(part.behind, spelled, word, known[spelled])
    return Finding("error", word, f"{word!r} belongs to no option")


def _is_pasted(known: Mapping[str, Option], value: str) -> bool:
    """Whether `_of_pasted_values` has something to say."""
    return flag_and_value(value, known) is not None or plain_dashes(value, known) is not None or quoted(value)


def _of_pasted_values(known: Mapping[str, Option], part: _Part) -> Iterator[Finding]:
    """Values that were meant for flags, and quotation marks that no shell removes."""
    for value in part.values:
        if part.flag is not None and (pair := flag_and_value(value, known)) is not None:
            words = shown_command(pair)
            message = f"{part.flag} takes {pair[0]} and what follows it for its own value; write two words: {words}"
            yield Finding("warning", part.flag, message, words)
        elif part.flag is not None and (plain := plain_dashes(value, known)) is not None:
            yield _long_dash(value, plain)
        elif quoted(value):
            where = f"a value of {part.flag}" if part.flag is not None else "a word"
            message = f"{where} has typographic quotation marks, which no shell removes; write plain ones"
            yield Finding("warning", part.flag or "", message)


def _long_dash(word: str, plain: str) -> Finding:
    shown = shown_command((plain,))
    flag = word.partition("=")[0]
    return Finding("error", flag, f"{flag!r} has a long dash in place of a hyphen; write {shown}", shown)


def _fewest_values(option: Option) -> int:
    if option.nargs == "?":
        return 0
    return 1 if option.nargs == "+" else int(option.nargs)
