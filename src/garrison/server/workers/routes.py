"""What there is, as the workers are told it. Reads the state of instances and nodes; changes nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from garrison.engines.llama_router import RouterModel, models_of
from garrison.fleet.values.demand import Place
from garrison.gateway.link.messages import RouteValue, Tables, TargetValue
from garrison.gateway.requests.paths import LLAMA_ROUTER
from garrison.instances.live import Live
from garrison.instances.stops import idle_limit
from garrison.nodes.node import NodeView
from garrison.server.workers.declared import Declared
from garrison.server.workers.profiles import pinned, pinned_ends

__all__ = [
    "InstanceValues",
    "Known",
    "changes",
    "facts_of",
    "instance_target",
    "known",
    "name_of",
    "node_of",
    "target_id",
]

T = TypeVar("T")
_NOTHING = Declared()
_INSTANCE = "instance:"
_NODE = "node:"
_STATES = {"loaded": "running", "loading": "starting", "sleeping": "sleeping", "failed": "failed"}
"""Of instances, for what a router says of its models."""
_NO_MODELS: Mapping[str, Sequence[RouterModel]] = {}


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
    engine, kind = live.engine, LLAMA_ROUTER if live.spec.router else live.spec.engine
    if engine is None or not live.admits:
        return TargetValue(id=target_id(live), engine=kind)
    upstream = engine.upstream
    return TargetValue(id=target_id(live), url=upstream.url, key=upstream.key, model=upstream.model, engine=kind)


def facts_of(live: Live, idle: float) -> dict[str, Any]:
    """What the list of models says about an instance. `max_model_len` is vLLM's name for the context, in tokens.

    Args:
        idle: seconds without requests after which one that does not say so is stopped.
    """
    found: dict[str, Any] = {"state": str(live.state), "model": live.spec.model, "engine": live.spec.engine}
    if live.context is not None:
        found["max_model_len"] = live.context
    if live.held:
        found["memory"] = dict(live.held)
    return found | {"idle_timeout": idle_limit(live.spec, idle) or 0}


class InstanceValues:
    """Instances as targets and routes. Each is made again only when it has changed: a server may have thousands, and
    tells its workers whenever one of them does."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[tuple[object, ...], TargetValue, RouteValue]] = {}

    def of(self, instances: Iterable[Live], idle: float) -> list[tuple[TargetValue, RouteValue]]:
        """Return the values of all instances, in their order.

        Args:
            idle: as in `facts_of`.
        """
        before, self._made = self._made, {}
        for live in instances:
            held = None if live.held is None else tuple(live.held.items())
            seen = (live.record, live.engine, live.admits, live.context, held, idle)
            made = before.get(live.name)
            if made is None or made[0] != seen:
                target = instance_target(live)
                made = (seen, target, _instance_route(live, target, idle))
            self._made[live.name] = made
        return [(target, route) for _, target, route in self._made.values()]


def _instance_route(live: Live, target: TargetValue, idle: float) -> RouteValue:
    return RouteValue(
        name=live.name,
        targets=(target.id,),
        nested=True,
        names=_names(live),
        instances=(live.name,),
        instance_ids=(live.record.id,),
        created=int(live.record.created.timestamp()),
        facts=facts_of(live, idle),
    )


def known(
    instances: Iterable[tuple[TargetValue, RouteValue]],
    nodes: Sequence[NodeView],
    declared: Declared = _NOTHING,
    *,
    models: Mapping[str, Sequence[RouterModel]] = _NO_MODELS,
) -> Known:
    """Return what there is: declared routes, and one for each instance, here and on the nodes, or for each model of one
    that is a router, for each target, and for each adapter; last, `NODE/INSTANCE`.

    What does not answer is cold. Of several of one name, the one that is named first here is answered.

    Args:
        instances: their values, in the order in which they were made.
        models: of the routers here, by the name of the instance.
    """
    targets: dict[str, TargetValue] = dict(declared.targets)
    routes: dict[str, RouteValue] = dict(declared.routes)
    aliases = {alias for one in declared.routes.values() for alias in one.aliases}
    ids: dict[str, int | None] = {}

    def add(route: RouteValue, models: Sequence[RouterModel] = ()) -> None:
        """Add one unless another has its name; where that is a declared one, what is beneath the name is asked here."""
        name = route.name
        if name in declared.routes or name in aliases:
            name += "/"
        if name in routes:
            return
        same = name == route.name and not models
        routes[name] = route if same else msgspec.structs.replace(route, name=name, listed=not models)
        for one in models:
            of_model = _model_route(route, one)
            if of_model.name not in aliases:
                routes.setdefault(of_model.name, of_model)

    for target, route in instances:
        targets[target.id] = target
        ids[route.name] = route.instance_ids[0]
        add(route, models.get(route.name, ()))
    for view in nodes:
        url = None if view.away else view.node.address
        target = TargetValue(id=_NODE + view.node.name, url=url, key=view.node.key, hop=True, counted=False)
        targets[target.id] = target
        for row in view.instances:
            created = row.get("created")
            route = RouteValue(
                name=str(row["name"]),
                targets=(target.id,),
                instances=(str(row["name"]),),
                nested=True,
                created=created if isinstance(created, int) else 0,
                facts={"state": str(row.get("state", "")), "node": view.node.name, **_engine_of(row)},
            )
            add(route, models_of(row.get("models")) or ())
    for route in declared.own.values():
        add(route)
    for name, route in declared.adapters.items():
        if name not in routes and (not route.listed or not _is_nested(name, routes)):
            routes[name] = route
    for view in nodes:
        node = RouteValue(name=view.node.name, targets=(_NODE + view.node.name,), nested=True, bare=False, listed=False)
        routes.setdefault(node.name, node)
    for name, route in {**declared.adapters, **declared.routes}.items():
        if routes.get(name) is route:
            here = tuple(ids.get(one) if _INSTANCE + one in route.targets else None for one in route.instances)
            routes[name] = msgspec.structs.replace(route, instance_ids=here)
    ends = pinned_ends(declared.ends, routes, declared.pins)
    return Known(targets, pinned(routes, declared.pins), declared.reasons, ends)


def _engine_of(row: Mapping[str, Any]) -> dict[str, str]:
    """The engine of an instance as another node tells it."""
    options = row.get("options")
    engine = options.get("backend_type") if isinstance(options, dict) else None
    return {"engine": engine} if isinstance(engine, str) else {}


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


def _model_route(router: RouteValue, model: RouterModel) -> RouteValue:
    """The route of one model of a router."""
    facts: dict[str, Any] = {name: router.facts[name] for name in ("engine", "node") if name in router.facts}
    facts |= {"state": _STATES.get(model.status, "stopped"), "model": model.id}
    if model.reason:
        facts["failure"] = model.reason
    return msgspec.structs.replace(router, name=f"{router.name}/{model.id}", rest=model.id, nested=False, facts=facts)


def changes(before: Known, now: Known, version: int) -> Tables | None:
    """Return what a worker has to be told; None for nothing."""
    targets = _changed(before.targets, now.targets)
    routes = _changed(before.routes, now.routes)
    gone_targets = [key for key in before.targets if key not in now.targets]
    gone_routes = [name for name in before.routes if name not in now.routes]
    if not (targets or routes or gone_targets or gone_routes):
        return None
    return Tables(version=version, targets=targets, routes=routes, gone_targets=gone_targets, gone_routes=gone_routes)


def _changed(before: Mapping[str, T], now: Mapping[str, T]) -> list[T]:
    """Return the values that are new. Most are the same object, which costs less to see than an equal one."""
    return [one for key, one in now.items() if (old := before.get(key)) is not one and old != one]
