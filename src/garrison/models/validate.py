"""Whether a directory is a whole model: config, tokenizer, weight shards. Names and sizes only, no weights are read.

`judge` is pure; `check_model` and `validate_model` read the disk.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from garrison.base.beneath import OutsideError, Tree
from garrison.base.errors import ModelInvalidError
from garrison.models.files.content import is_file, json_object, unreadable
from garrison.models.files.problem import Problem
from garrison.models.shards import ShardName
from garrison.models.tokenizers import find_tokenizer
from garrison.models.weight_files import Index, WeightFiles, WeightFormat, choose_consolidated, choose_weights

__all__ = [
    "PARAMS_NAME",
    "Index",
    "ModelFiles",
    "WeightFormat",
    "check_model",
    "gguf_parts",
    "judge",
    "list_files",
    "validate_model",
]

PARAMS_NAME = "params.json"
"""The config in Mistral's own layout, beside `consolidated*.safetensors`. vLLM reads it."""

_GGUF = ".gguf"
_RENAME = f"Rename it to end in {_GGUF}, in lower case."
_MAX_DEPTH = 8
_MAX_FILES = 100_000  # also bounds a tree whose links branch


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a whole model.

    Attributes:
        path: the directory, or the file when the model is a GGUF: the first one if it is split.
        config: config.json, or Mistral's params.json; None for a GGUF without one beside it, since it is inside.
        weights: what an engine loads, in order of name.
        spare: further weight files of the same format at the root, such as `consolidated.safetensors` beside shards.
        bytes: of `weights`.
        weight_map: tensor to file, from the index that is used; empty without one.
        remarks: what was noticed and does no harm, a sentence each.
    """

    path: Path
    config: Path | None
    weights: tuple[Path, ...]
    bytes: int
    format: WeightFormat
    spare: tuple[Path, ...] = ()
    index: Path | None = None
    weight_map: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    remarks: tuple[str, ...] = field(default=(), compare=False)


def validate_model(
    path: Path, *, skip_tokenizer: bool = False, allow_gguf: bool = False, tree: Tree | None = None
) -> ModelFiles:
    """The files of the model in `path`.

    Args:
        skip_tokenizer: accept a model without tokenizer files.
        allow_gguf: accept a GGUF file, or a directory with one and nothing else: config and tokenizer are inside it.
        tree: as in `content.open_file`.

    Raises:
        ModelInvalidError: a check failed; the message names the file.
    """
    verdict = check_model(path, skip_tokenizer=skip_tokenizer, allow_gguf=allow_gguf, tree=tree)
    if isinstance(verdict, Problem):
        raise verdict.error()
    return verdict


def check_model(
    path: Path, *, skip_tokenizer: bool = False, allow_gguf: bool = False, tree: Tree | None = None
) -> ModelFiles | Problem:
    """As `validate_model`, but return the fault, for callers that try another candidate."""
    try:
        if is_file(path):
            return _gguf_file(path, allow_gguf)
        files = list_files(path, depth=1, tree=tree)
        for name in ("config.json", PARAMS_NAME):
            if name in files:
                json_object(path / name, tree)
                files = list_files(path, tree=tree)
        indexes = [read_index(path, name, tree) for name in sorted(files) if _is_index(name)]
    except ModelInvalidError as error:
        return _as_problem(error)
    return judge(path, files, indexes, skip_tokenizer=skip_tokenizer, allow_gguf=allow_gguf)


def judge(
    path: Path,
    files: Mapping[str, int],
    indexes: Iterable[Index],
    *,
    skip_tokenizer: bool = False,
    allow_gguf: bool = False,
) -> ModelFiles | Problem:
    """The verdict on a listing (relative name to bytes) and its indexes. Pure."""
    indexes = list(indexes)
    weights = choose_weights(path, files, indexes)
    if allow_gguf and _is_gguf(weights):
        return weights if isinstance(weights, Problem) else _model_files(path, files, weights, None)
    config = "config.json" if "config.json" in files else None
    if PARAMS_NAME in files and (config is None or isinstance(weights, Problem)):
        consolidated = choose_consolidated(path, files, indexes)
        if consolidated is not None:
            config, weights = PARAMS_NAME, consolidated
    if config is None and _ADAPTER_CONFIG in files:
        return Problem(str(path), "is a LoRA adapter, not a model", _ADAPTER_HINT)
    if config is None:
        if others := [name for name in files if not name.endswith(_GGUF) and name.lower().endswith(_GGUF)]:
            return Problem(str(path / min(others)), f"does not end in {_GGUF}", _RENAME)
        return Problem(str(path / "config.json"), "is missing", _config_hint(weights))
    tokenizer = find_tokenizer(files)
    if tokenizer is None and not skip_tokenizer:
        return Problem(
            str(path),
            "has no tokenizer files (tokenizer.json, tokenizer.model, vocab.json with merges.txt, …)",
            "Copy them beside config.json, or skip the check: GARRISON_SKIP_TOKENIZER_CHECK=1.",
        )
    if isinstance(weights, Problem):
        return weights
    return _model_files(path, files, weights, config, _tokenizer_remarks(tokenizer))


def list_files(path: Path, *, depth: int = _MAX_DEPTH, tree: Tree | None = None) -> dict[str, int]:
    """Relative name, with `/`, to bytes, of the regular files under `path`. `tree` as in `content.open_file`.

    Skipped: hidden names, dangling links, links to a directory that contains them, and whatever is neither a file nor a
    directory. `depth` 1 is the root alone.

    Raises:
        ModelInvalidError: `path` is no directory, one under it cannot be listed, there are too many files, or a link
            leads out of the tree.
    """
    found: dict[str, int] = {}
    _scan(path, "", depth, found, tree, frozenset())
    return found


def read_index(path: Path, name: str, tree: Tree | None = None) -> Index:
    """The weight map of the index `name`. Every file name in it is checked to stay inside the model.

    Raises:
        ModelInvalidError: not JSON of the right form, or a name that leads out of the directory.
    """
    weight_map = json_object(path / name, tree).get("weight_map")
    if not isinstance(weight_map, dict) or not all(type(file) is str for file in weight_map.values()):
        raise Problem(str(path / name), "has no weight_map from tensors to files").error()
    for file in set(weight_map.values()):
        if not _stays_inside(file):
            raise Problem(
                str(path / name),
                f"names {file!r}, which leads out of the model's directory",
                "Do not use this model: get it from a source you trust.",
            ).error()
    return Index(name, weight_map)


def gguf_parts(path: Path) -> list[Path] | Problem:
    """The files of a GGUF model whose first or only file is `path`; or what is wrong with them. Looks at the disk."""
    shard = ShardName.parse(path.name)
    if shard is None:
        return [path]
    if shard.number != 1:
        what = f"is part {shard.number} of a model of {int(shard.of.total)} files"
        return Problem(str(path), what, f"Name its first part, {shard.of.first}: engines find the others by its name.")
    parts = [path.with_name(name) for name in shard.of.names(())]
    if missing := [part for part in parts if not is_file(part)]:
        what = f"is missing: {path.name} is the first of {len(parts)} files of one model" + _more(missing)
        return Problem(str(missing[0]), what)
    return parts


def _gguf_file(path: Path, allow_gguf: bool) -> ModelFiles | Problem:
    if path.suffix != _GGUF and path.suffix.lower() == _GGUF:
        return Problem(str(path), f"does not end in {_GGUF}", _RENAME)
    if path.suffix != _GGUF or not allow_gguf:
        return Problem(str(path), "is a file, not a model directory", "Give the directory that holds config.json.")
    parts = gguf_parts(path)
    if isinstance(parts, Problem):
        return parts
    return ModelFiles(path, None, tuple(parts), sum(part.stat().st_size for part in parts), "gguf")


def _is_gguf(weights: WeightFiles | Problem) -> bool:
    return weights.format == "gguf" if isinstance(weights, WeightFiles) else weights.file.endswith(".gguf")


def _model_files(
    path: Path, files: Mapping[str, int], weights: WeightFiles, config: str | None, remarks: tuple[str, ...] = ()
) -> ModelFiles:
    config = config or ("config.json" if "config.json" in files else None)
    return ModelFiles(
        path=path,
        config=path / config if config else None,
        weights=tuple(path / name for name in weights.names),
        bytes=sum(files[name] for name in weights.names),
        format=weights.format,
        spare=tuple(path / name for name in weights.spare),
        index=path / weights.index.name if weights.index else None,
        weight_map=weights.index.weight_map if weights.index else {},
        remarks=(*remarks, *weights.remarks),
    )


def _tokenizer_remarks(tokenizer: tuple[str, str] | None) -> tuple[str, ...]:
    if tokenizer is None or tokenizer[0] == "known":
        return ()
    return (f"its tokenizer may be {tokenizer[1]}, a kind that Garrison does not know; the engine decides",)


def _is_index(name: str) -> bool:
    return "/" not in name and name.endswith(".index.json")


def _stays_inside(file: str) -> bool:
    parts = file.split("/")
    return bool(file) and "\0" not in file and "\\" not in file and not any(part in ("", ".", "..") for part in parts)


def _scan(
    directory: Path,
    prefix: str,
    depth: int,
    found: dict[str, int],
    tree: Tree | None,
    above: frozenset[tuple[int, int]],
) -> None:
    """`above`: the directories on the way here. One that occurs again is a loop of links, and its files are already
    listed; without this check a copy would hold the model once for each turn."""
    try:
        here = _identity(directory, prefix, tree)
        if here in above:
            return
        for name, kind, size in _entries(directory) if tree is None else _entries_below(tree, prefix):
            if kind == "file":
                found[prefix + name] = size
                if len(found) > _MAX_FILES:
                    raise Problem(str(directory), f"contains more than {_MAX_FILES} files", "Is it a model?").error()
            elif depth > 1:
                _scan(directory / name, f"{prefix}{name}/", depth - 1, found, tree, above | {here})
    except OutsideError as error:
        raise unreadable(directory, error) from None
    except NotADirectoryError:
        raise Problem(str(directory), "is not a directory").error() from None
    except FileNotFoundError:
        raise Problem(str(directory), "does not exist").error() from None
    except OSError as error:
        raise Problem(str(directory), f"cannot be listed: {error.strerror}", "Make it readable.").error() from None


def _identity(directory: Path, prefix: str, tree: Tree | None) -> tuple[int, int]:
    if tree is None:
        status = directory.stat()
    else:
        descriptor = tree.open_directory(prefix.rstrip("/"))
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    return status.st_dev, status.st_ino


def _entries(directory: Path) -> Iterator[tuple[str, str, int]]:
    """Name, kind and bytes of files and directories, links followed."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_file():
                    yield entry.name, "file", entry.stat().st_size
                elif entry.is_dir():
                    yield entry.name, "directory", 0
            except FileNotFoundError:
                continue  # a dangling link


def _entries_below(tree: Tree, prefix: str) -> Iterator[tuple[str, str, int]]:
    for entry in tree.scan(prefix.rstrip("/")):
        yield entry.name, entry.kind, entry.bytes


def _more(missing: Sequence[object]) -> str:
    return f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""


_ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_HINT = (
    "Serve it with its base model: garrison serve MODEL --adapter NAME=DIR. "
    "`garrison adapters import DIR` keeps a copy."
)


def _config_hint(weights: WeightFiles | Problem) -> str:
    if isinstance(weights, WeightFiles) and weights.format == "gguf":
        return "A GGUF without config.json is for llama.cpp: `garrison serve --engine llama_cpp`."
    return "Give the directory that holds config.json, or copy the file into it."


def _as_problem(error: ModelInvalidError) -> Problem:
    return Problem(error.details["file"], error.details["reason"], error.hint or "")
