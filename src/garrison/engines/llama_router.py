"""llama-server without a model of its own: it loads those of a preset file or a directory. Facts are from build 11434.

As a router it is ready at once, and starts a process for each model, when a request names it or `POST /models/load`
does. `GET /models` lists them; `status.value` is `unloaded`, `loading`, `loaded` or `sleeping`, with `failed` beside it
after a load that failed. Keys, host and port in a preset have no effect: the models' processes get the router's.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "MOST_MODELS",
    "PRESET_FLAG",
    "RouterModel",
    "files_of_preset",
    "is_router",
    "models_in",
    "models_of",
    "preset_sections",
]

PRESET_FLAG = "--models-preset"
MOST_MODELS = 1000
"""Models of one router that are listed; requests may name more."""
_EXTRA = "extra_args"
_PLACES = frozenset({"models_preset", "models_dir"})
_OWN_MODEL = frozenset({"model", "m", "model_url", "mu", "hf_repo", "hf", "hfr", "docker_repo", "dr"})
_FILES = frozenset(
    {"model", "m", "mmproj", "mm", "model_draft", "md", "spec_draft_model", "lora", "chat_template_file",
     "llama_arg_model", "llama_arg_mmproj"}
)  # fmt: skip
_OUTSIDE = "default"
"""The section of keys before the first one."""
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class RouterModel:
    """A model of a router.

    Attributes:
        id: the name that requests to the router use.
        status: `unloaded`, `loading`, `loaded`, `sleeping` or `failed`.
    """

    id: str
    status: str = "unloaded"

    def to_json(self) -> dict[str, Any]:
        """As llama-server has it; `models_of` reads it."""
        failed = self.status == "failed"
        return {"id": self.id, "status": {"value": "unloaded", "failed": True} if failed else {"value": self.status}}


def is_router(engine: str, options: Mapping[str, Any], *, preset: bool) -> bool:
    """Return whether an engine with these options has no model of its own.

    Args:
        options: as JSON, in any spelling.
        preset: it is given the text of a preset, too.
    """
    if engine != "llama_cpp":
        return False
    extra = options.get(_EXTRA)
    every = {**options, **(extra if isinstance(extra, Mapping) else {})}
    given = {_plain(key) for key, value in every.items() if value not in (None, "", False)}
    return not given & _OWN_MODEL and (preset or bool(given & _PLACES))


def preset_sections(text: str) -> dict[str, dict[str, str]]:
    """Return the sections of a preset: keys and values as they are written. A line that says nothing is left out.

    It never fails: llama-server itself says at its start what is wrong with a preset.
    """
    found: dict[str, dict[str, str]] = {}
    section = _OUTSIDE
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
            found.setdefault(section, {})
        elif line and line[0] not in "#;":
            key, _, value = line.partition("=")
            found.setdefault(section, {})[key.strip()] = value.strip()
    return found


def files_of_preset(text: str) -> tuple[str, ...]:
    """Return the absolute paths of models and what belongs to them in a preset."""
    values = (value for keys in preset_sections(text).values() for key, value in keys.items() if _plain(key) in _FILES)
    return tuple(dict.fromkeys(value for value in values if value.startswith("/")))


def models_in(body: bytes) -> tuple[RouterModel, ...] | None:
    """Return the models in an answer to `GET /models`; None if it is no such answer."""
    try:
        return models_of(json.loads(body).get("data"))
    except (ValueError, RecursionError, AttributeError):
        return None


def models_of(listed: Any) -> tuple[RouterModel, ...] | None:
    """Return the models of a list in JSON, at most `MOST_MODELS`; None if it is no list."""
    if not isinstance(listed, list):
        return None
    found: dict[str, RouterModel] = {}
    for one in listed:
        name = one.get("id") if isinstance(one, dict) else None
        if isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and name.isprintable():
            found.setdefault(name, RouterModel(name, _status(one.get("status"))))
        if len(found) == MOST_MODELS:
            break
    return tuple(found.values())


def _status(told: Any) -> str:
    if not isinstance(told, dict):
        return "unloaded"
    if told.get("failed") is True:
        return "failed"
    value = told.get("value")
    return value if value in ("loading", "loaded", "sleeping") else "unloaded"


def _plain(key: str) -> str:
    return key.strip().lstrip("-").replace("-", "_").lower()
