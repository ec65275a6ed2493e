"""vLLM's `--config FILE`: its keys are flags, which vLLM puts before those on the command line."""

import json
import os
import stat
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from garrison.base.errors import InvalidError

__all__ = ["config_args", "config_file", "read_config"]

_MOST_BYTES = 1024 * 1024


def config_file(args: Sequence[str]) -> str | None:
    """The file that `--config` names. vLLM looks for that exact word: `--config=FILE` is accepted, but not read.

    Raises:
        InvalidError: it is given twice, which vLLM refuses.
    """
    if "--config" not in args:
        return None
    if list(args).count("--config") > 1:
        raise InvalidError("--config is given twice, and vLLM takes one config file", hint="Leave one out.")
    place = args.index("--config") + 1
    return args[place] if place < len(args) else None


def read_config(path: str, known: Collection[str]) -> tuple[str, ...]:
    """The file as arguments.

    Args:
        known: every spelling of vLLM's flags.

    Raises:
        InvalidError: it cannot be read, or is not a YAML mapping; vLLM would not start with it.
    """
    if not path.endswith((".yaml", ".yml")):
        raise InvalidError(f"vLLM's config file {path} must end in .yaml or .yml", hint="Rename the file.")
    from garrison.base.documents import read_document

    content = read_document(_text(path), path).content
    if not isinstance(content, dict):
        raise InvalidError(
            f"vLLM's config file {path} contains no `flag: value` lines",
            hint="Write one flag per line, without dashes: `max-model-len: 4096`.",
        )
    return config_args(content, known)


def config_args(content: Mapping[Any, Any], known: Collection[str]) -> tuple[str, ...]:
    """Flatten the file as vLLM's parser does: true is a flag, false its negation if there is one, a list several
    words."""
    args: list[str] = []
    for key, value in content.items():
        match value:
            case True:
                args.append(f"--{key}")
            case False:
                args += [f"--no-{key}"] if f"--no-{key}" in known else []
            case list():
                args += [f"--{key}", *map(str, value)] if value else []
            case dict():
                args += [f"--{key}", json.dumps(value, default=str)]
            case _:
                args += [f"--{key}", str(value)]
    return tuple(args)


def _text(path: str) -> str:
    hint = "Give --config a readable YAML file."
    try:
        descriptor = os.open(Path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InvalidError(f"vLLM's config file {path} is not a regular file", hint=hint)
            content = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InvalidError(
            f"vLLM's config file {path} cannot be read: {getattr(error, 'strerror', None) or error}", hint=hint
        ) from None
    if len(content) > _MOST_BYTES:
        raise InvalidError(f"vLLM's config file {path} is larger than 1 MiB", hint=hint)
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise InvalidError(f"vLLM's config file {path} is not UTF-8 text", hint=hint) from None
