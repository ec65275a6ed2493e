"""Routes to declared adapters, by their own names. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.demand import Place
from garrison.gateway.link.messages import RouteValue
from garrison.server.adapters.places import AdapterPlace

__all__ = ["EndValue", "adapter_end", "adapter_routes", "ends_to_load", "fleet_target_id"]

_IN_ORDER = frozenset(("pin", "spill", "warm-first"))

EndValue = tuple[str, str, str]
"""The id of a target, the name that it is asked for, and the declared adapter; both empty for its own model."""


def fleet_target_id(name: str) -> str:
    """The id of a target that Garrison did not start."""
    return f"target:{name}"


def adapter_end(
    place: str,
    adapter: str | None,
    declaration: Declaration,
    places: Mapping[Place, AdapterPlace],
    here: Collection[str | None],
) -> EndValue:
    """Return one end of a route.

    Args:
        place: an instance or a target of the stack.
        adapter: the one there that is asked for, by the name that clients use.
        here: names of this node, None among them.
    """
    found = places.get((place, adapter or ""))
    model = (adapter or "") if found is None else found.model
    name = "" if found is None else found.name
    instance = declaration.instances.get(place)
    if instance is None:
        return fleet_target_id(place), model, name
    if instance.node in here:
        return f"instance:{place}", model, name
    inner = place if adapter is None else f"{place}/{model}"
    return f"node:{instance.node}", inner if model or adapter is None else "", name


def adapter_routes(
    declarations: Iterable[Declaration],
    places: Mapping[Place, AdapterPlace],
    *,
    here: Collection[str | None],
    created: Mapping[str, int],
) -> dict[str, tuple[RouteValue, tuple[Place, ...]]]:
    """Return `TARGET/ADAPTER` for each place, then `ADAPTER` for all places of one stack, each with its places.

    Of several stacks that declare an adapter of one name, the first has the name.

    Args:
        created: since when stacks are applied, by name; Unix time.
    """
    single: dict[str, tuple[RouteValue, tuple[Place, ...]]] = {}
    named: dict[str, tuple[RouteValue, tuple[Place, ...]]] = {}
    for declaration in declarations:
        mine: dict[str, list[AdapterPlace]] = {}
        for spec in declaration.adapters:
            place = places[spec.target, spec.lora_name]
            if place.stack == declaration.stack:
                mine.setdefault(place.name, []).append(place)
        at = created.get(declaration.stack, 0)
        for name, some in mine.items():
            ends = tuple((one.target, name) for one in some)
            for one, end in zip(some, ends, strict=True):
                route = _route(f"{one.target}/{name}", [one], declaration, places, here, at)
                single.setdefault(route.name, (route, (end,)))
            if name not in named:
                named[name] = _route(name, some, declaration, places, here, at, listed=True), ends
    return single | {name: route for name, route in named.items() if name not in single}


def ends_to_load(route: RouteValue, ends: Sequence[Place], asked: str, tried: Collection[str]) -> list[Place]:
    """Return where the adapter that a request asks for may be loaded, in declared order.

    Args:
        ends: what the route's targets stand for.
        asked: the id of the target that the route's policy has chosen. A policy that follows the declared order leaves
            no choice.
        tried: ids of targets that have failed the request.
    """
    able = [(one, end) for one, end in zip(route.targets, ends, strict=True) if end[1] and one not in tried]
    if route.policy in _IN_ORDER:
        able = [(one, end) for one, end in able if one == asked][:1]
    return [end for _, end in able]


def _route(
    name: str,
    some: Sequence[AdapterPlace],
    declaration: Declaration,
    places: Mapping[Place, AdapterPlace],
    here: Collection[str | None],
    created: int,
    *,
    listed: bool = False,
) -> RouteValue:
    ends = [adapter_end(one.target, one.name, declaration, places, here) for one in some]
    local = all(one.target in declaration.instances for one in some)
    return RouteValue(
        name=name,
        targets=tuple(target for target, _, _ in ends),
        models=tuple(model for _, model, _ in ends),
        adapters=tuple(adapter for _, _, adapter in ends),
        instances=tuple(one.target for one in some) if local else (),
        listed=listed,
        created=created,
        owned_by=declaration.stack,
        facts={"state": "running" if any(one.model for one in some) else "stopped"},
    )
