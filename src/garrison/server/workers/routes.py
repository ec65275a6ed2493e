"""What there is, as the workers are told it. Pure but for reading the state of instances and nodes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from garrison.engines.llama_router import RouterModel, models_of
from garrison.gateway.link.messages import RouteValue, Tables, TargetValue
from garrison.gateway.requests.paths import LLAMA_ROUTER
from garrison.instances.live import Live
from garrison.nodes.node import NodeView
from garrison.server.workers.declared import Declared

__all__ = ["Known", "changes", "instance_target", "known", "name_of", "node_of", "target_id"]

_NOTHING = Declared()
_INSTANCE = "instance:"
_NODE = "node:"
_STATES = {"loaded": "running", "loading": "starting", "sleeping": "sleeping", "failed": "failed"}
"""Of instances, for what a router says of its models."""
_NO_MODELS: Mapping[str, Sequence[RouterModel]] = {}


@dataclass(frozen=True, slots=True)
class Known:
    """Everything that a worker has been told, and, for those that ask, why a target is cold, by its id."""

    targets: Mapping[str, TargetValue] = field(default_factory=dict)
    routes: Mapping[str, RouteValue] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)


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
    engine, kind = live.engine, LLAMA_ROUTER if live.spec.router else live.spec.engine
    if engine is None or not live.admits:
        return TargetValue(id=target_id(live), engine=kind)
    upstream = engine.upstream
    return TargetValue(id=target_id(live), url=upstream.url, key=upstream.key, model=upstream.model, engine=kind)


def known(
    instances: Iterable[Live],
    nodes: Iterable[NodeView],
    declared: Declared = _NOTHING,
    models: Mapping[str, Sequence[RouterModel]] = _NO_MODELS,
) -> Known:
    """Return what there is: declared routes, and one for each instance, here and on the nodes, for each model of those
    that are routers, and for each target.

    What does not answer is cold. Of several of one name, the one that is named first here is answered.

    Args:
        models: of routers that run here, by the name of the instance.
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
        listed = models.get(live.name, ())
        routes[live.name] = route = RouteValue(
            name=live.name,
            targets=(target.id,),
            nested=True,
            only_nested=tuple(one.id for one in listed) if live.spec.router else None,
            instances=(live.name,),
            instance_id=live.record.id,
            created=int(live.record.created.timestamp()),
            facts={"state": str(live.state), "model": live.spec.model, "engine": live.spec.engine},
        )
        _add_models(routes, route, listed)
    for view in nodes:
        url = None if view.reach == "unreachable" else view.node.address
        target = TargetValue(id=_NODE + view.node.name, url=url, key=view.node.key, hop=True)
        targets[target.id] = target
        for row in view.instances:
            name = str(row["name"])
            created = row.get("created")
            if name not in routes:
                listed = models_of(row.get("models")) or ()
                routes[name] = route = RouteValue(
                    name=name,
                    targets=(target.id,),
                    instances=(name,),
                    nested=True,
                    only_nested=tuple(one.id for one in listed) or None,
                    created=created if isinstance(created, int) else 0,
                    facts={"state": str(row.get("state", "")), "node": view.node.name},
                )
                _add_models(routes, route, listed)
    for name, route in declared.own.items():
        routes.setdefault(name, route)
    for name, route in declared.routes.items():
        if len(route.instances) == 1 and (number := ids.get(route.targets[0])) is not None:
            routes[name] = msgspec.structs.replace(route, instance_id=number)
    return Known(targets, routes, declared.reasons)


def _add_models(routes: dict[str, RouteValue], router: RouteValue, models: Iterable[RouterModel]) -> None:
    """Add a route for each model of a router; one that is there already stays."""
    for one in models:
        name = f"{router.name}/{one.id}"
        if name not in routes:
            facts = router.facts | {"state": _STATES.get(one.status, "stopped"), "model": one.id}
            routes[name] = msgspec.structs.replace(
                router, name=name, rest=one.id, nested=False, only_nested=None, facts=facts
            )


def changes(before: Known, now: Known, version: int) -> Tables | None:
    """Return what a worker has to be told; None for nothing."""
    targets = [one for key, one in now.targets.items() if before.targets.get(key) != one]
    routes = [one for name, one in now.routes.items() if before.routes.get(name) != one]
    gone_targets = [key for key in before.targets if key not in now.targets]
    gone_routes = [name for name in before.routes if name not in now.routes]
    if not (targets or routes or gone_targets or gone_routes):
        return None
    return Tables(version=version, targets=targets, routes=routes, gone_targets=gone_targets, gone_routes=gone_routes)
