"""Observations: what a target was seen to serve, in three-valued logic.

    present   the list was believed and contains the name
    absent    the list was believed and does not contain the name
    unknown   there is no list that could be believed; `cause` says why

A list is believed if the target answered 200 with a well-formed vLLM model list that still contains the expected base
model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from garrison.net.errors import TransportError

__all__ = ["Capabilities", "Cause", "Presence", "Served", "Sighting", "cause_of"]


class Presence(StrEnum):
    """Whether an adapter is served."""

    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class Cause(StrEnum):
    """Why a target is unknown: everything a transport can fail with (`cause_of`), and what an answer can lack."""

    DNS = "dns"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    RESET = "reset"
    TLS = "tls"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_VLLM = "not-vllm"
    WRONG_BASE = "wrong-base"
    SERVER_ERROR = "server-error"
    MALFORMED = "malformed"
    NO_LORA_ROUTES = "no-lora-routes"
    """The list is believed, but run-time LoRA is off: a missing adapter cannot be loaded, so it proves nothing."""
    NOT_RUNNING = "not-running"
    """It is an instance that does not run now, so it was not asked."""
    LOCAL = "local"
    """The problem is on Garrison's side: an unreadable secret or certificate file, no file descriptors left."""
    NEVER_ASKED = "never-asked"


def cause_of(error: "TransportError") -> Cause:
    """Translate the transport's cause; every one of them is a cause of unknown under the same name."""
    return Cause(error.cause)


@dataclass(frozen=True, slots=True)
class Served:
    """One entry of a model list: a base model when `parent` is None, else an adapter."""

    name: str
    root: str | None
    parent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a server can do, as far as it reports; None where it does not.

    Attributes:
        started_at: Unix seconds, from `process_start_time_seconds`; another value means another process.
        lora_routes: whether adapters can be loaded at run time.
        max_loras: maximum number of adapters in one batch.
    """

    version: str | None = None
    healthy: bool | None = None
    lora_routes: bool | None = None
    max_loras: int | None = None
    max_lora_rank: int | None = None
    prefix_caching: bool | None = None
    started_at: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Capabilities":
        return cls(**{name: body.get(name) for name in cls.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One observation of one target.

    Attributes:
        at: when the observation began, in UTC.
        cause: None if the list was believed.
        detail: the reason for display.
        served: the believed list by name; empty if the target is unknown.
        base: the base model by which the list was believed.
        retry_after: seconds that the server asked to wait, if any.
        seconds: duration of the observation.
        capabilities: as probed in this observation, or as last recorded.
    """

    target: str
    at: datetime
    cause: Cause | None = None
    detail: str = ""
    served: Mapping[str, Served] = field(default_factory=dict)
    base: str | None = None
    retry_after: float | None = None
    seconds: float = 0.0
    capabilities: Capabilities | None = None

    @property
    def known(self) -> bool:
        return self.cause is None

    @property
    def adapters(self) -> dict[str, Served]:
        return {name: one for name, one in self.served.items() if one.parent is not None}

    def adapter(self, name: str) -> Served | None:
        """Return the adapter listed as `name`; None if there is none, or the list was not believed."""
        found = self.served.get(name)
        return found if found is not None and found.parent is not None else None

    def presence(self, name: str) -> Presence:
        """Return whether adapter `name` is served."""
        if not self.known:
            return Presence.UNKNOWN
        if self.adapter(name) is not None:
            return Presence.PRESENT
        return Presence.UNKNOWN if self.lora_routes is False else Presence.ABSENT

    @property
    def lora_routes(self) -> bool | None:
        """Whether adapters can be loaded at run time; None if not known."""
        return self.capabilities.lora_routes if self.capabilities else None
