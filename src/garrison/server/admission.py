"""Whether a request may use a model, and how much its key may do: what the gateway asks."""

from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Scope

from garrison.access.authorize import Action, ActionKind, admit
from garrison.access.identity import Identity
from garrison.access.limiter import Admission, Excess, Limiter
from garrison.api.authentication import FOUND, open_to
from garrison.base.clock import Clock
from garrison.base.errors import GarrisonError
from garrison.base.settings import Settings
from garrison.gateway.activator import Entry, Served

__all__ = ["KeyAdmission"]


class KeyAdmission:
    """`Admission` by the keys of requests.

    Args:
        settings: returns those in force.
        limiter: counts what the holders of keys do.
    """

    def __init__(self, settings: Callable[[], Settings], limiter: Limiter, clock: Clock) -> None:
        self._settings = settings
        self._limiter = limiter
        self._clock = clock

    def refusal(self, scope: Scope, served: Served | None) -> GarrisonError | None:
        """As `Admission.refusal`."""
        action = Action(ActionKind.LIST_MODELS)
        if served is not None:
            instance = served.instances[0] if served.instances else None
            action = Action(ActionKind.INFER, served.id, instance, served.instance_id)
        try:
            admit(scope[FOUND], open_to(self._settings()), action)
        except GarrisonError as error:
            return error
        return None

    def enter(self, scope: Scope) -> Entry:
        """As `Admission.enter`. Raises RateLimitedError."""
        found = scope[FOUND]
        if not isinstance(found, Identity) or found.key_id is None or not found.limits:
            return _Unlimited()
        begun = self._limiter.begin(found.key_id, found.limits, self._clock.monotonic())
        if isinstance(begun, Excess):
            raise begun.error()
        return _Limited(self._limiter, self._clock, begun)


@dataclass(frozen=True, slots=True)
class _Limited:
    """`Entry` of a request whose key has limits."""

    limiter: Limiter
    clock: Clock
    begun: Admission

    @property
    def counts_tokens(self) -> bool:
        return self.begun.limits.tokens_per_minute is not None

    def spend(self, tokens: int) -> None:
        self.limiter.spend(self.begun, self.clock.monotonic(), tokens)

    def leave(self) -> None:
        self.limiter.end(self.begun, self.clock.monotonic())


class _Unlimited:
    """`Entry` of all others."""

    counts_tokens = False

    def spend(self, tokens: int) -> None: ...

    def leave(self) -> None: ...
