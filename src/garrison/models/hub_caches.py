"""Where this user's Hugging Face caches are, and whether the hub may be asked: by the variables of its libraries."""

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["offline_variable", "user_hub_caches"]

# Each names a directory of repositories (`models--ORG--NAME`). Later ones are older.
_CACHES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
_CACHES_OF_TRANSFORMERS = ("TRANSFORMERS_CACHE", "PYTORCH_TRANSFORMERS_CACHE", "PYTORCH_PRETRAINED_BERT_CACHE")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TRUE = ("1", "true", "yes", "on")


def user_hub_caches(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """The directories in which models of the hub are kept: that of huggingface_hub first, then those of transformers
    before its version 5, where they were moved."""
    home = environ.get("HF_HOME") or f"{environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    moved = next((environ[name] for name in _CACHES if environ.get(name)), f"{home}/hub")
    older = (environ[name] for name in _CACHES_OF_TRANSFORMERS if environ.get(name))
    found = (_expanded(text) for text in (moved, *older))
    return tuple(dict.fromkeys(path for path in found if path is not None))


def offline_variable(environ: Mapping[str, str]) -> str | None:
    """The variable by which the user keeps Hugging Face's libraries off the network; None without one."""
    name = next((name for name in _OFFLINE if environ.get(name)), None)
    return name if name is not None and environ[name].strip().lower() in _TRUE else None


def _expanded(text: str) -> Path | None:
    """The path, with `~` and variables; None if there is no home to put for `~`."""
    path = os.path.expandvars(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises without a home
    return None if path.startswith("~") else Path(path).absolute()
