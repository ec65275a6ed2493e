"""Names of the files of a split model: `model-00002-of-00003.safetensors`, `model-Q4_K_M-00001-of-00002.gguf`. Pure."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

__all__ = ["ShardName", "ShardSet", "shard_sets"]

_SHARD = re.compile(
    r"(?P<stem>.+)-(?P<number>\d{5,9})-of-(?P<total>\d{5,9})(?P<suffix>\.(?:safetensors|bin|pt|pth|gguf))", re.DOTALL
)
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class ShardSet:
    """What the shards of one set have in common; `total` as it is written, with its zeros."""

    stem: str
    total: str
    suffix: str
    width: int

    def name(self, number: int) -> str:
        return f"{self.stem}-{number:0{self.width}d}-of-{self.total}{self.suffix}"

    @property
    def first(self) -> str:
        """The first of a GGUF model, which is the one that is named to llama.cpp."""
        return self.name(1)

    def names(self, present: Collection[str]) -> list[str]:
        """All names of the set, of which some are `present`. A few programs number from zero."""
        start = 0 if self.name(0) in present else 1
        return [self.name(number) for number in range(start, min(int(self.total), _MOST) + start)]

    def missing(self, present: Collection[str]) -> list[str]:
        return [name for name in self.names(present) if name not in present]


@dataclass(frozen=True, slots=True)
class ShardName:
    """One shard; `name` may be a path with `/`."""

    of: ShardSet
    number: int

    @classmethod
    def parse(cls, name: str) -> "ShardName | None":
        """None for a file that is not one of several."""
        match = _SHARD.fullmatch(name)
        if match is None:
            return None
        shards = ShardSet(match["stem"], match["total"], match["suffix"], len(match["number"]))
        return cls(shards, int(match["number"]))


def shard_sets(names: Iterable[str]) -> dict[ShardSet, list[str]]:
    """The sets that `names` belong to, with those of their names."""
    sets: dict[ShardSet, list[str]] = {}
    for name in names:
        if shard := ShardName.parse(name):
            sets.setdefault(shard.of, []).append(name)
    return sets
