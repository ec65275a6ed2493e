"""Normalizes a parsed document: keys in snake_case, variables substituted, paths absolute.

`loraName`, `LoraName` and `lora_name` are one key; giving two of them is an error. Only keys of the manifest model are
rewritten: names of targets, adapters, labels and headers are kept verbatim.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel

from garrison.base.documents import Document, Path
from garrison.base.positions.misread import misread
from garrison.base.problems import Problems, did_you_mean, dotted
from garrison.base.redaction import is_secret_name
from garrison.fleet.manifest.draft import Draft, LazyPlaces
from garrison.fleet.manifest.fields import LabelText, SecretModel
from garrison.fleet.manifest.instance_model import InstanceModel
from garrison.fleet.manifest.model import AdapterModel, FleetManifest
from garrison.fleet.manifest.variables import has_variable, only_variable, substitute
from garrison.fleet.values.target import NO_STORE

__all__ = ["canonical", "spellings"]

_READ_ONLY = ("id", "parent", "root")
_TELLING = re.compile(r"auth|cookie|token|secret|passw|credential|signature|api-?key", re.IGNORECASE)

_OF_THE_SERVER = ("host", "port", "api_key", "api_key_file", "uds")
"""Options of engines that the server sets itself."""

_PATHS_OF_ROUTERS = ("models_dir", "models-dir", "models_preset", "models-preset")

_NO_VALUE = "has no value"
_GIVE_ONE = "Give it a value, or remove the line."

_LOOPBACK = re.compile(r"https?://(localhost|127\.[0-9.]+|\[::1\])([:/]|\Z)", re.IGNORECASE)

T = TypeVar("T")


def remembered(find: Callable[[Any], T]) -> Callable[[Any], T]:
    """Cache the results of `find` by type. Types are compared by identity, since not all can be hashed, and kept alive,
    so that no identity is reused."""
    known: dict[int, tuple[Any, T]] = {}

    def ask(kind: Any) -> T:
        if (held := known.get(id(kind))) is None:
            held = known[id(kind)] = (kind, find(kind))
        return held[1]

    return ask


_ENV = SecretModel.model_fields["env"].annotation
_NUMBERS_TOO = (LabelText, get_args(InstanceModel.model_fields["env"].annotation)[-1])
"""Types of text that may be written as a number."""


def canonical(
    document: Document,
    *,
    directory: str,
    environ: Mapping[str, str],
    problems: Problems,
    warnings: list[str],
    variables: bool = True,
) -> Draft:
    """Return the draft of one document.

    Args:
        directory: base of relative paths.
        environ: source of `${NAME}`.
        problems: collects errors.
        warnings: collects warnings.
        variables: whether `${NAME}` is substituted; False for the output of another program, where it is plain text.
    """
    walk = _Walk(document, environ, problems, warnings, variables)
    content = walk.value(document.content, (), (), FleetManifest)
    places = LazyPlaces(lambda: {path: document.where(source) for path, source in _sources(document).items()})
    scalars = LazyPlaces(lambda: _moved(document.scalars, _sources(document)))
    draft = Draft(document.name, content, places, walk.written, scalars)
    warnings += _oddities(draft)
    _anchor(draft, directory, environ.get("HOME"))
    return draft


def spellings(key: str) -> tuple[str, ...]:
    """Return the accepted spellings of a key: `base_url`, `baseUrl`, `BaseUrl`."""
    pascal = "".join(part.capitalize() for part in key.split("_"))
    return tuple(dict.fromkeys((key, pascal[:1].lower() + pascal[1:], pascal)))


def _sources(document: Document) -> dict[Path, Path]:
    """Return the path in the document of each value of the draft. It takes a second pass, which only errors need."""
    walk = _Walk(document, {}, Problems(), [], variables=False, sources={})
    walk.value(document.content, (), (), FleetManifest)
    return walk.sources or {}


def _moved(written: Mapping[Path, str], sources: Mapping[Path, Path]) -> dict[Path, str]:
    return {path: written[source] for path, source in sources.items() if source in written}


@dataclass(slots=True)
class _Walk:
    """Walks the document along the model; `source` is a path in the document, `path` the canonical one.

    Attributes:
        sources: the path in the document of each value, by canonical path; None if that is not needed.
    """

    document: Document
    environ: Mapping[str, str]
    problems: Problems
    warnings: list[str]
    variables: bool
    sources: dict[Path, Path] | None = None
    written: dict[Path, str] = field(default_factory=dict)

    def value(self, value: Any, source: Path, path: Path, kind: Any) -> Any:
        if self.sources is not None:
            self.sources[path] = source
        if isinstance(value, str):
            return self.text(value, source, path, kind)
        if isinstance(value, dict):
            return self.mapping(value, source, path, kind)
        if isinstance(value, list):
            inner = _list_member(kind)
            if self.sources is None and _is_plain(inner):
                return [
                    item
                    if type(item) is str and "${" not in item
                    else self.value(item, (*source, at), (*path, at), inner)
                    for at, item in enumerate(value)
                ]
            return [self.value(item, (*source, at), (*path, at), inner) for at, item in enumerate(value)]
        # A number that stands for text is the text that was written: `022`, and not `18`.
        return self.document.scalars.get(source, value) if _is_number(value) and kind in _NUMBERS_TOO else value

    def mapping(self, value: dict[Any, Any], source: Path, path: Path, kind: Any) -> dict[str, Any]:
        model = _model(kind)
        if model is None:
            return self.named(value, source, path, _mapping_member(kind))
        known = _spelled(model)
        found: dict[str, Any] = {}
        spelled: dict[str, str] = {}
        for word, item in value.items():
            at = (*source, word)
            if not self.is_plain(word, path, at):
                continue
            name = known.get(word)
            if name is None and model is AdapterModel and word.lower() in _READ_ONLY:
                text = (
                    f"{self.document.where(at)}: ignored {word!r}: it is reported by the server and cannot be declared"
                )
                self.warnings.append(text)
            elif name is None:
                hint = _hint(path, word, model)
                self.mistake((*path, word), at, f"unknown key {dotted((*path, word))!r}", hint)
            elif name in spelled:
                text = f"{spelled[name]!r} and {word!r} are two spellings of one key"
                self.mistake((*path, name), at, text, "Remove one of the two.")
            else:
                spelled[name] = word
                if not self.refuse_empty(item, (*path, name), at):
                    found[name] = self.value(item, at, (*path, name), model.model_fields[name].annotation)
        return found

    def named(self, value: dict[Any, Any], source: Path, path: Path, member: Any) -> dict[str, Any]:
        """Walk a mapping whose keys are names of the user's choice."""
        found: dict[str, Any] = {}
        for word, item in value.items():
            at, to = (*source, word), (*path, word)
            if not self.is_plain(word, path, at):
                continue
            if at in self.document.keys:
                text, hint = misread(word, self.document.keys[at])
                self.mistake(to, at, f"{dotted(path)}: {text}", hint)
                continue
            holds_values = _model(member) is not None or path[:1] + path[2:] == ("instances", "options")
            if not (holds_values and self.refuse_empty(item, to, at)):
                found[word] = self.value(item, at, to, member)
        return found

    def is_plain(self, key: Any, path: Path, source: Path) -> bool:
        if isinstance(key, str) and key.isprintable():
            return True
        self.mistake((*path, str(key)), source, f"key {str(key)!r} is not plain text", "Quote the key.")
        return False

    def text(self, text: str, source: Path, path: Path, kind: Any) -> Any:
        if SecretModel in _alternatives(kind):
            return self.secret(text, source, path)
        if kind == _ENV:  # `env: ${KEY}` would use the secret as a name
            return text
        return self.plain(text, source, path)

    def plain(self, text: str, source: Path, path: Path) -> Any:
        """Replace the variables in a text that is no secret."""
        if not self.variables or "${" not in text:
            return text
        try:
            made = substitute(text, self.environ)
        except ValueError as error:
            self.problems.add(
                self.document.where(source), path, f"{dotted(path)}: {error}", "Set it, or write a default."
            )
            return text
        self.written[path] = text
        return made

    def secret(self, text: str, source: Path, path: Path) -> Any:
        """Turn a variable in the place of a secret into a reference, so that its value never enters a declaration."""
        name = only_variable(text) if self.variables else None
        if name is not None:
            return {"env": name}
        last = str(path[-1])
        if path[0] == "instances":  # a variable of an engine is seldom a secret
            return self.plain(text, source, path)
        if last == "api_key":
            self.mistake(path, source, "api_key: secrets do not belong in a manifest", "Write api_key: {env: NAME}.")
        elif "headers" in path and _TELLING.search(last):
            text_ = f"header {last!r} looks like a secret, and secrets do not belong in a manifest"
            self.mistake(path, source, text_, f"Write {last}: {{env: NAME}}.")
        elif self.variables and has_variable(text):
            text_ = f"{dotted(path)}: a variable must be the whole value here, since it may hold a secret"
            self.mistake(path, source, text_, "Write {env: NAME}.")
        elif self.variables:
            return substitute(text, {})
        return text

    def refuse_empty(self, value: Any, path: Path, source: Path) -> bool:
        """Refuse a key without a value: it was meant to have one, and the default must not take its place.

        Another program writes null for what is not set, so its output, without variables, may have it.
        """
        if value is not None or not self.variables:
            return False
        self.mistake(path, source, f"{dotted(path)}: {_NO_VALUE}", _GIVE_ONE)
        return True

    def mistake(self, path: Path, source: Path, text: str, hint: str) -> None:
        self.problems.add(self.document.where(source), path, text, hint)


def _hint(path: Path, word: str, model: type[BaseModel]) -> str:
    return did_you_mean(word, model.model_fields)


@remembered
def _alternatives(kind: Any) -> tuple[Any, ...]:
    """Return the members of a union, with `Annotated` and None removed."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _alternatives(get_args(kind)[0])
    if origin in (Union, UnionType):
        return tuple(one for part in get_args(kind) for one in _alternatives(part) if one is not NoneType)
    return (kind,)


@remembered
def _model(kind: Any) -> type[BaseModel] | None:
    return next((one for one in _alternatives(kind) if isinstance(one, type) and issubclass(one, BaseModel)), None)


@remembered
def _spelled(model: type[BaseModel]) -> dict[str, str]:
    """Return the model's fields by all their spellings."""
    return {way: name for name in model.model_fields for way in spellings(name)}


@remembered
def _list_member(kind: Any) -> Any:
    return _member(kind, list)


@remembered
def _mapping_member(kind: Any) -> Any:
    return _member(kind, dict)


@remembered
def _is_plain(kind: Any) -> bool:
    """Return whether text of this type is neither a secret nor a reference to one."""
    return SecretModel not in _alternatives(kind) and kind != _ENV


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _member(kind: Any, of: type) -> Any:
    """Return the element type of a list, or the value type of a mapping."""
    return next((get_args(one)[-1] for one in _alternatives(kind) if get_origin(one) is of), None)


def _oddities(draft: Draft) -> Iterator[str]:
    """Yield warnings about values that may not mean what their author intended."""
    adapters = draft.content.get("adapters")
    for label, adapter in adapters.items() if isinstance(adapters, dict) else ():
        path = ("adapters", label, "lora_path")
        text = adapter.get("lora_path") if isinstance(adapter, dict) else None
        if isinstance(text, str) and text and text[0] not in "/~." and "://" not in text:
            shown = draft.shown(path, text)
            yield (
                f"{draft.where(path)}: lora_path {shown} is a path on the server; to make it relative to the "
                "manifest, begin it with ./"
            )
    for name, instance in _named(draft.content, "instances"):
        yield from _instance_oddities(draft, name, instance)
    hooks = draft.content.get("hooks")
    for index, hook in enumerate(hooks if isinstance(hooks, list) else ()):
        url = hook.get("url") if isinstance(hook, dict) else None
        if isinstance(url, str) and not _LOOPBACK.match(url):
            yield f"{draft.where(('hooks', index, 'url'))}: a hook's url is often a secret; write url: ${{NAME}}"


def _instance_oddities(draft: Draft, name: str, instance: Mapping[str, Any]) -> Iterator[str]:
    options, env = instance.get("options"), instance.get("env")
    for key in options if isinstance(options, dict) else ():
        if key.replace("-", "_") in _OF_THE_SERVER:
            where = draft.where(("instances", name, "options", key))
            yield f"{where}: ignored option {key!r}: the server decides where an instance listens, and with which key"
    for key, value in env.items() if isinstance(env, dict) else ():
        if isinstance(value, str) and is_secret_name(key):
            where = draft.where(("instances", name, "env", key))
            yield f"{where}: {key} looks like a secret; write {key}: {{env: NAME}} or {{file: PATH}}"


def _anchor(draft: Draft, directory: str, home: str | None) -> None:
    """Make local paths absolute. A `lora_path` is a path on the server unless it begins with `./` or `../`."""

    def place(holder: Any, key: str, *, always: bool) -> None:
        text = holder.get(key) if isinstance(holder, dict) else None
        if not isinstance(text, str):
            return
        if always and home and (text == "~" or text.startswith("~/")):
            holder[key] = home + text[1:]
        elif (always and not text.startswith("/") and text) or text.startswith(("./", "../")) or text in (".", ".."):
            holder[key] = os.path.normpath(os.path.join(directory, text))

    def place_program(holder: Any) -> None:
        """A command runs in a directory of Garrison's choice; a bare name is looked up on PATH."""
        place_first(holder.get("command") if isinstance(holder, dict) else None)

    def place_first(command: Any) -> None:
        if isinstance(command, list) and command and isinstance(command[0], str) and "/" in command[0]:
            command[0] = os.path.normpath(os.path.join(directory, command[0]))

    for target in _entries(draft.content, "targets"):
        for key in ("ca", "cert", "key"):
            place(target.get("tls"), key, always=True)
        for secret in _secrets(target):
            place(secret, "file", always=True)
            place_program(secret)
        place(target, "adapter_store", always=target.get("adapter_store") != NO_STORE)
    for adapter in _entries(draft.content, "adapters"):
        place(adapter, "lora_path", always=False)
    for instance in _entries(draft.content, "instances"):
        place(instance, "model", always=False)
        if home and str(instance.get("model")).startswith("~/"):
            instance["model"] = home + instance["model"][1:]
        for key in _PATHS_OF_ROUTERS:
            place(instance.get("options"), key, always=False)
        if isinstance(instance.get("executable"), str):
            instance["executable"] = [instance["executable"]]
        place_first(instance.get("executable"))
        custom = instance.get("custom")
        place_first(custom.get("argv") if isinstance(custom, dict) else None)
        env = instance.get("env")
        for secret in env.values() if isinstance(env, dict) else ():
            place(secret, "file", always=True)
            place_program(secret)
    hooks = draft.content.get("hooks")
    for hook in hooks if isinstance(hooks, list) else ():
        place_program(hook)
        for secret in _secrets(hook) if isinstance(hook, dict) else ():
            place(secret, "file", always=True)
            place_program(secret)


def _entries(content: Mapping[str, Any], key: str) -> Iterator[dict[str, Any]]:
    for _, entry in _named(content, key):
        yield entry


def _named(content: Mapping[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    found = content.get(key)
    for name, entry in found.items() if isinstance(found, dict) else ():
        if isinstance(entry, dict):
            yield name, entry


def _secrets(holder: Mapping[str, Any]) -> Iterator[Any]:
    yield holder.get("api_key")
    yield holder.get("url")
    headers = holder.get("headers")
    yield from headers.values() if isinstance(headers, dict) else ()
