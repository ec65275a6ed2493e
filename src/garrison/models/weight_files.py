"""Which files of a model hold the weights that an engine loads, and what else lies beside them. Pure.

Engines load safetensors before PyTorch before GGUF. An index that is complete is the truth: what it does not name is
not loaded, and does no harm. Only without an index do the numbers in the names of shards say whether one is missing.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from garrison.models.files.problem import Problem
from garrison.models.shards import shard_sets

__all__ = ["Index", "WeightFiles", "WeightFormat", "choose_consolidated", "choose_weights", "format_of"]

WeightFormat = Literal["safetensors", "pytorch", "gguf"]

_SUFFIXES: dict[str, WeightFormat] = {
    ".safetensors": "safetensors",
    ".bin": "pytorch",
    ".pt": "pytorch",
    ".pth": "pytorch",
    ".gguf": "gguf",
}
_LOAD_ORDER: tuple[WeightFormat, ...] = ("safetensors", "pytorch", "gguf")
_ENGINES_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
# Files that trainers leave beside the weights, with a suffix of weights. Engines skip them too.
_NO_WEIGHTS = {"training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"}
_NO_WEIGHTS_START = ("rng_state", "adapter_model.")
_MOST_REMARKS = 3


@dataclass(frozen=True, slots=True)
class Index:
    """A `*.index.json`: its name in the directory and its weight map, tensor to file."""

    name: str
    weight_map: Mapping[str, str]

    @property
    def files(self) -> list[str]:
        return sorted(set(self.weight_map.values()))

    def missing(self, present: Collection[str]) -> list[str]:
        return [name for name in self.files if name not in present]


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """Attributes:
    names: what is loaded, sorted.
    spare: further files of the format at the root, sorted; not loaded.
    index: the one that names them; None without one.
    remarks: what else was noticed, a sentence each.
    """

    format: WeightFormat
    names: tuple[str, ...]
    spare: tuple[str, ...] = ()
    index: Index | None = None
    remarks: tuple[str, ...] = field(default=(), compare=False)


def choose_weights(path: Path, files: Collection[str], indexes: Iterable[Index]) -> WeightFiles | Problem:
    """Choose among the `files` of the model in `path`, names with `/`."""
    indexes = sorted(indexes, key=_precedence)
    at_root = [name for name in sorted(files) if "/" not in name]
    for wanted in _LOAD_ORDER:
        present = [name for name in at_root if format_of(name) == wanted]
        mine = [index for index in indexes if _format_of_index(index) == wanted and not _is_a_second(index, present)]
        # An index without any of its shards is left over from a download of another format.
        if present or any(file in files for index in mine for file in index.files):
            found = _of_format(path, wanted, present, mine, files)
            return found if isinstance(found, Problem) else _with_remarks(found, at_root)
    if indexes and (named := indexes[0].files):
        return Problem(str(path / named[0]), f"is missing; {indexes[0].name} names it" + _more(named))
    if any(name.startswith("adapter_model.") for name in files):
        return Problem(str(path), "is a LoRA adapter, not a model", "Import it with `garrison adapters import`.")
    return Problem(str(path), "has no weight files (.safetensors, .bin, .pt, .pth, .gguf)")


def choose_consolidated(path: Path, files: Collection[str], indexes: Iterable[Index]) -> WeightFiles | Problem | None:
    """The weights in Mistral's own layout, `consolidated*.safetensors`; None if there are none."""
    present = [name for name in sorted(files) if name.startswith("consolidated") and name.endswith(".safetensors")]
    mine = [index for index in indexes if index.name == "consolidated.safetensors.index.json"]
    if not present and not mine:
        return None
    return _of_format(path, "safetensors", present, mine, files)


def format_of(name: str) -> WeightFormat | None:
    if name in _NO_WEIGHTS or name.startswith(_NO_WEIGHTS_START):
        return None
    return _SUFFIXES.get(name[name.rfind(".") :])


def _of_format(
    path: Path, wanted: WeightFormat, present: list[str], indexes: list[Index], files: Collection[str]
) -> WeightFiles | Problem:
    for index in indexes:
        missing = index.missing(files)
        if not missing:
            spare = tuple(name for name in present if name not in index.files)
            return WeightFiles(wanted, tuple(index.files), spare, index)
        # An index that no engine reads, and none of whose files are here, says nothing.
        if index.name in _ENGINES_INDEXES or len(missing) < len(index.files):
            return Problem(str(path / missing[0]), f"is missing; {index.name} names it" + _more(missing))
    return _by_numbers(path, wanted, present)


def _by_numbers(path: Path, wanted: WeightFormat, present: list[str]) -> WeightFiles | Problem:
    """Without an index: every file is loaded, and shards are missing where numbers are."""
    sets = shard_sets(present)
    partial = {one: missing for one in sets if (missing := one.missing(present))}
    numbered = {name for names in sets.values() for name in names}
    whole = len(partial) < len(sets) or any(_is_whole_model(name, wanted) for name in present if name not in numbered)
    if partial and not whole:
        missing = min(partial.values())
        return Problem(str(path / missing[0]), "is missing from its set of shards" + _more(missing))
    stray = {name for one in partial for name in sets[one]}
    names = tuple(name for name in present if name not in stray)
    return WeightFiles(wanted, names, tuple(sorted(stray)))


def _is_whole_model(name: str, wanted: WeightFormat) -> bool:
    if wanted == "gguf":
        return "mmproj" not in name
    return name.startswith(("model.", "pytorch_model."))


def _with_remarks(found: WeightFiles, at_root: list[str]) -> WeightFiles:
    where = f"{found.index.name} does not name it" if found.index else "its set of shards is incomplete"
    unused = [name for name in found.spare if not name.startswith("consolidated")]
    remarks = [f"{name} is not loaded: {where}" for name in unused[:_MOST_REMARKS]]
    if (left := len(unused) - _MOST_REMARKS) > 0:
        remarks.append(f"{left} more weight files are not loaded")
    if copies := [name for name in found.spare if name not in unused]:
        remarks.append(f"{copies[0]}{_more(copies)} holds the weights again, as Mistral writes them; vLLM loads these")
    others = [name for name in at_root if format_of(name) not in (None, found.format)]
    if others:
        remarks.append(f"{others[0]}{_more(others)} is not loaded: the {found.format} files are")
    return WeightFiles(found.format, found.names, found.spare, found.index, tuple(remarks))


def _is_a_second(index: Index, present: list[str]) -> bool:
    """Whether it names Mistral's copy of weights that are here in the usual layout too."""
    return index.name.startswith("consolidated") and any(not name.startswith("consolidated") for name in present)


def _precedence(index: Index) -> tuple[bool, int, str]:
    """Those that engines look for come first."""
    return index.name not in _ENGINES_INDEXES, len(index.name), index.name


def _format_of_index(index: Index) -> WeightFormat | None:
    return next((found for file in index.weight_map.values() if (found := format_of(file))), None)


def _more(missing: list[str]) -> str:
    return f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
