"""An instance's `options` and `args` as one set of options. No I/O."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from garrison.base.errors import InvalidError
from garrison.engines.argv import flag_of, is_flag
from garrison.engines.catalogue import Catalogue, load
from garrison.engines.options import EXTRA, normal_keys, to_options
from garrison.engines.parse.command import ParsedCommand, parse_command

__all__ = ["args_as_options", "with_args"]


def with_args(engine: str, options: Mapping[str, Any], args: Sequence[str]) -> dict[str, Any]:
    """Return `options` with what `args` say; where both give an option, the argument counts, as for an engine.

    Raises:
        InvalidError: as `args_as_options`, or two spellings of one option.
    """
    known = normal_keys(options)
    more = args_as_options(engine, args)
    extra = {**(known.pop(EXTRA, None) or {}), **more.pop(EXTRA, {})}
    found = {key: value for key, value in known.items() if key not in more} | more
    return found | ({EXTRA: extra} if extra else {})


def args_as_options(engine: str, args: Sequence[str]) -> dict[str, Any]:
    """Return the options that `args` of an engine give.

    Raises:
        InvalidError: a word belongs to no option, or is the model, which has a key of its own.
    """
    if not args:
        return {}
    if not is_flag(args[0]):
        raise _stray(args[0])
    parsed = parse_command(shlex.join(args), engine)
    if parsed.model is not None:
        raise InvalidError(f"{parsed.model!r} is taken for the model", hint="Name the model with the key `model`.")
    if (stray := next(_strays(parsed), None)) is not None:
        raise _stray(stray)
    return to_options(parsed, _catalogue(engine))


def _strays(parsed: ParsedCommand) -> Iterator[str]:
    """Yield the words that are neither a flag nor a value of one."""
    times = {flag: iter(values) for flag, values in parsed.options.items()}
    words = iter(parsed.args)
    for word in words:
        if not is_flag(word):
            yield word
            continue
        values = next(times[flag_of(word)])
        for _ in values if "=" not in word else ():
            next(words)


def _stray(word: str) -> InvalidError:
    return InvalidError(
        f"the word {word!r} belongs to no option", hint="An argument is a flag, followed by its values."
    )


def _catalogue(engine: str) -> Catalogue:
    return load("vllm" if engine == "sim" else engine)
