"""What is wrong with a serve manifest, each error with its line and what to write instead. Pure."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pydantic import BaseModel, ValidationError

from garrison.base.documents import Document, Path, inside
from garrison.base.errors import InvalidError
from garrison.base.invalid_values import in_our_words, what_to_write
from garrison.base.positions.misread import misread
from garrison.base.problems import Problems, did_you_mean, dotted
from garrison.engines import registry
from garrison.engines.engine import Engine
from garrison.engines.options import normal_keys, to_args

__all__ = [
    "EMPTY",
    "OF_THE_SERVER",
    "add_invalid",
    "add_misread_names",
    "add_wrong_engine",
    "add_wrong_options",
    "options_engine",
]

EMPTY = "empty"
"""The type of pydantic's error for a key without a value."""

OF_THE_SERVER = (
    "custom", "preset_ini", "container", "on_demand", "idle", "auto_restart", "max_restarts", "restart_delay", "group",
    "pin", "priority", "weight", "devices", "memory", "sleep_level", "preload", "node",
)  # fmt: skip
"""Keys of an instance, which a server runs. `garrison serve` starts one engine, and has no use for them."""

_NAMED = ("env", "adapters", "options")
"""Keys that hold names of the user's choice."""
_NO_VALUE = "has no value"
_GIVE_ONE = "Give it a value, or remove the line."


def add_invalid(problems: Problems, document: Document, error: ValidationError, model: type[BaseModel]) -> None:
    """Add every error that the validation of `document` as a `model` found."""
    for one in error.errors(include_url=False, include_input=False):
        loc, kind = one["loc"], one["type"]
        if kind == "missing":
            key = dotted(loc)
            problems.add(document.where(loc), loc, f"key {key!r} is missing", f"Add a line `{key}: …`.")
        elif kind == "extra_forbidden":
            text = f"unknown key {dotted(loc)!r}"
            problems.add(document.where(loc), loc, text, _unknown(str(loc[-1]), model))
        else:
            _add_value(problems, document, loc, kind, in_our_words(kind, one["msg"], one.get("ctx")))


def add_misread_names(problems: Problems, document: Document) -> None:
    """Add the error of every name that YAML does not read as text."""
    for path, value in document.keys.items():
        if len(path) == 2 and path[0] in _NAMED:
            text, hint = misread(str(path[-1]), value)
            problems.add(document.where(path), path, f"{path[0]}: {text}", hint)


def _unknown(word: str, model: type[BaseModel]) -> str:
    if word.replace("-", "_") in OF_THE_SERVER:
        return "`garrison up` reads it; `garrison serve` starts one engine and has no such key."
    return did_you_mean(word, model.model_fields)


def _add_value(problems: Problems, document: Document, loc: Path, kind: str, said: str) -> None:
    path, value, _ = inside(document.content, loc)
    key = dotted(path)
    where = document.where(path)
    is_given = value is not None or isinstance(path[-1], int)
    if kind == "string_type" and is_given and (written := document.scalars.get(path)):
        text, hint = misread(written, value)
        problems.add(where, path, f"{key}: {text}", hint)
        return
    if value is None or kind in (EMPTY, "string_too_short"):
        hint = 'Write "" for an empty variable.' if path[0] == "env" and len(path) > 1 else _GIVE_ONE
        problems.add(where, path, f"{key}: {_NO_VALUE}", hint)
        return
    write = what_to_write(kind)
    if path[0] == "options" and len(path) > 1:
        said = "an option is text, a number, true, false, a list of these, or a mapping"
        write = "Put it in quotes if it is text."
    problems.add(where, path, f"{key}: {said}", write)


def options_engine(name: str) -> Engine:
    """The engine whose catalogue describes the options of `name`: the simulator takes vLLM's flags."""
    return registry.engine("vllm" if name == "sim" else name)


def add_wrong_engine(problems: Problems, document: Document, name: str) -> None:
    """Add the error of an engine that does not exist."""
    _add_refused(problems, document, ("engine",), lambda: registry.engine(name))


def add_wrong_options(problems: Problems, document: Document, options: Mapping[Any, Any], engine: str) -> None:
    """Add the errors of single options: one without a value, one that is given twice, and the model, which has a key of
    its own."""
    catalogue = options_engine(engine).catalogue()
    seen: dict[str, str] = {}
    for key, value in options.items():
        path: Path = ("options", key)
        where = document.where(path)
        name = next(iter(normal_keys({key: None})))
        if name == "model":
            text = f"options: {key} is not an option here"
            problems.add(where, path, text, "Name the model with the key `model`.")
        elif name in seen:
            text = f"{dotted(path)}: it is given twice, as {seen[name]!r} too"
            problems.add(where, path, text, "Remove one of the two.")
        elif value is None or (_is_bare(value) and not to_args({key: value}, catalogue)):
            problems.add(where, path, f"{dotted(path)}: {_NO_VALUE}", _GIVE_ONE)
        else:
            _add_refused(problems, document, path, partial(to_args, {key: value}, catalogue))
        seen[name] = key


def _is_bare(value: Any) -> bool:
    """Whether it is a list of nothing. Where an option is JSON, that is a value."""
    return isinstance(value, list) and not any(value)


def _add_refused(problems: Problems, document: Document, path: Path, call: Callable[[], object]) -> None:
    try:
        call()
    except InvalidError as error:
        problems.add(document.where(path), path, f"{dotted(path)}: {error.message}", error.hint)
