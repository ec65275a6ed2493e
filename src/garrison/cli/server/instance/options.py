"""The options of an instance as the API takes them, from flags, `key=value` and pasted command lines. Pure."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from garrison.base import values
from garrison.base.errors import InvalidError, UsageError

__all__ = [
    "Flags", "Options", "absolute_model", "changed", "from_line", "idle_minutes", "key_and_value", "patch_of",
    "restarts",
]  # fmt: skip

Options = dict[str, Any]
"""`backend_type`, `backend_options` and what else an instance is, as JSON."""

_ENGINE = "backend_options"
_OF_THE_ENGINE = (
    "backend_type", _ENGINE, "custom", "preset_ini", "command_override", "docker_enabled", "environment", "devices",
)  # fmt: skip
"""Options that the command, the environment or the place of an engine depends on."""

_OF_THE_INSTANCE = frozenset(
    {
        "backend_type", _ENGINE, "custom", "preset_ini", "auto_restart", "max_restarts", "restart_delay",
        "on_demand_start", "idle_timeout", "environment", "docker_enabled", "command_override", "group", "nodes", "pin",
        "priority", "devices", "memory",
    }
)  # fmt: skip
_TEXTS = frozenset({"memory", "group", "command_override", "preset_ini"})
_PATHS = frozenset({"model", "models_dir", "models-dir", "models_preset", "models-preset"})
_SHORT = {"idle": "idle_timeout", "on_demand": "on_demand_start", "engine": "backend_type", "env": "environment"}
_MINUTE = 60.0
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What the flags of `garrison instance create` say; None where one was not given."""

    engine: str | None = None
    model: str | None = None
    options: Sequence[str] = ()
    port: int | None = None
    idle: str | None = None
    pin: bool | None = None
    group: str | None = None
    devices: str | None = None
    memory: str | None = None
    env: Sequence[str] = ()
    on_demand: bool | None = None
    preset_ini: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def over(self, base: Options) -> Options:
        """Return `base` with these flags over it.

        Raises:
            InvalidError: there is no such engine.
            UsageError: a flag has a value that it cannot have.
        """
        engine_options = dict(base.get(_ENGINE) or {})
        engine_options |= dict(key_and_value(one, "--option") for one in self.options)
        if self.model == "":
            raise UsageError("--model is empty", hint="A name, a directory or a file; leave it out for none.")
        if self.model is not None:
            engine_options["model"] = self.model
        if self.port is not None:
            engine_options["port"] = self.port
        given: dict[str, Any] = {
            "backend_type": None if self.engine is None else _engine(self.engine),
            "idle_timeout": None if self.idle is None else idle_minutes(self.idle),
            "pin": self.pin,
            "group": self.group,
            "devices": None if self.devices is None else _devices(self.devices),
            "memory": self.memory,
            "on_demand_start": self.on_demand,
            "preset_ini": self.preset_ini,
        }
        found = base | {name: value for name, value in given.items() if value is not None}
        found.setdefault("backend_type", "vllm" if found.get("preset_ini") is None else "llama_cpp")
        if engine_options or found["backend_type"] != "custom":
            found[_ENGINE] = engine_options
        if self.env:
            found["environment"] = dict(base.get("environment") or {}) | dict(map(self._variable, self.env))
        return found

    def _variable(self, text: str) -> tuple[str, str]:
        """`NAME=VALUE`, or `NAME` for the value that it has here, so that a secret need not stand in a command line."""
        name, equals, value = text.partition("=")
        if not _VARIABLE.match(name):
            raise UsageError(f"--env {text!r} is not NAME=VALUE", hint="For example --env OMP_NUM_THREADS=4")
        if equals:
            return name, value
        if name not in self.environ:
            raise UsageError(f"--env {name}: the variable is not set here", hint=f"Export it, or give --env {name}=…")
        return name, self.environ[name]


def _engine(name: str) -> str:
    """The name of an engine in the API. Raises InvalidError: there is none; the hint names the closest."""
    from garrison.engines import registry

    return registry.engine(name).name


def from_line(text: str, engine: str | None = None) -> tuple[Options, tuple[str, ...]]:
    """The options of a pasted command line, and remarks about it for people.

    Args:
        engine: of a line that has only arguments.

    Raises:
        InvalidError: it starts no known engine.
    """
    from garrison.engines.parsed_backend import parse_backend

    found = parse_backend(text, engine)
    return dict(found.to_json()), found.notes


def idle_minutes(text: str) -> float:
    """Parse `30m`, `90s` or `never` to minutes; 0 is never. A bare number is minutes.

    Raises:
        UsageError: it is none of them.
    """
    if text.strip().lower() == "never":
        return 0
    try:
        minutes: float = values.duration("m")(text) / _MINUTE
    except ValueError as error:
        raise UsageError(f"the idle time {text!r} must be {error}, or never") from None
    return int(minutes) if minutes == int(minutes) else minutes


def key_and_value(text: str, flag: str) -> tuple[str, Any]:
    """Split `key=value`. The value is JSON where it reads the same as JSON (`2`, `true`, `{"a": 1}`), else text."""
    key, raw = _split(text, flag)
    return key, _value(raw)


def _split(text: str, flag: str) -> tuple[str, str]:
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"{flag} {text!r} is not KEY=VALUE", hint=f"For example {flag} max_model_len=8192")
    return key.strip(), raw


def patch_of(sets: Iterable[str], unsets: Iterable[str]) -> Options:
    """A JSON merge patch of `--set key=value` and `--unset key`.

    A key is an option of the instance (`idle`, `pin`, `env.NAME`), or one of its engine (`max_model_len`).

    Raises:
        InvalidError: there is no such engine.
        UsageError: a key or a value cannot be used, or a key is given twice.
    """
    patch: Options = {}
    for text in sets:
        key, raw = _split(text, "--set")
        _put(patch, _place(key), _meant(key, raw))
    for key in unsets:
        _put(patch, _place(key), None)
    return patch


def changed(options: Options, patch: Mapping[str, Any]) -> Options:
    """`options` after a merge patch (RFC 7396)."""
    found = dict(options)
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(found.get(name), Mapping):
            found[name] = changed(dict(found[name]), value)
        else:
            found[name] = value
    return found


def restarts(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether an engine that runs has to be restarted to go from the one to the other."""
    return any((before.get(name) or None) != (after.get(name) or None) for name in _OF_THE_ENGINE)


def absolute_model(options: Options, directory: str, home: str) -> Options:
    """`options` with a model, or a place of models, that is written as a path (`./x`, `../x`, `~/x`) from its root: the
    server runs in another directory."""
    import posixpath

    engine_options = options.get(_ENGINE)
    whole = dict(engine_options) if isinstance(engine_options, Mapping) else {}
    for key in whole.keys() & _PATHS:
        text = whole[key]
        if isinstance(text, str) and re.match(r"\.{1,2}(/|\Z)|~/", text):
            path = posixpath.join(home, text[2:]) if text.startswith("~/") else posixpath.join(directory, text)
            whole[key] = posixpath.normpath(path)
    return options if whole == engine_options or not whole else options | {_ENGINE: whole}


def _place(key: str) -> tuple[str, ...]:
    """Where an option is in the JSON: `idle` in `idle_timeout`, `max_model_len` in `backend_options`."""
    head, dot, rest = key.partition(".")
    head = head.replace("-", "_")
    head = _SHORT.get(head, head)
    if head in ("environment", _ENGINE, "custom") and dot and rest:
        return head, rest
    if head in _OF_THE_INSTANCE and not dot:
        return (head,)
    return _ENGINE, key.replace("-", "_") if "." not in key else key


def _meant(key: str, raw: str) -> Any:
    match _place(key):
        case ("idle_timeout",):
            return idle_minutes(raw)
        case ("devices",):
            return _devices(raw)
        case ("backend_type",):
            return _engine(raw)
        case ("environment", _):
            return raw
        case (name,) if name in _TEXTS:
            return raw
        case _:
            value = _value(raw)
            if value is None:
                raise UsageError(f"--set {key}=null takes the option away", hint=f"Use --unset {key}.")
            return value


def _put(patch: Options, place: tuple[str, ...], value: Any) -> None:
    into: Any = patch
    for name in place[:-1]:
        into = into.setdefault(name, {})
    if not isinstance(into, dict) or place[-1] in into:
        raise UsageError(f"{'.'.join(place)} is given twice", hint="Leave one out.")
    into[place[-1]] = value


def _devices(text: str) -> list[str]:
    """`auto`, or indices and UUIDs with commas between them; empty for any."""
    if text.strip().lower() in ("auto", ""):
        return []
    return [one.strip() for one in text.split(",") if one.strip()]


def _value(text: str) -> Any:
    if not text.startswith(("[", "{")):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return text
        same = not isinstance(found, str) and json.dumps(found) == text
        return found if same and text not in ("NaN", "Infinity", "-Infinity") else text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidError(f"{text[:200]!r} looks like JSON and is none", hint="Quote it for the shell.") from None
