"""Routes and targets that stacks declare, as the workers are told them. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import msgspec

from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.demand import Place
from garrison.fleet.values.route import RouteDeclaration
from garrison.fleet.values.target import TargetSpec
from garrison.gateway.choose.policy import DEFAULT_POLICY, POLICIES
from garrison.gateway.link.messages import RouteValue, TargetValue
from garrison.net.origin import origin_of
from garrison.server.adapters.places import AdapterPlace
from garrison.server.adapters.routes import adapter_end, fleet_target_id
from garrison.server.workers.declared_settings import declared_settings
from garrison.server.workers.profiles import Pins

__all__ = [
    "Declared",
    "DeclaredStack",
    "FleetTarget",
    "declared_ends",
    "declared_routes",
    "fleet_target",
    "policy_name",
    "why_not_routable",
]

_OLDER = {"random": "power-of-two", "failover": "pin"}
"""Words of manifests for policies that have got other names."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What stacks add to the instances.

    Attributes:
        routes: by name; they come before instances of the same name.
        targets: by id.
        own: routes of targets, by name; they come after instances of the same name.
        adapters: routes of adapters, by name; they come after everything else of the same name.
        ends: what each target of a route with adapters stands for: the target in its manifest, and the adapter there,
            empty for its own model; by the route's name.
        reasons: why a target is cold, by id.
        pins: of the active profile.
    """

    routes: Mapping[str, RouteValue] = field(default_factory=dict)
    targets: Mapping[str, TargetValue] = field(default_factory=dict)
    own: Mapping[str, RouteValue] = field(default_factory=dict)
    adapters: Mapping[str, RouteValue] = field(default_factory=dict)
    ends: Mapping[str, tuple[Place, ...]] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    pins: Pins = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeclaredStack:
    """One stack: what it declares, and since when (Unix time)."""

    declaration: Declaration
    created: int = 0


@dataclass(frozen=True, slots=True)
class FleetTarget:
    """A target that Garrison did not start.

    Attributes:
        base: the model that it is known to serve; empty if it has not been seen yet.
        stack: the first that declares it.
    """

    spec: TargetSpec
    base: str = ""
    stack: str = "garrison"
    created: int = 0


def policy_name(declared: str) -> str:
    """Return the policy of the gateway that a manifest means; the default for one that is not known."""
    name = _OLDER.get(declared, declared)
    return name if name in POLICIES else DEFAULT_POLICY


def why_not_routable(spec: TargetSpec) -> str:
    """Return why no request can go to a target; empty if that is not so."""
    if spec.headers:
        return "it has headers of its own, which the gateway does not send"
    if spec.tls.ca or spec.tls.cert or spec.tls.insecure:
        return "it has TLS settings of its own, which the gateway does not use"
    try:
        origin_of(spec.base_url)
    except ValueError as error:
        return f"its address cannot be used: {error}"
    return ""


def fleet_target(target: FleetTarget, key: str | None, *, cold: bool = False) -> tuple[TargetValue, RouteValue]:
    """Return a target and its own route.

    Args:
        key: what it asks for.
        cold: no request can go there now.
    """
    spec = target.spec
    name = fleet_target_id(spec.name)
    value = TargetValue(
        id=name,
        url=None if cold else spec.base_url,
        key=key,
        model=spec.base_model or target.base,
        foreign=True,
        counted=False,
    )
    route = RouteValue(
        name=spec.name,
        targets=(name,),
        nested=True,
        created=target.created,
        owned_by=target.stack,
        facts={"model": value.model} if value.model else {},
    )
    return value, route


def declared_routes(
    stacks: Iterable[DeclaredStack],
    *,
    here: Collection[str | None],
    places: Mapping[Place, AdapterPlace] = MappingProxyType({}),
) -> tuple[dict[str, RouteValue], list[tuple[str, str, str]]]:
    """Return the routes of all stacks by name, and the names, aliases too, that a stack declares and another one has:
    name, stack, and who has it.

    Args:
        here: names of this node, None among them.
        places: where adapters are loaded.
    """
    routes: dict[str, RouteValue] = {}
    owners: dict[str, str] = {}
    refused: list[tuple[str, str, str]] = []
    for stack in stacks:
        own = stack.declaration.stack
        for name, route in stack.declaration.routes.items():
            if name in owners:
                refused.append((name, own, owners[name]))
                continue
            value = _route(route, stack, here, places)
            free = tuple(one for one in value.aliases if one not in owners)
            refused += ((one, own, owners[one]) for one in value.aliases if one in owners)
            owners |= dict.fromkeys((name, *free), own)
            routes[name] = msgspec.structs.replace(value, aliases=free)
    return routes, refused


def declared_ends(stacks: Iterable[DeclaredStack]) -> dict[str, tuple[Place, ...]]:
    """Return what the targets of each declared route stand for, by name."""
    found: dict[str, tuple[Place, ...]] = {}
    for stack in stacks:
        for name, route in stack.declaration.routes.items():
            if any(one.adapter for one in route.to):
                found.setdefault(name, tuple((one.place, one.adapter or "") for one in route.to))
    return found


def _route(
    route: RouteDeclaration,
    stack: DeclaredStack,
    here: Collection[str | None],
    places: Mapping[Place, AdapterPlace],
) -> RouteValue:
    declaration = stack.declaration
    ends = [adapter_end(one.place, one.adapter, declaration, places, here) for one in route.to]
    adapters = tuple(adapter for _, _, adapter in ends)
    weights = tuple(one.weight for one in route.to)
    instances = dict.fromkeys(one.place for one in route.to)
    policy = policy_name(route.policy)
    return RouteValue(
        name=route.name,
        targets=tuple(target for target, _, _ in ends),
        models=tuple(model for _, model, _ in ends),
        adapters=adapters if any(adapters) else (),
        policy=policy,
        weights=() if all(one == 1.0 for one in weights) else weights,
        instances=tuple(instances) if all(one in declaration.instances for one in instances) else (),
        created=stack.created,
        owned_by=declaration.stack,
        **declared_settings(route, policy),
    )
