"""The policy `sticky`: a session stays at the target that it went to first, however busy that is.

Where a session is new, or its target cannot be asked, it goes where `hash` sends it, so that workers, which do not know
of each other's sessions, send it to the same target. There it then stays.
"""

from collections import OrderedDict
from hashlib import blake2b

from garrison.base.errors import InvalidError
from garrison.gateway.choose.candidate import Candidate, Candidates
from garrison.gateway.choose.consistent_hash import ConsistentHash
from garrison.gateway.choose.picking import Picking, is_ready

__all__ = ["Sticky"]

_DIGEST = 8


class Sticky(Picking):
    """It remembers the sessions that were used last."""

    __slots__ = ("_by_id", "_hash", "_known", "_most", "_of")

    def __init__(self, sessions: int = 16_384) -> None:
        """Set the bound.

        Args:
            sessions: to remember; about 200 bytes each.
        """
        if sessions < 1:
            raise InvalidError(
                f"the policy sticky cannot remember {sessions} sessions", hint="Set sessions to 1 or more."
            )
        self._most = sessions
        self._hash = ConsistentHash()
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._of: Candidates = ()
        self._by_id: dict[str, Candidate] = {}

    def best(self, candidates: Candidates, key: bytes | None, now: float, tried: Candidates) -> Candidate | None:
        if key is None:
            return self._hash.best(candidates, key, now, tried)
        if candidates is not self._of:
            self._by_id = {candidate.id: candidate for candidate in candidates}
            self._of = candidates
        session = blake2b(key, digest_size=_DIGEST).digest()
        known = self._by_id.get(self._known.get(session, ""))
        if known is not None and is_ready(known, now, tried):
            self._known.move_to_end(session)
            return known
        chosen = self._hash.best(candidates, key, now, tried)
        if chosen is not None:
            self._known[session] = chosen.id
            self._known.move_to_end(session)
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        return chosen
