"""The seam to whatever has engines: it knows the names, and makes a cold one ready."""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from garrison.base.errors import GarrisonError

__all__ = ["Activator", "Admission", "Entry", "Hold", "Served", "Upstream"]


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where requests go.

    Attributes:
        url: scheme, host and port, without a slash at its end.
        key: the key that it asks for.
        model: the name it knows its model by; empty where the client's name is passed on.
        hop: it is another server, which must answer by itself: two that know each other would go round in circles.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    model: str = ""
    hop: bool = False


@dataclass(frozen=True, slots=True)
class Served:
    """A name that requests may use, as `/v1/models` lists it.

    Attributes:
        created: Unix time.
        instances, instance_id: what is behind it, for permissions.
        only_nested: it has no model of its own: those that are known, for `ID/MODEL`; None where it has one.
        facts: further fields, such as its state.
    """

    id: str
    created: int
    owned_by: str = "garrison"
    instances: tuple[str, ...] = ()
    instance_id: int | None = None
    only_nested: tuple[str, ...] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class Hold(Protocol):
    """The right to one upstream, until it is released. Releasing twice is one release."""

    @property
    def upstream(self) -> Upstream: ...
    def release(self) -> None: ...


class Entry(Protocol):
    """A request that was let in, until it leaves. Leaving twice is leaving once."""

    @property
    def counts_tokens(self) -> bool:
        """Whether it matters what the request uses."""

    def spend(self, tokens: int) -> None:
        """Say how many tokens it has used so far, in all."""

    def leave(self) -> None: ...


class Admission(Protocol):
    """Whether requests may use names."""

    def refusal(self, scope: MutableMapping[str, Any], served: Served | None) -> GarrisonError | None:
        """Return why a request may not use `served`, or, with None, not even see names. None where it may."""

    def enter(self, scope: MutableMapping[str, Any]) -> Entry:
        """Count a request that begins.

        Raises:
            RateLimitedError: there are too many, or those before have used too much.
        """


class Activator(Protocol):
    def served(self) -> Sequence[Served]:
        """Return every name."""

    def find(self, model: str) -> Served | None:
        """Return what a request for `model` would use; None if nothing serves it."""

    async def acquire(self, model: str, *, start: bool = True) -> Hold:
        """Return a ready upstream, after a start if that is necessary and `start` allows it.

        Raises:
            NotFoundError: nothing serves `model`.
            NotReadyError: it is not ready, or not in time. Details: `retry_after`, and `loading` while it starts.
            GarrisonError: its start failed; the cause.
        """
