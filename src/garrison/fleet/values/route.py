"""A declared route: a public model name, and where its requests go."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["RouteDeclaration", "RouteEnd"]

_OWN = ("to", "policy", "weights")


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteEnd:
    """One place that serves a route.

    Attributes:
        place: an instance or a target.
        adapter: the adapter there; None for the base model.
        weight: its share, relative to those of the others.
    """

    place: str
    adapter: str | None = None
    weight: float = 1.0

    @property
    def text(self) -> str:
        """How a manifest writes it: `PLACE` or `PLACE/ADAPTER`."""
        return self.place if self.adapter is None else f"{self.place}/{self.adapter}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteDeclaration:
    """One route.

    Attributes:
        name: what clients send as `model`.
        policy: as the manifest names it; the gateway knows what each does.
        more: what else the manifest says about it, under the manifest's keys, JSON-ready and without defaults: options
            of the policy, filters, aliases, limits. The gateway knows what it means.
    """

    name: str
    to: tuple[RouteEnd, ...] = field(default=())
    policy: str = "least-outstanding"
    more: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return what the manifest says, JSON-ready and without defaults; `from_json` reads it back."""
        ends = [one.text for one in self.to]
        body: dict[str, Any] = {"to": ends[0] if len(ends) == 1 else ends}
        if self.policy != "least-outstanding":
            body["policy"] = self.policy
        if weights := {one.text: one.weight for one in self.to if one.weight != 1.0}:
            body["weights"] = weights
        return {**body, **self.more}

    @classmethod
    def from_json(cls, name: str, body: Mapping[str, Any]) -> "RouteDeclaration":
        ends = [body["to"]] if isinstance(body["to"], str) else body["to"]
        weights = body.get("weights", {})
        made = tuple(_end(one, weights.get(one, 1.0)) for one in ends)
        more = {key: value for key, value in body.items() if key not in _OWN}
        return cls(name=name, to=made, policy=body.get("policy", "least-outstanding"), more=more)


def _end(text: str, weight: float) -> RouteEnd:
    place, slash, adapter = text.partition("/")
    return RouteEnd(place=place, adapter=adapter if slash else None, weight=weight)
