"""Whether a directory is a whole model: config, tokenizer, weight shards. Names and sizes only, no weights are read.

The weights that count are those that an engine would load, safetensors before PyTorch before GGUF, so that a
`pytorch_model.bin.index.json` that was downloaded without its shards does no harm. `judge` is pure; `check_model` and
`validate_model` read the disk.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from garrison.base.beneath import OutsideError, Tree
from garrison.base.errors import ModelInvalidError
from garrison.models.files.content import is_file, json_object, unreadable
from garrison.models.files.problem import Problem

__all__ = ["Index", "ModelFiles", "WeightFormat", "check_model", "judge", "list_files", "validate_model"]

WeightFormat = Literal["safetensors", "pytorch", "gguf"]

_SUFFIXES: dict[str, WeightFormat] = {
    ".safetensors": "safetensors",
    ".bin": "pytorch",
    ".pt": "pytorch",
    ".pth": "pytorch",
    ".gguf": "gguf",
}
_LOAD_ORDER: tuple[WeightFormat, ...] = ("safetensors", "pytorch", "gguf")
_SHARD = re.compile(
    r"(?P<stem>.+)-(?P<number>\d{5,})-of-(?P<total>\d{5,})(?P<suffix>\.(?:safetensors|bin|pt|pth|gguf))"
)
_MAX_SHARDS = 10_000
# Files that trainers leave beside the weights, with a suffix of weights. Engines skip them too.
_NO_WEIGHTS = {"training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"}
_NO_WEIGHTS_START = ("rng_state", "adapter_model.")

_TOKENIZER_DIRS = ("", "tokenizer/", "tokenizer_files/")
_TOKENIZER_SETS = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("spiece.model",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
    ("tokenizer_config.json", "vocab.json"),
    ("tokenizer_config.json", "vocab.txt"),
    # Mistral's own format, and tiktoken's as Kimi ships it.
    ("tekken.json",),
    ("tiktoken.model",),
)
_MAX_DEPTH = 8
_MAX_FILES = 100_000  # also bounds a tree whose links branch


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a whole model.

    Attributes:
        path: the directory, or the file when the model is a single GGUF.
        config: None for a GGUF without one beside it; it is inside the file.
        weights: what an engine loads, in order of name.
        spare: further weight files of the same format at the root, such as `consolidated.safetensors` beside shards.
        bytes: of `weights`.
        weight_map: tensor to file, from the index that is used; empty without one.
    """

    path: Path
    config: Path | None
    weights: tuple[Path, ...]
    bytes: int
    format: WeightFormat
    spare: tuple[Path, ...] = ()
    index: Path | None = None
    weight_map: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Index:
    """A `*.index.json`: its name in the directory and its weight map, tensor to file."""

    name: str
    weight_map: Mapping[str, str]


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
            return _single_file(path, allow_gguf)
        files = list_files(path, depth=1, tree=tree)
        if "config.json" in files:
            json_object(path / "config.json", tree)
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
    weights = _choose_weights(path, files, indexes)
    if allow_gguf and _is_gguf(weights):
        return weights
    if "config.json" not in files:
        return Problem(str(path / "config.json"), "is missing", _config_hint(weights))
    if not skip_tokenizer and not _has_tokenizer(files):
        return Problem(
            str(path),
            "has no tokenizer files (tokenizer.json, tokenizer.model, vocab.json with merges.txt, …)",
            "Copy them beside config.json, or skip the check: GARRISON_SKIP_TOKENIZER_CHECK=1.",
        )
    return weights


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


def _single_file(path: Path, allow_gguf: bool) -> ModelFiles | Problem:
    if path.suffix != ".gguf" or not allow_gguf:
        return Problem(str(path), "is a file, not a model directory", "Give the directory that holds config.json.")
    return ModelFiles(path, None, (path,), path.stat().st_size, "gguf")


def _choose_weights(path: Path, files: Mapping[str, int], indexes: Iterable[Index]) -> ModelFiles | Problem:
    indexes = list(indexes)
    for wanted in _LOAD_ORDER:
        present = [name for name in sorted(files) if "/" not in name and _format(name) == wanted]
        mine = [index for index in indexes if _index_format(index) == wanted]
        # An index without any of its shards is left over from a download of another format.
        used = [index for index in mine if any(file in files for file in index.weight_map.values())]
        if not present and not used:
            continue
        for index in used or mine:
            if missing := sorted(file for file in set(index.weight_map.values()) if file not in files):
                return Problem(str(path / missing[0]), f"is missing; {index.name} names it" + _more(missing))
        if missing := _missing_shards(present):
            return Problem(str(path / missing[0]), "is missing from its set of shards" + _more(missing))
        index_used = min(used, key=_precedence, default=None)
        return _model_files(path, files, wanted, present, index_used)
    if indexes and (named := sorted(set(indexes[0].weight_map.values()))):
        return Problem(str(path / named[0]), f"is missing; {indexes[0].name} names it" + _more(named))
    if any(name.startswith("adapter_model.") for name in files):
        return Problem(str(path), "is a LoRA adapter, not a model", "Import it with `garrison adapters import`.")
    return Problem(str(path), "has no weight files (.safetensors, .bin, .pt, .pth, .gguf)")


def _is_gguf(weights: ModelFiles | Problem) -> bool:
    return weights.format == "gguf" if isinstance(weights, ModelFiles) else weights.file.endswith(".gguf")


def _precedence(index: Index) -> tuple[int, str]:
    """Engines look for `model.safetensors.index.json`; others have longer names."""
    return len(index.name), index.name


def _model_files(
    path: Path, files: Mapping[str, int], wanted: WeightFormat, present: list[str], index: Index | None
) -> ModelFiles:
    names = sorted(set(index.weight_map.values())) if index else present
    return ModelFiles(
        path=path,
        config=path / "config.json" if "config.json" in files else None,
        weights=tuple(path / name for name in names),
        bytes=sum(files[name] for name in names),
        format=wanted,
        spare=tuple(path / name for name in present if name not in names),
        index=path / index.name if index else None,
        weight_map=index.weight_map if index else {},
    )


def _missing_shards(present: list[str]) -> list[str]:
    """The missing names of each set `-00001-of-NNNNN`, in order."""
    missing: list[str] = []
    sets = {(m["stem"], len(m["number"]), m["total"], m["suffix"]) for name in present if (m := _SHARD.fullmatch(name))}
    for stem, width, total, suffix in sorted(sets):
        for number in range(1, min(int(total), _MAX_SHARDS) + 1):
            name = f"{stem}-{number:0{width}d}-of-{total}{suffix}"
            if name not in present:
                missing.append(name)
    return missing


def _format(name: str) -> WeightFormat | None:
    if name in _NO_WEIGHTS or name.startswith(_NO_WEIGHTS_START):
        return None
    return _SUFFIXES.get(name[name.rfind(".") :])


def _index_format(index: Index) -> WeightFormat | None:
    return next((found for file in index.weight_map.values() if (found := _format(file))), None)


def _is_index(name: str) -> bool:
    return "/" not in name and name.endswith(".index.json")


def _has_tokenizer(files: Mapping[str, int]) -> bool:
    if any(all(place + name in files for name in names) for place in _TOKENIZER_DIRS for names in _TOKENIZER_SETS):
        return True
    # Named after the model, as in the first Qwen models.
    return any(name.endswith(".tiktoken") and name[: name.rfind("/") + 1] in _TOKENIZER_DIRS for name in files)


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


def _more(missing: list[str]) -> str:
    return f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""


def _config_hint(weights: ModelFiles | Problem) -> str:
    if isinstance(weights, ModelFiles) and weights.format == "gguf":
        return "A GGUF without config.json is for llama.cpp: `garrison serve --engine llama_cpp`."
    return "Give the directory that holds config.json, or copy the file into it."


def _as_problem(error: ModelInvalidError) -> Problem:
    return Problem(error.details["file"], error.details["reason"], error.hint or "")
