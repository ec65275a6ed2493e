"""What a manifest says about a route beside its targets, as the workers are told it. Pure."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from garrison.base.errors import InvalidError
from garrison.fleet.values.route import RouteDeclaration
from garrison.gateway.choose.policy import policy_of
from garrison.gateway.link.route_settings import (
    AffinityValue,
    FilterValue,
    LimitsValue,
    QueueValue,
    TimeoutsValue,
)

__all__ = ["declared_settings"]

T = TypeVar("T")

_OF_AFFINITY = ("header", "by", "prompt_bytes")
"""Options that are not the policy's own: they say what it is given to know of a request."""


def declared_settings(route: RouteDeclaration, policy: str) -> dict[str, Any]:
    """Return fields of a `RouteValue`.

    Args:
        policy: the gateway's name for that of the route.
    """
    more = route.more
    options = more.get(policy, {})
    return {
        "options": _options(policy, options),
        "affinity": _affinity(options),
        "aliases": tuple(more.get("aliases", ())),
        "filters": _filters(route.name, more),
        "limits": _value(more, "limits", LimitsValue),
        "queue": _value(more, "queue", QueueValue),
        "timeouts": _value(more, "timeouts", TimeoutsValue),
    }


def _options(policy: str, given: Mapping[str, Any]) -> dict[str, int | float]:
    """Return the options of a policy. Those that it does not take, such as those of a later version, are dropped."""
    options = {key: value for key, value in given.items() if key not in _OF_AFFINITY}
    try:
        policy_of(policy, **options)
    except InvalidError:
        return {}
    return options


def _affinity(given: Mapping[str, Any]) -> AffinityValue | None:
    found = {key: value for key, value in given.items() if key in _OF_AFFINITY}
    return msgspec.convert(found, AffinityValue) if found else None


def _filters(name: str, more: Mapping[str, Any]) -> dict[str, FilterValue]:
    """Return what changes, by the name that a request was sent to. What an alias says goes over what the route says."""
    sets, strips = more.get("set", {}), more.get("strip", ())
    found = {name: (sets, strips)}
    for alias, own in more.get("aliases", {}).items():
        found[alias] = ({**sets, **own.get("set", {})}, (*strips, *own.get("strip", ())))
    return {
        one: FilterValue(
            set={key: json.dumps(value, ensure_ascii=False) for key, value in values.items()},
            strip=tuple(dict.fromkeys(names)),
        )
        for one, (values, names) in found.items()
        if values or names
    }


def _value(more: Mapping[str, Any], key: str, kind: type[T]) -> T | None:
    return msgspec.convert(more[key], kind) if key in more else None
