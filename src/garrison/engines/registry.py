"""Engines by name. Each module is imported on demand."""

from importlib import import_module
from typing import cast

from garrison.base.errors import InvalidError
from garrison.engines.engine import Engine

__all__ = ["engine", "names"]

_CLASSES = {
    "vllm": "Vllm",
    "llama_cpp": "LlamaCpp",
    "mlx_lm": "MlxLm",
    "sim": "Sim",
}
_ALSO_KNOWN_AS = {"llama.cpp": "llama_cpp", "llamacpp": "llama_cpp", "llama": "llama_cpp", "mlx": "mlx_lm"}


def names() -> tuple[str, ...]:
    """The names of the engines that can be installed or ship with Garrison, the most used first. `custom`, which any
    program can be, is not among them."""
    return tuple(_CLASSES)


def engine(name: str) -> Engine:
    """Return the engine called `name`; `-` counts as `_`, since llamactl's paths say `llama-cpp`.

    Raises:
        InvalidError: there is none; the hint names the closest.
    """
    wanted = name.replace("-", "_").lower()
    wanted = _ALSO_KNOWN_AS.get(wanted, wanted)
    if wanted == "custom":
        from garrison.engines.custom import Custom

        return Custom()
    if wanted not in _CLASSES:
        import difflib  # lazily: only needed after a typo

        close = difflib.get_close_matches(wanted, [*_CLASSES, *_ALSO_KNOWN_AS], 1)
        hint = f"Did you mean {_ALSO_KNOWN_AS.get(close[0], close[0])}?" if close else "Engines: " + ", ".join(_CLASSES)
        raise InvalidError(f"there is no engine {name!r}", hint=hint, details={"engine": name, "known": list(_CLASSES)})
    made = getattr(import_module(f"garrison.engines.{wanted}"), _CLASSES[wanted])()
    return cast("Engine", made)
