"""Read and check an adapter in whatever format it has, without its base model."""

from dataclasses import replace
from pathlib import Path

from garrison.base.beneath import Tree
from garrison.base.errors import ModelInvalidError
from garrison.models.adapters.adapter import CONFIG_NAME, MLX_WEIGHTS, PEFT_WEIGHTS, AdapterFormat, AdapterInfo
from garrison.models.adapters.gguf import inspect_gguf, is_gguf_adapter
from garrison.models.adapters.mlx import inspect_mlx
from garrison.models.adapters.peft import inspect_peft
from garrison.models.files.content import file_size, is_file, json_object
from garrison.models.files.problem import Problem
from garrison.models.validate import list_files

__all__ = ["adapter_formats", "inspect_adapter", "inspect_as", "require_no_other"]

_MOST_PLACES = 5
_MLX_KEYS = ("fine_tune_type", "lora_parameters")


def inspect_adapter(path: Path, tree: Tree | None = None) -> AdapterInfo:
    """Read and check the adapter in the directory or GGUF file `path`. `tree` as in `content.open_file`.

    Of a directory that holds several formats, PEFT counts, then MLX, then GGUF.

    Raises:
        ModelInvalidError: not an adapter, or not a whole one. The message names the file.
    """
    formats = adapter_formats(path, tree)
    if not formats:
        require_no_other(path, tree)
    return inspect_as(formats[0] if formats else "peft", path, tree)


def require_no_other(path: Path, tree: Tree | None = None) -> None:
    """Raise ModelInvalidError if a directory that is no adapter is a model, or has adapters in directories below it, as
    a training run leaves them."""
    if _has(path, "config.json", tree):
        hint = "`garrison models import DIR` imports it; an adapter has an adapter_config.json."
        raise Problem(str(path), "is a model, not an adapter", hint).error()
    try:
        names = list_files(path, depth=2, tree=tree)
    except ModelInvalidError:
        return  # what is missing is said next
    places = [place for place, _, own in (name.rpartition("/") for name in names) if place and own == CONFIG_NAME]
    if places:
        places.sort(key=lambda place: (len(place), place))  # of checkpoints the last one trained longest
        what = f"is no adapter itself, and has {len(places)} below it: {', '.join(places[-_MOST_PLACES:])}"
        raise Problem(str(path), what, f"Name one of them, as in {path / places[-1]}.").error()


def inspect_as(format: AdapterFormat, path: Path, tree: Tree | None = None) -> AdapterInfo:
    """As `inspect_adapter`, for one of the `adapter_formats`."""
    if format == "peft":
        return inspect_peft(path, tree)
    if format == "mlx":
        return inspect_mlx(path, tree)
    files = _gguf_adapters(path, tree)
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise Problem(str(path), f"holds {len(files)} GGUF adapters ({names})", "Name the file.").error()
    info = inspect_gguf(files[0] if files else path, tree)
    return info if info.path == path else replace(info, name=path.absolute().name)


def adapter_formats(path: Path, tree: Tree | None = None) -> tuple[AdapterFormat, ...]:
    """The formats that `path` has, by the names of its files; the contents may still be broken.

    Raises:
        ModelInvalidError: `path` does not exist, or cannot be listed.
    """
    if path.suffix == ".gguf" and is_file(path):
        return ("gguf",)
    if tree is None:
        list_files(path, depth=1)  # raises if it is not a directory, or unreadable
    found: list[AdapterFormat] = []
    mlx_config = _is_mlx_config(path, tree)
    if mlx_config is False or any(_has(path, name, tree) for name in PEFT_WEIGHTS):
        found.append("peft")
    if mlx_config or _has(path, MLX_WEIGHTS, tree):
        found.append("mlx")
    if _gguf_adapters(path, tree):
        found.append("gguf")
    return tuple(found)


def _has(path: Path, name: str, tree: Tree | None) -> bool:
    return file_size(path / name, tree) is not None


def _is_mlx_config(path: Path, tree: Tree | None) -> bool | None:
    """Whether the config is of a training run of mlx-lm; None without a config."""
    if not _has(path, CONFIG_NAME, tree):
        return None
    config = json_object(path / CONFIG_NAME, tree)
    return "peft_type" not in config and any(key in config for key in _MLX_KEYS)


def _gguf_adapters(path: Path, tree: Tree | None) -> list[Path]:
    """The GGUF adapters in a directory, or `path` itself."""
    if path.suffix == ".gguf" and is_file(path):
        return [path]
    try:
        names = [name for name in sorted(list_files(path, depth=1, tree=tree)) if name.endswith(".gguf")]
    except ModelInvalidError:
        return []  # some other file is a link that leads out
    return [path / name for name in names if is_gguf_adapter(path / name, tree)]
