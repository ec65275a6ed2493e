"""What a gateway says about adapters, as a value for decisions."""

from dataclasses import dataclass

__all__ = ["NOTHING_ASKED", "Demand", "Place"]

Place = tuple[str, str]
"""A target, and the name of an adapter there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Which adapters clients ask for now.

    Attributes:
        wanted: requests wait for these, which are loaded on demand; by the names that clients use.
        unwanted: these were loaded on demand and make room for others; by the names that clients use.
        in_use: requests to these are in progress, or ended a moment ago; by the names on the target.
        elsewhere: another process knows what is in use, and unloads what is not any more.
    """

    wanted: frozenset[Place] = frozenset()
    unwanted: frozenset[Place] = frozenset()
    in_use: frozenset[Place] = frozenset()
    elsewhere: bool = False

    def uses(self, place: Place) -> bool:
        """Whether requests to it may be in progress."""
        return self.elsewhere or place in self.in_use


NOTHING_ASKED = Demand()
