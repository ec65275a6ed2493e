"""What llama-swap changes in the requests to a model, and how many it lets through: a route of the model's name."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from garrison.fleet.manifest.route_model import AliasModel, LimitsModel
from garrison.migrate.llama_swap_macros import Macros, unmarked
from garrison.migrate.values import Found, may_be_route

__all__ = ["add_aliases", "add_filters"]


def add_filters(model: str, name: str, body: Mapping[str, Any], own: Macros, found: Found) -> None:
    """Add what a model says about its requests to the route of its name, which is made if there is none.

    Args:
        name: of the instance that the model has become.
    """
    where = f"models.{model}"
    given = body.get("filters")
    filters: Mapping[str, Any] = given if isinstance(given, dict) else {}
    more: dict[str, Any] = {}
    if values := _parameters(filters.get("setParams"), own, found, f"{where}.filters.setParams"):
        more["set"] = values
    strip = [one.strip() for one in str(filters.get("stripParams") or "").split(",") if one.strip()]
    if names := [one for one in strip if _fits({"strip": [one]}, found, f"{where}.filters.stripParams")]:
        more["strip"] = [unmarked(one) for one in dict.fromkeys(names)]
    by_id = filters.get("setParamsByID")
    for key, params in by_id.items() if isinstance(by_id, dict) else ():
        at = f"{where}.filters.setParamsByID.{key}"
        values = _parameters(params, own, found, at)
        alias = own.expand(str(key))
        if alias == model:
            more["set"] = {**more.get("set", {}), **values}
        elif _is_free(alias, found, at):
            more.setdefault("aliases", {})[alias] = {"set": values} if values else {}
    if body.get("concurrencyLimit") is not None and _limit(body["concurrencyLimit"], found, where):
        more["limits"] = {"concurrent": body["concurrencyLimit"]}
        found.remark(f"{where}.concurrencyLimit", "more requests than that wait; `queue` of the route bounds them")
    if more:
        found.routes.setdefault(model, {"to": name}).update(more)


def add_aliases(model: str, name: str, aliases: list[str], found: Found) -> None:
    """Add further names of a model. Where its route changes requests, they share that."""
    where = f"models.{model}.aliases"
    route = found.routes.get(model)
    for alias in aliases:
        if route is None or len(route) == 1:
            found.add_route(alias, [name], where)
        elif _is_free(alias, found, where):
            route.setdefault("aliases", {})[alias] = {}


def _parameters(given: Any, own: Macros, found: Found, where: str) -> dict[str, Any]:
    values = unmarked(_expanded(given, own)) if isinstance(given, dict) else {}
    return {str(key): value for key, value in values.items() if _fits({"set": {str(key): value}}, found, where)}


def _fits(alias: dict[str, Any], found: Found, where: str) -> bool:
    try:
        AliasModel.model_validate(alias)
    except ValidationError as error:
        found.remark(where, f"left out: {error.errors()[0]['msg']}")
        return False
    if not _keys_are_plain(alias):
        found.remark(where, "left out: a name in it is not plain text")
        return False
    return True


def _keys_are_plain(value: Any) -> bool:
    """Whether every key in a value can be a key of a manifest."""
    if isinstance(value, dict):
        return all(str(key).isprintable() and _keys_are_plain(one) for key, one in value.items())
    return not isinstance(value, list) or all(map(_keys_are_plain, value))


def _limit(value: Any, found: Found, where: str) -> bool:
    try:
        LimitsModel.model_validate({"concurrent": value})
    except ValidationError:
        found.remark(f"{where}.concurrencyLimit", "left out: no number of requests")
        return False
    return True


def _is_free(alias: str, found: Found, where: str) -> bool:
    taken = {one for route in found.routes.values() for one in route.get("aliases", {})}
    if not may_be_route(alias):
        found.remark(where, f"the name {alias!r} cannot be a key of a manifest")
    elif alias in taken or alias in found.routes or alias in found.instances:
        found.remark(where, f"the name {alias!r} is taken by another model")
    else:
        return True
    return False


def _expanded(value: Any, own: Macros) -> Any:
    if isinstance(value, str):
        return own.value(value)
    if isinstance(value, dict):
        return {key: _expanded(one, own) for key, one in value.items()}
    return [_expanded(one, own) for one in value] if isinstance(value, list) else value
