"""llama-server without a model of its own: it loads those of a preset file or a directory. Facts are from build 11434.

As a router it is ready at once, and starts a process for each model, when a request names it or `POST /models/load`
does. `GET /models` lists them; `status.value` is `unloaded`, `loading`, `loaded` or `sleeping`, with `failed` beside it
after a load that failed. Why it failed is only in the log, in the lines of that process. Keys, host and port in a
preset have no effect: the models' processes get the router's.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from garrison.engines.llama_preset import option_name

__all__ = ["MOST_MODELS", "RouterModel", "is_router", "models_of"]

MOST_MODELS = 1000
"""Models of one router that are listed; requests may name more."""
_EXTRA = "extra_args"
_PLACES = frozenset({"models_preset", "models_dir"})
_OWN_MODEL = frozenset({"model", "m", "model_url", "mu", "hf_repo", "hf", "hfr", "docker_repo", "dr"})
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class RouterModel:
    """A model of a router.

    Attributes:
        id: the name that requests to the router use.
        status: `unloaded`, `loading`, `loaded`, `sleeping` or `failed`.
        aliases: further names that requests may use.
        exit_code: of its process, where it failed.
        reason: why it failed, as far as that is known.
    """

    id: str
    status: str = "unloaded"
    aliases: tuple[str, ...] = ()
    exit_code: int | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """As llama-server has it, with the reason as `error` beside `failed`; `models_of` reads it."""
        if self.status != "failed":
            return {"id": self.id, "status": {"value": self.status}}
        status: dict[str, Any] = {"value": "unloaded", "failed": True}
        if self.exit_code is not None:
            status["exit_code"] = self.exit_code
        return {"id": self.id, "status": status | ({"error": self.reason} if self.reason else {})}


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
    given = {option_name(key) for key, value in every.items() if value not in (None, "", False)}
    return not given & _OWN_MODEL and (preset or bool(given & _PLACES))


def models_of(listed: Any) -> tuple[RouterModel, ...] | None:
    """Return the models of a list in JSON, or of the body of an answer with one, at most `MOST_MODELS`; None if it is
    neither."""
    if isinstance(listed, bytes):
        try:
            listed = json.loads(listed)
        except (ValueError, RecursionError):
            return None
        listed = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(listed, list):
        return None
    found: dict[str, RouterModel] = {}
    for one in listed:
        name = one.get("id") if isinstance(one, dict) else None
        if isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and name.isprintable():
            found.setdefault(name, _model(name, one.get("aliases"), one.get("status")))
        if len(found) == MOST_MODELS:
            break
    return tuple(found.values())


def _model(name: str, aliases: Any, told: Any) -> RouterModel:
    others = tuple(one for one in aliases if isinstance(one, str)) if isinstance(aliases, list) else ()
    status = told if isinstance(told, dict) else {}
    if status.get("failed") is True:
        code, reason = status.get("exit_code"), status.get("error")
        return RouterModel(
            name, "failed", others, code if isinstance(code, int) else None, reason if isinstance(reason, str) else ""
        )
    value = status.get("value")
    return RouterModel(name, value if value in ("loading", "loaded", "sleeping") else "unloaded", others)
