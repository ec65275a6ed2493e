"""The policy `prefix`: a prompt goes where a prompt that began with the same blocks went before.

The engine then has the beginning in its cache. A block is known by the hash of everything up to its end, so that the
last block that is known ends the longest prefix in common. Where none is known, or no such target is within the load
bound, the request goes to the least loaded one, which is remembered.
"""

from collections import OrderedDict
from zlib import crc32

from garrison.base.errors import InvalidError
from garrison.gateway.choose.candidate import Candidate, Candidates
from garrison.gateway.choose.least_outstanding import LeastOutstanding
from garrison.gateway.choose.load_bound import LoadBound
from garrison.gateway.choose.picking import Picking, is_ready

__all__ = ["PrefixAffinity"]

_TARGETS_A_BLOCK = 4
_BLOCKS_A_KEY = 16


class PrefixAffinity(Picking):
    """It remembers at most `blocks` blocks, those used last: up to 16 of a key, and a shorter key as one.

    Hashes have 32 bits: two prompts that share one by chance, or by intent, go to the same target, and no more than the
    bound allows.
    """

    __slots__ = ("_block", "_bound", "_by_id", "_known", "_least", "_most", "_of")

    def __init__(self, block: int = 512, blocks: int = 16_384, bound: float = 1.5, floor: int = 4) -> None:
        """Set the sizes.

        Args:
            block: bytes of a block.
            blocks: to remember; a few hundred bytes each.
            bound: of the load, as a multiple of the mean.
            floor: requests outstanding that are within the bound on any target.
        """
        if block < 1 or blocks < 1:
            raise InvalidError(
                f"the policy prefix cannot remember {blocks} blocks of {block} bytes", hint="Set both to 1 or more."
            )
        self._block = block
        self._most = blocks
        self._bound = LoadBound(bound, floor)
        self._least = LeastOutstanding()
        self._known: OrderedDict[int, tuple[str, ...]] = OrderedDict()
        self._of: Candidates = ()
        self._by_id: dict[str, Candidate] = {}

    def best(self, candidates: Candidates, key: bytes | None, now: float, tried: Candidates) -> Candidate | None:
        if key is None:
            return self._least.best(candidates, key, now, tried)
        if candidates is not self._of:
            self._by_id = {candidate.id: candidate for candidate in candidates}
            self._of = candidates
        hashes = _hashes(key, self._block)
        chosen = self._nearest(hashes, candidates, now, tried) or self._least.best(candidates, key, now, tried)
        if chosen is not None:
            self._remember(hashes, chosen.id)
        return chosen

    def _nearest(self, hashes: list[int], candidates: Candidates, now: float, tried: Candidates) -> Candidate | None:
        per_weight = self._bound.per_weight(candidates, now)
        for block in reversed(hashes):
            for target in self._known.get(block, ()):
                candidate = self._by_id.get(target)
                if (
                    candidate is not None
                    and is_ready(candidate, now, tried)
                    and self._bound.allows(candidate, per_weight, now)
                ):
                    return candidate
        return None

    def _remember(self, hashes: list[int], target: str) -> None:
        known = self._known
        for block in reversed(hashes):  # so that the beginning, which most prompts share, is forgotten last
            targets = known.get(block, ())
            if target not in targets:
                known[block] = (target, *targets[: _TARGETS_A_BLOCK - 1])
            known.move_to_end(block)
        while len(known) > self._most:
            known.popitem(last=False)


def _hashes(key: bytes, block: int) -> list[int]:
    """Return the hash of each prefix that is a number of whole blocks."""
    found, value = [], 0
    for start in range(0, max(1, min(len(key), _BLOCKS_A_KEY * block) - block + 1), block):
        value = crc32(key[start : start + block], value)
        found.append(value)
    return found
