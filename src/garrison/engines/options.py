"""An engine's options as JSON, and the arguments that they stand for. Each is the inverse of the other.

`{"tensor_parallel_size": 2, "enforce_eager": true, "extra_args": {"--new-flag": "1"}}`

A key is an option's long name with underscores or dashes. What the catalogue does not know is kept in `extra_args`,
whose keys are names as above, or flags exactly as the engine spells them. `model` is not an argument here: each engine
has its own place for it.

| value | argument |
|---|---|
| `true` | `--x` |
| `false` | `--no-x` where the engine has that, else nothing: an option that is not given is off |
| `null` | nothing |
| text, number | `--x VALUE`; zero and the empty text count |
| object | `--x JSON` |
| list | `--x JSON` where the option is JSON, `--x A B` where it takes several values, else `--x A --x B` |
| list of lists | one occurrence for each |

A dotted name, `compilation_config.mode`, is a key of an option that is JSON; what follows the first dot keeps its
spelling. Its value is always written, null too: `--compilation-config.cudagraph_mm_encoder true`.

vLLM's options that the catalogue does not know are taken for new ones of its usual forms: `--x`, `--no-x`, `--x A B`. A
list in `extra_args` is a repeated flag, which is how a pasted command line gets there.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from garrison.base.errors import InvalidError
from garrison.engines.argv import normal
from garrison.engines.catalogue import Catalogue, Option
from garrison.engines.parse.command import ParsedCommand
from garrison.engines.value_types import takes_whole_number

__all__ = ["EXTRA", "normal_keys", "to_args", "to_options"]

EXTRA = "extra_args"
_MODEL = "model"
_NEGATIVE = re.compile(r"-\d+\Z")
"""What every parser takes for a negative number. `-1e5` is a flag to argparse, and `-0.5` a dotted key to vLLM."""
_EXPONENT = re.compile(r"\d{1,9}(?:\.\d{1,9})?[eE]\+?\d{1,2}")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)\Z")


def normal_keys(options: Mapping[str, Any]) -> dict[str, Any]:
    """Spell the names with underscores, as llamactl does.

    Raises:
        InvalidError: two spellings of one name, or a value that is no JSON.
    """
    found: dict[str, Any] = {}
    for key, value in options.items():
        name = _key(key)
        if name in found:
            raise InvalidError(f"the option {name} is given twice", hint="Leave one out.", details={"option": name})
        if name == EXTRA and value is not None and not isinstance(value, Mapping):
            raise InvalidError(f"{EXTRA} must be an object of option names and values")
        found[name] = value
    return found


def to_args(options: Mapping[str, Any], catalogue: Catalogue) -> tuple[str, ...]:
    """The arguments that `options` stand for, in their order, those of `extra_args` last.

    Raises:
        InvalidError: a value that no argument can stand for.
    """
    known = catalogue.by_spelling()
    words: list[str] = []
    for key, value in normal_keys(options).items():
        if key not in (_MODEL, EXTRA):
            words += _words(_flag(key, known), value, catalogue)
    for key, value in (options.get(EXTRA) or options.get("extra-args") or {}).items():
        words += _words(key if key.startswith("-") else _flag(_key(key), known), value, catalogue, several=False)
    return tuple(words)


def to_options(parsed: ParsedCommand, catalogue: Catalogue) -> dict[str, Any]:
    """The options of a parsed command line, `model` first."""
    known = catalogue.by_spelling()
    found: dict[str, Any] = {} if parsed.model is None else {_MODEL: parsed.model}
    extra: dict[str, Any] = {}
    given: dict[str, list[Sequence[str]]] = {}
    for flag, times in parsed.options.items():
        option = known.get(flag)
        if option is None:
            extra[flag] = _dotted(flag, times) if _is_dotted(flag, known) else _value(times, None)
            continue
        key = _key(option.flag.lstrip("-"))
        # llama-server adds up some of the flags that it is given twice, and its catalogue does not tell which.
        adds_up = option.repeatable or catalogue.engine == "llama_cpp"
        given[key] = [*(given.get(key, ()) if adds_up else ()), *times]
        value = _switch(flag, times, option) if option.nargs == "0" else _value(given[key], option)
        found.pop(key, None)  # the last of several spellings counts, as for the engine
        found[key] = value
    return found | ({EXTRA: extra} if extra else {})


def _key(name: str) -> str:
    head, dot, tail = name.lstrip("-").partition(".")
    return head.replace("-", "_") + dot + tail


def _flag(key: str, known: Mapping[str, Option]) -> str:
    """The flag of an option's name: a long one, or a short one that the catalogue has, such as `ngl`."""
    head, dot, tail = key.partition(".")
    if dot:
        return _flag(head, known) + dot + tail
    flag = normal(f"--{key}")
    if flag not in known and f"-{key}" in known:
        return known[f"-{key}"].flag
    return known[flag].flag if flag in known and flag not in known[flag].negations else flag


def _words(flag: str, value: Any, catalogue: Catalogue, *, several: bool = True) -> Iterator[str]:
    """The words of one option. `several`: a list of a new vLLM option is the values of one flag, not repeated."""
    known = catalogue.by_spelling()
    # llama-server knows no `--x=VALUE`.
    greedy = catalogue.engine == "llama_cpp"
    option = known.get(flag) or _new_option(flag, value, catalogue, several=several)
    if _is_dotted(flag, known):
        yield from _occurrence(flag, [_json_word(flag, value)], None)
    elif value is None:
        return
    elif value is True and (option is None or option.nargs in ("0", "?")):
        yield flag
    elif value is False and (option is None or option.nargs == "0"):
        # A flag of an unknown option that is off is left out: nobody knows whether it can be negated.
        if option is not None and option.negations:
            yield option.negations[0]
    elif isinstance(value, list | tuple):
        for values in _occurrences(value, option):
            yield from _occurrence(flag, [_text(flag, _whole(one, option)) for one in values], option, greedy=greedy)
    else:
        yield from _occurrence(flag, [_text(flag, _whole(value, option))], option, greedy=greedy)


def _new_option(flag: str, value: Any, catalogue: Catalogue, *, several: bool) -> Option | None:
    """The usual form of a vLLM option that this catalogue is too old for; None for the other engines."""
    if catalogue.engine != "vllm" or not flag.startswith("--"):
        return None
    if isinstance(value, bool):
        return Option(flag, negations=(flag.replace("--", "--no-", 1),), type="flag", nargs="0")
    return Option(flag, nargs="+" if several and isinstance(value, list | tuple) else "1")


def _json_word(flag: str, value: Any) -> str:
    """The value of a key of a JSON option. vLLM reads it as JSON if it can, and splits that of `key+` at its commas."""
    if isinstance(value, list | tuple) and flag.endswith("+"):
        return ",".join(_text(flag, one) for one in value)
    text = _text(flag, value)
    if not isinstance(value, str) or flag.endswith("+"):
        return text
    try:
        scalar = not isinstance(json.loads(text), str | list | dict)
    except (ValueError, RecursionError):
        return text
    return json.dumps(text) if scalar else text  # `"1"` in quotes is a text, not the number


def _occurrences(value: Sequence[Any], option: Option | None) -> Iterator[Sequence[Any]]:
    if option is not None and option.type == "json" and option.nargs == "1":
        yield [value]
    elif value and all(isinstance(one, list | tuple) for one in value):
        yield from value
    elif option is not None and option.nargs not in ("0", "1", "?"):
        yield value
    else:
        yield from ([one] for one in value)


def _occurrence(flag: str, values: Sequence[str], option: Option | None, *, greedy: bool = False) -> Iterator[str]:
    """One occurrence of a flag. `greedy`: the engine takes the next word for a value, whatever it looks like."""
    single = len(values) == 1 and (option is None or option.nargs in ("1", "?", "+"))
    if single and not greedy and flag.startswith("--") and _needs_equals(values[0], option):
        yield f"{flag}={values[0]}"
    elif values:
        yield flag
        yield from values


def _needs_equals(value: str, option: Option | None) -> bool:
    """Whether argparse would take the value for a flag, or for nothing, as a word of its own."""
    negative = _NEGATIVE.match(value) is not None
    return (value.startswith("-") and not negative) or not value or (option is not None and option.nargs == "?")


def _whole(value: Any, option: Option | None) -> Any:
    """10000 for `1e4` and `10000.0`, where the option takes a whole number, which is not written in these forms."""
    if option is None or not takes_whole_number(option):
        return value
    number = float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value
    return int(number) if isinstance(number, float) and number.is_integer() else value


def _text(flag: str, value: Any) -> str:
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidError(f"the value of {flag} holds a null character")
        return value
    if value is True or value is False:
        return "true" if value else "false"
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):  # a date, bytes, a set, .nan, or a thing that contains itself
        raise InvalidError(
            f"the value of {flag} holds something that is no JSON, such as a date or .nan",
            hint="Put it in quotes if it is text.",
        ) from None


def _switch(flag: str, times: Sequence[Sequence[str]], option: Option) -> bool | str:
    """Whether a switch is on: `--x`, `--no-x`, and `--x false`, which not every engine takes. Other text stays."""
    on = flag not in option.negations
    if not (times and times[-1]):
        return on
    word = times[-1][0].lower()
    if word in ("true", "1", "yes", "on"):
        return on
    return not on if word in ("false", "0", "no", "off") else times[-1][0]


def _is_dotted(flag: str, known: Mapping[str, Option]) -> bool:
    """Whether it is a key of a JSON option: `--compilation-config.mode`."""
    head, dot, _ = flag.partition(".")
    return bool(dot) and head in known and known[head].type == "json"


def _dotted(flag: str, times: Sequence[Sequence[str]]) -> Any:
    """The JSON value of a key of a JSON option, which vLLM gathers from all its occurrences: lists and the keys of
    objects add up, and of anything else the last one counts."""
    texts = [values[0] for values in times if values]
    if flag.endswith("+"):
        return [part for text in texts for part in text.split(",")]
    found: Any = None
    for text in texts:
        value = _json(text)
        if isinstance(found, list) and isinstance(value, list):
            found = found + value
        else:
            found = _joined(found, value) if isinstance(found, dict) and isinstance(value, dict) else value
    return found


def _joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(first)
    for key, value in second.items():
        old = found.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            found[key] = _joined(old, value)
        else:
            found[key] = old + value if isinstance(old, list) and isinstance(value, list) else value
    return found


def _json(text: str) -> Any:
    """The value that a text of JSON stands for, if JSON can hold it; else the text."""
    try:
        value = json.loads(text) if len(text) < 65536 else text
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value


def _value(times: Sequence[Sequence[str]], option: Option | None) -> Any:
    """The JSON value of the occurrences of one flag."""
    if all(not values for values in times):
        return True
    several = option is not None and option.nargs not in ("0", "1", "?")
    if len(times) == 1 and several:
        return [_scalar(one, option) for one in times[0]]
    if option is not None and option.type == "json" and all(len(values) == 1 for values in times):
        return _scalar(times[-1][0], option)  # the last one counts; a list is one value
    if any(len(values) != 1 for values in times) or (several and len(times) > 1):
        return [[_scalar(one, option) for one in values] for values in times]
    found = [_scalar(values[0], option) for values in times]
    return found[0] if len(found) == 1 else found


def _scalar(text: str, option: Option | None) -> Any:
    """A number or an object where the option is one and nothing is lost; else the text."""
    kind = option.type if option is not None else "text"
    if option is not None and kind == "text" and option.metavar == "N":
        kind = "number"  # a number, or a word such as `auto`
    if kind in ("integer", "number") and _NUMBER.match(text) and len(text) < 16:
        return int(text)
    if kind == "number":
        try:
            number = float(text)
        except ValueError:
            return text
        return number if json.dumps(number) == text else text
    return _json(text) if kind == "json" and text.startswith(("{", "[")) else text
