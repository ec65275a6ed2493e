"""Turns the routes of a valid manifest into declarations, and checks the rules across them."""

from collections.abc import Collection, Iterable, Mapping

from garrison.base.documents import Path
from garrison.base.problems import Problems, did_you_mean, dotted
from garrison.fleet.manifest.declare_instances import is_llama_router
from garrison.fleet.manifest.draft import Draft
from garrison.fleet.manifest.model import FleetManifest
from garrison.fleet.manifest.route_model import RouteModel
from garrison.fleet.values.declaration import AdapterDeclaration
from garrison.fleet.values.route import RouteDeclaration, RouteEnd

__all__ = ["declare_routes"]

_IN_ORDER = ("warm-first", "pin", "spill", "failover")
_WITH_OPTIONS = ("hash", "prefix", "sticky", "spill")


def declare_routes(
    draft: Draft, manifest: FleetManifest, adapters: Iterable[AdapterDeclaration], problems: Problems
) -> dict[str, RouteDeclaration]:
    """Return the routes by name; what is wrong goes to `problems`."""
    served: dict[str, set[str]] = {name: set() for name in (*manifest.instances, *manifest.targets)}
    for one in adapters:
        served.setdefault(one.target, set()).add(one.lora_name)
    routers = frozenset(name for name, one in manifest.instances.items() if is_llama_router(one))
    _check_names(draft, manifest, problems)
    return {name: _route(draft, name, model, served, routers, problems) for name, model in manifest.routes.items()}


def _check_names(draft: Draft, manifest: FleetManifest, problems: Problems) -> None:
    """A name stands for one route. It may be that of an instance or a target, which it then hides."""
    owners: dict[str, Path] = {name: ("routes", name) for name in manifest.routes}
    paths = list(owners.values())
    for route, model in manifest.routes.items():
        for alias in model.aliases:
            path: Path = ("routes", route, "aliases", alias)
            paths.append(path)
            if (other := owners.setdefault(alias, path)) is not path:
                text = f"{dotted(path)}: the name is taken ({draft.where(other)})"
                problems.add(draft.where(path), path, text, "Rename one of the two.")
    for path in paths:
        if str(path[-1]).endswith("/"):
            problems.add(draft.where(path), path, f"{dotted(path)}: a name cannot end in a slash", "Rename it.")


def _route(
    draft: Draft,
    name: str,
    model: RouteModel,
    served: Mapping[str, Collection[str]],
    routers: Collection[str],
    problems: Problems,
) -> RouteDeclaration:
    path: Path = ("routes", name)
    ends: list[RouteEnd] = []
    for index, text in enumerate(model.to):
        at: Path = (*path, "to", index)
        place, slash, adapter = text.partition("/")
        if place not in served:
            said = f"{dotted(at)}: unknown instance or target {draft.shown(at, place)}"
            problems.add(draft.where(at), at, said, did_you_mean(place, served, what="instances and targets"))
        elif place in routers:  # which models it has shows when it runs
            if not adapter:
                said = f"{dotted(at)}: {draft.shown(at, place)} is a router, which has no model of its own"
                problems.add(draft.where(at), at, said, f"Name one of its models: {place}/MODEL.")
        elif slash and adapter not in served[place]:
            said = f"{dotted(at)}: no adapter {draft.shown(at, adapter)} on {place!r}"
            problems.add(draft.where(at), at, said, did_you_mean(adapter, served[place], what=f"adapters on {place}"))
        if text in model.to[:index]:
            problems.add(draft.where(at), at, f"{dotted(at)}: duplicate {draft.shown(at, text)}", "Remove one.")
        weight = model.weights.get(text, 1.0)
        ends.append(RouteEnd(place=place, adapter=adapter if slash else None, weight=weight))
    _check_weights(draft, path, model, problems)
    _check_options(draft, path, model, problems)
    more = model.model_dump(exclude={"to", "policy", "weights"}, exclude_defaults=True)
    return RouteDeclaration(name=name, to=tuple(ends), policy=model.policy, more=more)


def _check_weights(draft: Draft, path: Path, model: RouteModel, problems: Problems) -> None:
    for key in model.weights:
        at = (*path, "weights", key)
        if key not in model.to:
            text = f"{dotted(at)}: {key!r} is not in `to`"
            problems.add(draft.where(at), at, text, did_you_mean(key, model.to, what="entries"))
        elif model.policy in _IN_ORDER:
            said = f"{dotted(at)}: {model.policy} has no weights"
            problems.add(draft.where(at), at, said, "Order the entries of `to`.")


def _check_options(draft: Draft, path: Path, model: RouteModel, problems: Problems) -> None:
    for key in _WITH_OPTIONS:
        if getattr(model, key) is not None and model.policy != key:
            at = (*path, key)
            said = f"{dotted(at)}: these are options of the policy {key}, and the policy is {model.policy}"
            problems.add(draft.where(at), at, said, f"Write policy: {key}, or remove them.")
    if (
        model.queue is not None
        and model.queue.busy is not None
        and (model.limits is None or not model.limits.concurrent)
    ):
        at = (*path, "queue", "busy")
        said = f"{dotted(at)}: a route without limits.concurrent is never busy"
        problems.add(draft.where(at), at, said, "Set limits: {concurrent: N}, or remove it.")
