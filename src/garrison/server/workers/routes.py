"""What there is, as the workers are told it. Pure but for reading the state of instances and nodes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from garrison.fleet.values.demand import Place
from garrison.gateway.link.messages import RouteValue, Tables, TargetValue
from garrison.instances.live import Live
from garrison.nodes.node import NodeView
from garrison.server.workers.declared import Declared

__all__ = ["Known", "changes", "instance_target", "known", "name_of", "node_of", "target_id"]

_NOTHING = Declared()
_INSTANCE = "instance:"
_NODE = "node:"


@dataclass(frozen=True, slots=True)
class Known:
    """Everything that a worker has been told; for those that ask, why a target is cold, by its id, and what the targets
    of routes with adapters stand for."""

    targets: Mapping[str, TargetValue] = field(default_factory=dict)
    routes: Mapping[str, RouteValue] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    ends: Mapping[str, tuple[Place, ...]] = field(default_factory=dict)


def target_id(live: Live) -> str:
    """The id of an instance among the targets."""
    return _INSTANCE + live.name


def name_of(target: str) -> str | None:
    """The name of the instance that a target is; None for another kind."""
    return target.removeprefix(_INSTANCE) if target.startswith(_INSTANCE) else None


def node_of(target: str) -> str | None:
    """The name of the node that a target is; None for another kind."""
    return target.removeprefix(_NODE) if target.startswith(_NODE) else None


def instance_target(live: Live) -> TargetValue:
    """An instance as a target: with its address while it admits requests."""
    engine = live.engine
    if engine is None or not live.admits:
        return TargetValue(id=target_id(live), engine=live.spec.engine)
    upstream = engine.upstream
    return TargetValue(
        id=target_id(live), url=upstream.url, key=upstream.key, model=upstream.model, engine=live.spec.engine
    )


def known(instances: Iterable[Live], nodes: Sequence[NodeView], declared: Declared = _NOTHING) -> Known:
    """Return what there is: declared routes, and one for each instance, here and on the nodes, for each target, and for
    each adapter; last, `NODE/INSTANCE`.

    What does not answer is cold. Of several of one name, the one that is named first here is answered.
    """
    targets: dict[str, TargetValue] = dict(declared.targets)
    routes: dict[str, RouteValue] = dict(declared.routes)
    ids: dict[str, int] = {}
    for live in instances:
        target = instance_target(live)
        targets[target.id] = target
        ids[target.id] = live.record.id
        if live.name in routes:
            continue
        routes[live.name] = RouteValue(
            name=live.name,
            targets=(target.id,),
            nested=True,
            names=_names(live),
            instances=(live.name,),
            instance_id=live.record.id,
            created=int(live.record.created.timestamp()),
            facts={"state": str(live.state), "model": live.spec.model, "engine": live.spec.engine},
        )
    for view in nodes:
        url = None if view.reach == "unreachable" else view.node.address
        target = TargetValue(id=_NODE + view.node.name, url=url, key=view.node.key, hop=True)
        targets[target.id] = target
        for row in view.instances:
            name = str(row["name"])
            created = row.get("created")
            if name not in routes:
                routes[name] = RouteValue(
                    name=name,
                    targets=(target.id,),
                    instances=(name,),
                    nested=True,
                    created=created if isinstance(created, int) else 0,
                    facts={"state": str(row.get("state", "")), "node": view.node.name},
                )
    for name, route in declared.own.items():
        routes.setdefault(name, route)
    for name, route in declared.adapters.items():
        if name not in routes and (not route.listed or not _is_nested(name, routes)):
            routes[name] = route
    for view in nodes:
        node = RouteValue(name=view.node.name, targets=(_NODE + view.node.name,), nested=True, bare=False, listed=False)
        routes.setdefault(node.name, node)
    for name, route in {**declared.adapters, **declared.routes}.items():
        if (
            len(route.instances) == 1
            and routes.get(name) is route
            and (number := ids.get(route.targets[0])) is not None
        ):
            routes[name] = msgspec.structs.replace(route, instance_id=number)
    return Known(targets, routes, declared.reasons, declared.ends)


def _is_nested(name: str, routes: Mapping[str, RouteValue]) -> bool:
    """Return whether a name means a model of an instance or a target, which comes before an adapter of that name."""
    first, slash, _ = name.partition("/")
    return bool(slash) and first in routes and routes[first].nested


def _names(live: Live) -> tuple[str, ...] | None:
    """The models of an instance whose engine answers to any name; None where the engine looks for itself."""
    if live.spec.engine != "llama_cpp" or not live.spec.model:
        return None
    aliases = str(live.spec.options.get("alias", "")).split(",")
    known = (live.spec.model, live.engine.upstream.model if live.engine is not None else "", *aliases)
    return tuple(dict.fromkeys(one for one in known if one))


def changes(before: Known, now: Known, version: int) -> Tables | None:
    """Return what a worker has to be told; None for nothing."""
    targets = [one for key, one in now.targets.items() if before.targets.get(key) != one]
    routes = [one for name, one in now.routes.items() if before.routes.get(name) != one]
    gone_targets = [key for key in before.targets if key not in now.targets]
    gone_routes = [name for name in before.routes if name not in now.routes]
    if not (targets or routes or gone_targets or gone_routes):
        return None
    return Tables(version=version, targets=targets, routes=routes, gone_targets=gone_targets, gone_routes=gone_routes)
