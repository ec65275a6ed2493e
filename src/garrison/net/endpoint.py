"""What it takes to reach a server: its address, how to trust it, and where its secrets are (never the secrets)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

__all__ = ["Endpoint", "Secret", "Server", "Tls"]


@dataclass(frozen=True, slots=True)
class Secret:
    """A reference to a secret, which is read when it is needed. Only the reference is stored or shown.

    Attributes:
        kind: `env` (the name of a variable), `file` (a path; the content without its final line break) or `command`
            (argv; its standard output, likewise).
        value: the name, path or argv.
    """

    kind: Literal["env", "file", "command"]
    value: str | tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {self.kind: list(self.value) if isinstance(self.value, tuple) else self.value}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Secret":
        ((kind, value),) = body.items()
        return cls(kind, tuple(value) if isinstance(value, list) else value)  # type: ignore[arg-type] # written by us


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Paths of PEM files. `insecure` turns verification off, and is shown wherever the server is."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    insecure: bool = False


class Endpoint(Protocol):
    """What a `Dialer` needs to know about a server. `Server` is the plain value; a fleet's target satisfies it too."""

    @property
    def base_url(self) -> str:
        """`scheme://host:port`, with a path prefix where a proxy adds one."""

    @property
    def api_key(self) -> Secret | None:
        """Sent as a bearer token."""

    @property
    def headers(self) -> Mapping[str, str | Secret]:
        """Sent with every request; a value may be a secret."""

    @property
    def tls(self) -> Tls:
        """How an https server is verified."""

    @property
    def timeout(self) -> float:
        """Seconds for resolving the name, connecting and the TLS handshake together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """An endpoint with nothing but what a connection needs. See `Endpoint` for the fields."""

    base_url: str
    api_key: Secret | None = None
    headers: Mapping[str, str | Secret] = field(default_factory=dict)
    tls: Tls = Tls()
    timeout: float = 5.0
