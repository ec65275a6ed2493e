"""Select the files of a repository that an engine needs: many hold the same weights in several formats."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence, Set
from fnmatch import fnmatchcase

from garrison.base.errors import InvalidError
from garrison.models.gguf_choice import choose_gguf, gguf_models, model_files
from garrison.models.shards import ShardName, shard_sets

__all__ = ["ReadIndex", "chosen_file", "select_files"]

ReadIndex = Callable[[str], Collection[str] | None]
"""The files that the index of this name lists, relative to its directory; None if it cannot be read."""

_OTHER_ENGINES = ("*.h5", "*.msgpack", "*.ot", "*.onnx", "*.onnx_data", "*.tflite", "*.mlmodel", "*.mlpackage/*")
_OTHER_DIRECTORIES = ("original/", "metal/", "onnx/", "openvino/", "coreml/", "runs/", "checkpoint-", "global_step")
# What a trainer needs to go on.
_TRAINING = ("training_args.bin", "optimizer.*", "scheduler.pt", "scaler.pt", "rng_state*.pth")
_PICKLES = (".bin", ".pt", ".pth")
# A file of the whole model, or of a variant of it, as opposed to a head beside it, such as `sparse_linear.pt`.
_WHOLE = re.compile(r"(?:pytorch_model|model|consolidated|weights)(?:\.\w+)?\.(?:safetensors|bin|pt|pth)")
_INDEX_OF = {".safetensors": "{}.safetensors.index.json", ".bin": "{}.bin.index.json"}
_USUAL_STEMS = ("model", "pytorch_model")


def select_files(
    names: Iterable[str],
    *,
    file: str | None = None,
    patterns: Sequence[str] = (),
    read_index: ReadIndex | None = None,
) -> list[str]:
    """Return the names to fetch, sorted.

    Args:
        file: one GGUF file; all parts of a split one are selected, and its projector.
        patterns: shell patterns that replace the default choice.
        read_index: asked where only an index tells which of two sets of shards is the model's.

    Raises:
        InvalidError: the repository holds only GGUF models, more than one, and `file` names none; or `file` is a later
            part of a split one.
    """
    present = sorted(name for name in names if not _hidden(name))
    if file is not None:
        return model_files(present, file)
    if patterns:
        return [name for name in present if any(fnmatchcase(name, pattern) for pattern in patterns)]
    wanted = [name for name in present if not _for_others(name)]
    safe_places = {_place(name) for name in wanted if name.endswith(".safetensors")}
    wanted = [name for name in wanted if not (_is_whole_pickle(name) and _place(name) in safe_places)]
    if any(re.match(r"model.*\.safetensors\Z", name) for name in wanted):
        wanted = [name for name in wanted if not re.match(r"consolidated.*\.safetensors", name)]
    return _without_spare_gguf(_one_set_each(wanted, read_index))


def chosen_file(names: Iterable[str], file: str | None, quantization: str | None, repo: str) -> str | None:
    """The GGUF file that was asked for, by its name or its quantization; None if none was.

    Raises:
        InvalidError: there is none of that quantization.
    """
    if quantization is None:
        return file
    return choose_gguf([name for name in names if not _hidden(name)], quantization, repo)


def _one_set_each(names: list[str], read_index: ReadIndex | None) -> list[str]:
    """The names without the shards of all sets but one in each directory, and without another copy in one file."""
    dropped: set[str] = set()
    for place, suffix in sorted({(_place(name), _suffix(name)) for name in names if _suffix(name) in _INDEX_OF}):
        here = [name for name in names if _place(name) == place and _suffix(name) == suffix]
        copies = _copies(here)
        if len(copies) > 1:
            kept = _kept(copies, set(names), place, suffix, read_index)
            dropped |= {name for copy in copies for name in copy} - set(kept)
    return [name for name in names if name not in dropped]


def _copies(names: list[str]) -> list[list[str]]:
    """What may be the same weights again: each set of shards, and each single file named like a whole model."""
    sets = [sorted(found) for found in shard_sets(names).values()]
    single = [[name] for name in names if ShardName.parse(name) is None and _WHOLE.fullmatch(_own(name))]
    return sets + single if sets or any(_stem(copy[0]) in _USUAL_STEMS for copy in single) else []


def _kept(
    copies: list[list[str]], names: Set[str], place: str, suffix: str, read_index: ReadIndex | None
) -> Collection[str]:
    prefix = f"{place}/" if place else ""
    index = next((name for stem in _USUAL_STEMS if (name := prefix + _INDEX_OF[suffix].format(stem)) in names), None)
    listed = read_index(index) if index is not None and read_index is not None else None
    if listed and names >= {prefix + name for name in listed}:
        return {prefix + name for name in listed}

    def rank(copy: list[str]) -> tuple[bool, bool, bool, int, list[str]]:
        shard = ShardName.parse(copy[0])
        missing = shard is not None and bool(shard.of.missing(copy))
        # An index is for shards; without one, a single file needs none.
        return missing, _stem(copy[0]) not in _USUAL_STEMS, (shard is None) == (index is not None), len(copy), copy

    return min(copies, key=rank)


def _without_spare_gguf(wanted: list[str]) -> list[str]:
    gguf = [name for name in wanted if name.endswith(".gguf")]
    if any(name.endswith((".safetensors", *_PICKLES)) for name in wanted):
        return [name for name in wanted if name not in gguf]
    models = gguf_models(gguf)
    if len(models) > 1:
        raise InvalidError(
            f"the repository contains {len(models)} GGUF models",
            hint=f"Name one by its quantization, as in ORG/NAME:Q4_K_M, or by its file, as in ORG/NAME/{models[0]}.",
            details={"files": models},
        )
    needed = model_files(gguf, models[0]) if models else gguf
    return [name for name in wanted if name not in gguf or name in needed]


def _hidden(name: str) -> bool:
    # Names that lead out of the directory are not skipped here: staging rejects them with an error.
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def _for_others(name: str) -> bool:
    if name.startswith(_OTHER_DIRECTORIES) or any(fnmatchcase(name, pattern) for pattern in _OTHER_ENGINES):
        return True
    return any(fnmatchcase(_own(name), pattern) for pattern in _TRAINING)


def _is_whole_pickle(name: str) -> bool:
    whole = _WHOLE.fullmatch(_own(name)) is not None or ShardName.parse(name) is not None
    return name.endswith(_PICKLES) and whole


def _suffix(name: str) -> str:
    return name[name.rfind(".") :] if "." in name else ""


def _stem(name: str) -> str:
    shard = ShardName.parse(name)
    return _own(shard.of.stem if shard else name[: name.rfind(".")])


def _place(name: str) -> str:
    return name.rpartition("/")[0]


def _own(name: str) -> str:
    return name[name.rfind("/") + 1 :]
