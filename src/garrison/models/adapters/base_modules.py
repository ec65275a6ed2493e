"""The tensors of a base model, by paths that its checkpoint shares with adapters for it. Pure.

One module has several names: what the files of Gemma 3 call `language_model.model.layers.0.mlp.up_proj` is
`model.language_model.layers.0.mlp.up_proj` in an adapter trained on it, and `model.layers.0.mlp.up_proj` in one trained
on the language model alone. A path leaves out what only nests the language model. The names of towers stay, since the
layers of a vision tower are other modules than those of the language model, with widths and a depth of their own.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Self

__all__ = ["BaseModules", "Shape", "lists_in", "module_path"]

Shape = tuple[int, ...]

_NESTING = frozenset(
    {
        *("model", "language_model", "text_model", "language", "llm", "vlm", "thinker", "transformer"),
        # What Hugging Face's classes with a head put before the names of the same class without one.
        *("gpt_neox", "backbone", "bert", "roberta", "distilbert", "deberta", "electra", "mpnet", "new"),
    }
)
_TOWERS = {
    **dict.fromkeys(("vision_tower", "vision_model", "vision_encoder", "visual", "vision"), "vision"),
    **dict.fromkeys(("audio_tower", "audio_model", "audio_encoder", "audio"), "audio"),
}
_LIST = re.compile(r"(?:(?P<place>.*?)\.)?(?P<rest>[^.]+\.[0-9]+(?:\..*)?)\Z", re.DOTALL)
_MOST_LISTS = 8  # names come with an adapter: one of a thousand numbers must not cost their square
_NUMBER = re.compile(r"\.([0-9]+)(?=\.|\Z)")
# What Mistral's own checkpoints call the layers that others call as on the right.
_MISTRAL_NAMES = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
}
_MISTRAL_LAYER = re.compile(
    rf"\A(?P<layer>layers\.[0-9]+\.)(?P<name>{'|'.join(map(re.escape, _MISTRAL_NAMES))})(?![^.])"
)
_MISTRAL_ROOT = {"tok_embeddings": "embed_tokens", "output": "lm_head"}


@dataclass(frozen=True, slots=True)
class BaseModules:
    """What the headers of a checkpoint say about its modules.

    Attributes:
        shapes: path of a tensor to the shapes under it; None for one whose shape is not that of its matrix. Almost
            always a single one: two names can have one path.
        owners: the paths of whatever has tensors.
        numbers: path of a numbered list, such as `layers`, to the numbers in it, as text.
    """

    shapes: Mapping[str, Sequence[Shape | None]]
    owners: frozenset[str]
    numbers: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, tensors: Mapping[str, Shape | None]) -> Self:
        """Args: `tensors`, name to shape, or to None where its values are packed."""
        paths: dict[str, str] = {}  # each module has several tensors, and a large model 100,000
        shapes: dict[str, list[Shape | None]] = {}
        for name, shape in tensors.items():
            module, _, own = name.rpartition(".")
            if module not in paths:
                paths[module] = module_path(module)
            path = f"{paths[module]}.{own}" if paths[module] else own
            shapes.setdefault(path, []).append(shape)
        owners = frozenset(paths.values())
        return cls(shapes, owners, _numbers(owners))

    def has_packed(self, path: str) -> bool:
        """Whether the module at `path` is there, with weights whose shapes tell nothing (`q_proj.qweight`)."""
        return path in self.owners or f"{path}.weight" in self.owners


def module_path(name: str) -> str:
    """The path of the module `name`; see the docstring above."""
    match = _LIST.match(name)
    # The name of a numbered list stays whatever it is, and so does the last segment.
    place, rest = (match["place"] or "", match["rest"]) if match else name.rpartition(".")[::2]
    path = f"{found}.{rest}" if (found := _without_nesting(place)) else rest
    return _MISTRAL_LAYER.sub(_usual, path) if match else _MISTRAL_ROOT.get(path, path)


def lists_in(path: str) -> Iterator[tuple[str, str]]:
    """The numbered lists in a path, with the number: `("layers", "3")`, then `("layers.3.mlp.experts", "7")`."""
    for match in islice(_NUMBER.finditer(path), _MOST_LISTS):
        yield path[: match.start()], match[1]


def _numbers(owners: Iterable[str]) -> dict[str, frozenset[str]]:
    """The numbers of every list that modules are in."""
    found: dict[str, set[str]] = {}
    # Few distinct ones remain without the last segment, which is a number only in a list of modules.
    for path in {owner if owner[-1:].isdecimal() else owner.rpartition(".")[0] for owner in owners}:
        for place, number in lists_in(path):
            found.setdefault(place, set()).add(number)
    return {place: frozenset(numbers) for place, numbers in found.items()}


@lru_cache(maxsize=1024)
def _without_nesting(place: str) -> str:
    kept: list[str] = []
    for segment in place.split("."):
        known = _TOWERS.get(segment, segment)
        if segment not in _NESTING and known not in kept[-1:]:
            kept.append(known)
    return ".".join(kept)


def _usual(match: re.Match[str]) -> str:
    return f"{match['layer']}{_MISTRAL_NAMES[match['name']]}"
