"""Whether a request may use a model, and how many requests its key may make: what the gateway asks."""

import time
from collections.abc import Callable

from starlette.types import Scope

from garrison.access.authorize import Action, ActionKind, admit
from garrison.access.identity import Identity
from garrison.access.limiter import Excess, Limiter
from garrison.api.authentication import FOUND, open_to
from garrison.base.errors import GarrisonError
from garrison.base.settings import Settings
from garrison.gateway.activator import Served

__all__ = ["KeyAdmission"]


class KeyAdmission:
    """`Admission` by the keys of requests.

    Args:
        settings: returns those in force.
    """

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self._settings = settings
        self._limiter = Limiter()

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

    def enter(self, scope: Scope) -> Callable[[], None]:
        """As `Admission.enter`. Raises RateLimitedError."""
        found = scope[FOUND]
        if not isinstance(found, Identity) or found.key_id is None or not found.limits:
            return lambda: None
        begun = self._limiter.begin(found.key_id, found.limits, time.monotonic())
        if isinstance(begun, Excess):
            raise begun.error()
        return lambda: self._limiter.end(begun, time.monotonic())
