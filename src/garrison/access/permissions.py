"""What a caller may do, and how much of it."""

from dataclasses import dataclass, fields
from enum import StrEnum

__all__ = ["ALL", "INFERENCE", "UNLIMITED", "Grants", "Limits", "Permissions", "Scope"]


class Scope(StrEnum):
    """What a key is for."""

    INFERENCE = "inference"
    """Requests to models."""
    READ = "read"
    """Every GET of the management API."""
    MANAGE = "manage"
    """Every call of the management API. A key with it has the other two as well, as llamactl's management keys do."""


@dataclass(frozen=True, slots=True)
class Grants:
    """What inference is limited to: a request is permitted if its instance or its model is named.

    Attributes:
        instances: names of instances. A later instance of the same name is permitted too.
        instance_ids: ids of instances, which are never used again.
        models: names as they stand in requests, of routes or of models.
    """

    instances: frozenset[str] = frozenset()
    instance_ids: frozenset[int] = frozenset()
    models: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.instances or self.instance_ids or self.models)


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a caller may do. `only` limits inference; None permits all instances and models."""

    scopes: frozenset[Scope] = frozenset({Scope.INFERENCE})
    only: Grants | None = None

    @property
    def mode(self) -> str:
        """llamactl's word for the limit: `allow_all` or `per_instance`."""
        return "allow_all" if self.only is None else "per_instance"


ALL = Permissions(frozenset(Scope))
INFERENCE = Permissions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a caller may do; None is no limit.

    Attributes:
        requests_per_minute: requests that may begin.
        tokens_per_minute: tokens of prompts and answers together.
        concurrent: requests in progress at once.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None

    def __bool__(self) -> bool:
        return any(getattr(self, one.name) is not None for one in fields(self))


UNLIMITED = Limits()
