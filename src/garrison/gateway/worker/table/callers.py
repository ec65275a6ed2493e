"""Who makes a request, what that caller may use, and how much of it."""

from collections.abc import Hashable
from datetime import datetime
from itertools import zip_longest
from typing import TYPE_CHECKING

from garrison.access.authorize import Action, ActionKind, admit
from garrison.access.book import KeyBook, Refusal, make_book
from garrison.access.identity import Caller, Identity, anonymous
from garrison.access.limiter import Admission, Excess, Limiter
from garrison.access.permissions import Scope
from garrison.access.tokens import TokenHasher
from garrison.base.clock import Clock
from garrison.base.errors import GarrisonError, NotReadyError
from garrison.gateway.link.messages import Keys, RouteValue
from garrison.gateway.worker.heads.head_facts import HeadFacts
from garrison.gateway.worker.table.rates import rate_headers
from garrison.store.key_store import KeyTable

if TYPE_CHECKING:
    from garrison.gateway.worker.table.targets import Route

__all__ = ["Callers"]


class Callers:
    """Keys as the control process told them last, and what their holders do."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._book: KeyBook | None = None
        self._open = anonymous(infers=False, manages=False)
        self._open_to_all = False
        self.limiter = Limiter()

    def set_keys(self, told: Keys) -> None:
        hasher = TokenHasher(told.secret)
        self._book = make_book(KeyTable(told.revision, told.rows), hasher, told.config_keys)
        self.limiter.keep(self._book.keys)

    def set_open(self, *, infers: bool, manages: bool = False) -> None:
        """Whether requests to models, and management calls, need no key."""
        self._open = anonymous(infers=infers, manages=manages)
        self._open_to_all = infers

    def identify(self, head: HeadFacts) -> Identity | Refusal:
        """Return who makes a request, or why nobody is known to.

        Raises:
            NotReadyError: no keys have been told yet.
        """
        book = self._book
        if book is None:
            raise NotReadyError("the gateway does not know the keys yet", details={"retry_after": 1})
        if not head.token:
            return Refusal.MISSING
        if head.hasher is not book.hasher:
            head.hasher, head.digest = book.hasher, book.hasher.digest(head.token)
        return book.find(head.digest, self._now)

    def require(self, who: Identity | Refusal, route: RouteValue | None, model: str = "") -> None:
        """Check that a caller may use a route, or, with None, see what there is.

        A key that is limited to instances may use a route if it may use each instance behind it.

        Raises:
            UnauthenticatedError: it has no valid key, and needs one.
            DeniedError: its key does not permit this.
        """
        if self._open_to_all or (
            isinstance(who, Identity) and who.permissions.only is None and Scope.INFERENCE in who.permissions.scopes
        ):
            return
        if route is None:
            admit(who, self._open, Action(ActionKind.LIST_MODELS))
            return
        name = model or route.name
        if not route.instances:
            admit(who, self._open, Action(ActionKind.INFER, name))
        for instance, number in zip_longest(route.instances, route.instance_ids):
            admit(who, self._open, Action(ActionKind.INFER, name, instance, number))

    def is_unlimited(self, who: Identity | Refusal) -> bool:
        """Whether a caller may use every model."""
        return self._open_to_all or (isinstance(who, Identity) and who.permissions.only is None)

    def require_manager(self, who: Identity | Refusal) -> None:
        """Check that a caller may manage. Raises UnauthenticatedError or DeniedError."""
        admit(who, self._open, Action(ActionKind.MANAGE))

    def may_use(self, who: Identity | Refusal, route: RouteValue, name: str = "") -> bool:
        """Whether a caller may use a route, by one of its names."""
        try:
            self.require(who, route, name)
        except GarrisonError:
            return False
        return True

    def begin(self, who: Identity | Refusal, now: float) -> Admission | None:
        """Count a request that begins; None for a caller without limits.

        Raises:
            RateLimitedError: there are too many.
        """
        if not isinstance(who, Identity) or who.key_id is None or not who.limits:
            return None
        begun = self.limiter.begin(who.key_id, who.limits, now)
        if isinstance(begun, Excess):
            raise begun.error()
        return begun

    def count(self, who: Identity | Refusal, route: "Route", now: float) -> tuple[Admission, ...]:
        """Count a request for its caller and its route, as they have limits.

        Raises:
            RateLimitedError: there are too many.
        """
        of_key = self.begin(who, now)
        if route.rates is None:
            return () if of_key is None else (of_key,)
        of_route = route.limiter.begin("", route.rates, now)
        if isinstance(of_route, Excess):
            if of_key is not None:
                of_key.by.undo(of_key, now)
            raise of_route.error(f"the route {route.name}")
        return (of_route,) if of_key is None else (of_key, of_route)

    def rate_headers(
        self, who: Identity | Refusal | None, route: "Route | None", now: float
    ) -> list[tuple[bytes, bytes]]:
        """Return what is left of the limits of a caller and of a route; nothing where there are none."""
        found = []
        if isinstance(who, Identity) and who.key_id is not None and who.limits:
            found.append(self.limiter.standings(who.key_id, who.limits, now))
        if route is not None and route.rates is not None:
            found.append(route.limiter.standings("", route.rates, now))
        return rate_headers(found)

    def holder_of(self, who: Identity | Refusal | None, peer: str) -> tuple[Hashable, int]:
        """Return with whom a caller takes turns where requests wait, and its priority.

        That is the holder of its key; where nobody needs one, whoever has its address.
        """
        if not isinstance(who, Identity) or who.caller is Caller.ANONYMOUS:
            return peer, 0
        return who.key_id or who.name, who.priority

    def _now(self) -> datetime:
        return self._clock.now()
