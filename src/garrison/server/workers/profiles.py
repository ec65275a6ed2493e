"""Profiles: model names that go elsewhere while one is active. Pure, but for which one is active."""

from collections.abc import Callable, Iterable, Mapping

import msgspec

from garrison.base.errors import NotFoundError
from garrison.base.known_names import known_names
from garrison.base.logs import logger
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.demand import Place
from garrison.gateway.link.messages import RouteValue

__all__ = ["Pins", "Profiles", "declared_profiles", "pinned", "pinned_ends"]

Pins = Mapping[str, str | None]
"""Where a model name goes: an instance or a route by its name; None: nowhere."""

_log = logger(__name__)


class Profiles:
    """The profiles of all stacks, and the one that is active: none at first, and none again when it is gone.

    Attributes:
        all: by name.
        active: its name; None for none.
        changed: is called when other pins hold.
    """

    def __init__(self) -> None:
        self.all: Mapping[str, Pins] = {}
        self.active: str | None = None
        self.changed: Callable[[], None] = lambda: None

    @property
    def pins(self) -> Pins:
        """Those that hold now."""
        return {} if self.active is None else self.all[self.active]

    def activate(self, name: str | None) -> None:
        """Make another one active; None for none. Raises NotFoundError."""
        if name is not None and name not in self.all:
            hint = known_names(name, self.all, "There is") if self.all else "Declare it under `profiles` in a manifest."
            raise NotFoundError(f"there is no profile {name!r}", hint=hint)
        self.active = name
        self.changed()

    def declare(self, declared: Mapping[str, Pins]) -> None:
        """Take what is declared now. Nobody is told: whoever declares does that."""
        self.all = declared
        if self.active is not None and self.active not in declared:
            _log.warning("the active profile is not declared any more: none is active now", profile=self.active)
            self.active = None


def declared_profiles(declarations: Iterable[Declaration]) -> dict[str, Pins]:
    """Return the profiles of all stacks; of two with one name the first."""
    found: dict[str, Pins] = {}
    for one in declarations:
        for name, pins in one.profiles.items():
            found.setdefault(name, pins)
    return found


def pinned(routes: Mapping[str, RouteValue], pins: Pins) -> dict[str, RouteValue]:
    """Return the routes while `pins` hold.

    A name goes where the other one goes without a profile, with what changes in requests there, and shares its limits
    and its queue. A name whose goal does not exist goes nowhere. Models beneath a name, as in `INSTANCE/ADAPTER`, stay
    where they are.
    """
    if not pins:
        return dict(routes)
    found = {key: _without(value, pins) for key, value in routes.items() if key not in pins}
    for name, to in pins.items():
        beneath = routes.get(name)
        if beneath is not None and beneath.nested:
            found.setdefault(f"{name}/", _beneath(beneath))
        goal = None if to is None else _goal(routes, to)
        if goal is not None:
            found[name] = _renamed(goal, to or "", name)
    return found


def pinned_ends(
    ends: Mapping[str, tuple[Place, ...]], routes: Mapping[str, RouteValue], pins: Pins
) -> Mapping[str, tuple[Place, ...]]:
    """Return what the targets of routes with adapters stand for, while `pins` hold.

    Args:
        routes: as they are without a profile.
    """
    found = {name: places for name, places in ends.items() if name not in pins}
    for name, to in pins.items():
        goal = None if to is None else _goal(routes, to)
        if goal is not None and goal.name in ends:
            found[name] = ends[goal.name]
    return found


def _beneath(value: RouteValue) -> RouteValue:
    """What stays of a route whose name goes elsewhere."""
    return msgspec.structs.replace(value, name=f"{value.name}/", aliases=(), shares=value.name)


def _without(value: RouteValue, pins: Pins) -> RouteValue:
    left = tuple(one for one in value.aliases if one not in pins)
    return value if left == value.aliases else msgspec.structs.replace(value, aliases=left)


def _goal(routes: Mapping[str, RouteValue], to: str) -> RouteValue | None:
    found = routes.get(to)
    return found if found is not None else next((one for one in routes.values() if to in one.aliases), None)


def _renamed(goal: RouteValue, to: str, name: str) -> RouteValue:
    filters = {name: goal.filters[to]} if to in goal.filters else {}
    return msgspec.structs.replace(goal, name=name, aliases=(), filters=filters, shares=goal.name)
