"""The seam between the plane and the connection to the control process."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from garrison.base.errors import GarrisonError
from garrison.gateway.worker.table.stored_responses import StoredAt
from garrison.gateway.worker.table.targets import Target

if TYPE_CHECKING:
    from garrison.gateway.worker.exchange.exchange import Exchange

__all__ = ["ControlLink"]


class ControlLink(Protocol):
    """What the plane needs of the connection to the control process."""

    def activate(self, target: Target, exchange: "Exchange", seconds: float | None) -> int:
        """Ask for a cold target, and wait so long; None for as long as the settings say. The exchange is told."""

    def abandon(self, number: int) -> None:
        """Nobody waits for that any more."""

    def sync(self, then: Callable[[], None]) -> bool:
        """Have everything told that has changed, and call `then`, at the latest after half a second. False: not now."""

    def load(
        self, target: str, *, load: bool, then: Callable[[GarrisonError | None], None], route: str = "", model: str = ""
    ) -> bool:
        """Have a target started or stopped, or only the adapter of `route` or the model `model` loaded or unloaded
        there, and call `then` when that has begun. False: there is nobody to ask."""

    def stored(self, id: str, at: StoredAt) -> None:
        """Tell the other workers of a response."""

    def busy(self, target: Target) -> None:
        """The first request to a target has begun."""

    def idle(self, target: Target) -> None:
        """The last request to a target has ended."""

    def left(self, number: int) -> None:
        """The last request that asked for a name has ended, as the message of that number wanted to know."""
