"""Which GGUF files of a repository make up one model, by the rules of llama.cpp's `-hf ORG/NAME:QUANTIZATION`. Pure."""

import re
from collections.abc import Iterable, Sequence

from garrison.base.errors import InvalidError
from garrison.models.shards import ShardName

__all__ = ["choose_gguf", "gguf_models", "model_files", "projector_for", "require_first_part"]

_USUAL = ("Q4_K_M", "Q8_0")
# Beside models: projectors, importance matrices, draft models.
_SIDECARS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
_TAG = re.compile(r"[-.]([A-Za-z0-9_]+)\Z")
_BITS = re.compile(r"\d{1,3}")


def gguf_models(names: Iterable[str]) -> list[str]:
    """The models among `names`, sorted; of a split one the first part."""
    return [name for name in sorted(names) if _is_model(name)]


def choose_gguf(names: Iterable[str], quantization: str, repo: str) -> str:
    """Choose the file of a quantization among the names in a repository; of a split one, the first part.

    Without a quantization it is Q4_K_M, else Q8_0, else the first by name.

    Raises:
        InvalidError: there is no such file. Details: `files`, those that there are.
    """
    found = gguf_models(names)
    for wanted in (quantization,) if quantization else _USUAL:
        if matching := [name for name in found if _is_of(name, wanted)]:
            return matching[0]
    if found and not quantization:
        return found[0]
    what = f"GGUF file of {quantization}" if quantization else "GGUF file"
    raise InvalidError(
        f"{repo} has no {what}",
        hint=f"It has {', '.join(found[:20])}." if found else "Name a repository with GGUF files, or another format.",
        details={"files": found[:100]},
    )


def model_files(names: Iterable[str], file: str) -> list[str]:
    """The files of the model whose first or only one is `file`, and its projector, sorted; none without `file`.

    Raises:
        InvalidError: `file` is a later part of a split model.
    """
    present = set(names)
    require_first_part(file)
    if file not in present:
        return []
    shard = ShardName.parse(file)
    parts = {name for name in present if shard and (other := ShardName.parse(name)) and other.of == shard.of} | {file}
    projector = projector_for(sorted(present), file)
    return sorted(parts | ({projector} if projector else set()))


def projector_for(names: Sequence[str], model: str) -> str | None:
    """The projector of `model`, which lets it see or hear: in its directory or in one above, the deepest one first;
    there the one whose quantization is closest."""
    directory = model.split("/")[:-1]

    def rank(name: str) -> tuple[int, int]:
        return -name.count("/"), abs(_bits(name) - _bits(model))

    candidates = [
        name
        for name in names
        if name.endswith(".gguf") and "mmproj" in _own(name) and directory[: name.count("/")] == name.split("/")[:-1]
    ]
    return min(candidates, key=rank, default=None) if "mmproj" not in _own(model) else None


def require_first_part(file: str) -> None:
    """Raise InvalidError if `file` is a later part of a split model."""
    shard = ShardName.parse(file)
    if shard is not None and file.endswith(".gguf") and shard.number != 1:
        raise InvalidError(
            f"{file} is part {shard.number} of a model of {int(shard.of.total)} files",
            hint=f"Name its first part, {shard.of.first}: it brings the others.",
        )


def _is_model(name: str) -> bool:
    shard = ShardName.parse(name)
    first = shard is None or shard.number == 1
    return name.endswith(".gguf") and first and not any(word in _own(name) for word in _SIDECARS)


def _is_of(name: str, quantization: str) -> bool:
    # llama.cpp takes F16 for the end of BF16, and Q4_K_M for that of IQ4_K_M; nobody means that.
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(quantization)}[-./]", name, re.IGNORECASE) is not None


def _bits(name: str) -> int:
    """16 of `m-F16.gguf`, 4 of `m-Q4_K_M-00001-of-00002.gguf`; 0 if the name does not tell."""
    shard = ShardName.parse(name)
    tag = _TAG.search(shard.of.stem if shard else name.removesuffix(".gguf"))
    digits = _BITS.search(tag[1]) if tag else None
    return int(digits[0]) if digits else 0


def _own(name: str) -> str:
    return name[name.rfind("/") + 1 :].lower()
