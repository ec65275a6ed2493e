"""The short form of a manifest, as `garrison serve` takes it, as a stack of one instance."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from garrison.base.documents import Document
from garrison.base.documents import Path as Place
from garrison.base.problems import Problems, dotted
from garrison.fleet.manifest.instance_model import INSTANCE_NAME

__all__ = ["expand", "instance_name", "is_short"]

_OF_A_STACK = ("instances", "targets", "models", "routes", "profiles", "policy", "hooks")
_OF_SERVE = {
    "host": "an instance listens on loopback; GARRISON_SERVER_HOST is the address of its server",
    "api_key_env": "clients send a key of the server; `garrison keys create` makes one",
}

T = TypeVar("T")


def is_short(content: Mapping[str, Any]) -> bool:
    """Return whether a document is in the short form: a `model` at its top, and nothing that only a stack has."""
    return "model" in content and not any(key in content for key in _OF_A_STACK)


def instance_name(model: str) -> str:
    """Return the name of the instance that serves `model`: the last part of its name, without revision and suffix."""
    last = model.rstrip("/").rpartition("/")[2].partition("@")[0].removesuffix(".gguf")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._")[:50]
    return name if INSTANCE_NAME.match(name) else "model"


def expand(document: Document, directory: Path, problems: Problems, warnings: list[str]) -> Document:
    """Return the stack of a document in the short form; its values keep their positions.

    The stack is called as the key `stack` says, or else like the directory. Adapters become adapters of the instance.
    What only `garrison serve` can do is left out, with a warning.
    """
    content: dict[str, Any] = document.content
    model = content["model"]
    name = instance_name(model) if isinstance(model, str) else "model"
    for key, why in _OF_SERVE.items():
        if key not in content:
            continue
        if content[key] in (None, ""):
            problems.add(document.where((key,)), (key,), f"{key}: has no value", "Give it a value, or remove the line.")
        else:
            warnings.append(f"{document.where((key,))}: ignored {key!r}: {why}")
    moved: dict[Place, Place] = {("instances", name): (), ("instances",): ()}
    instance = {key: value for key, value in content.items() if key not in ("stack", "adapters", *_OF_SERVE)}
    moved |= {("instances", name, key): (key,) for key in instance}
    stack: dict[str, Any] = {"stack": content.get("stack", directory.resolve().name or "default")}
    moved[("stack",)] = ("stack",) if "stack" in content else ()
    stack["instances"] = {name: instance}
    adapters = content.get("adapters")
    if isinstance(adapters, dict):
        for label, source in adapters.items():
            if isinstance(source, str) and "/" not in source and source not in ("", ".", ".."):
                path: Place = ("adapters", str(label))
                text = (
                    f"{dotted(path)}: {source!r} is the name of an imported adapter, which only `garrison serve` knows"
                )
                hint = f"Write its directory; `garrison adapters show {source}` prints it."
                problems.add(document.where(path), path, text, hint)
        stack["adapters"] = {label: _adapter(name, source) for label, source in adapters.items()}
        moved |= {("adapters", label, "lora_path"): ("adapters", label) for label in adapters}
        moved |= {("adapters", label): ("adapters", label) for label in adapters}
    elif "adapters" in content:
        stack["adapters"] = adapters
        moved[("adapters",)] = ("adapters",)
    positions, scalars, keys = (_Moved(one, moved) for one in (document.positions, document.scalars, document.keys))
    return Document(document.name, stack, positions, scalars, keys)


def _adapter(instance: str, source: Any) -> Any:
    """Return an adapter of the full form. The short form's paths are on this machine, beside the manifest."""
    if isinstance(source, str) and "/" in source and not source.startswith(("/", "./", "../", "~")):
        source = f"./{source}"
    return {"target": instance, "lora_path": source}


class _Moved(Mapping[Place, T]):
    """What is known of values that are elsewhere now, looked up only when an error needs it.

    Args:
        moved: the old path of each prefix.
    """

    def __init__(self, known: Mapping[Place, T], moved: Mapping[Place, Place]) -> None:
        self._known = known
        self._moved = moved

    def __getitem__(self, path: Place) -> T:
        for length in range(len(path), 0, -1):
            if (old := self._moved.get(path[:length])) is not None:
                return self._known[(*old, *path[length:])]
        return self._known[path]

    def __iter__(self) -> Iterator[Place]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)
