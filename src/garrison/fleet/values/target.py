"""A declared target: its address, how to verify it, and references to its secrets (never the secrets)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from garrison.net.endpoint import Secret, Tls

__all__ = [
    "NO_STORE",
    "InstancePlace",
    "TargetSpec",
    "headers_from_json",
    "headers_to_json",
    "instance_place",
    "instance_url",
]

NO_STORE = "none"
"""`adapter_store: none`: adapters are always loaded from the declared path."""


_INSTANCE = "instance://"


@dataclass(frozen=True, slots=True)
class InstancePlace:
    """Which instance a target is. `node`: the node that runs it; None for the one that asks."""

    name: str
    node: str | None = None


def instance_url(name: str, node: str | None = None) -> str:
    """Return what stands for the address of an instance: `instance://NAME` or `instance://NODE/NAME`.

    The real address changes with each start; whoever runs the instance knows it (`fleet.instance_dialer`).
    """
    return f"{_INSTANCE}{quote(node, safe='')}/{quote(name)}" if node else f"{_INSTANCE}{quote(name)}"


def instance_place(base_url: str) -> InstancePlace | None:
    """Return the instance that `base_url` stands for; None for the address of a server."""
    if not base_url.startswith(_INSTANCE):
        return None
    node, slash, name = base_url.removeprefix(_INSTANCE).partition("/")
    return InstancePlace(unquote(name), unquote(node)) if slash else InstancePlace(unquote(node))


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """One target.

    Attributes:
        name: its identity; everything else may change in place.
        base_url: `scheme://host:port`, with the path prefix of a proxy, if any; never with `/v1` or a slash at its end.
            Of an instance: see `instance_url`.
        base_model: the model id that its list must contain to be believed; None: the one first seen.
        headers: sent with every request; a value may be a secret.
        adapter_store: a directory that Garrison writes and the server reads, `none`, or None for the default: a store
            in the data directory for a loopback address, no store for any other.
        max_lora_rank: the server's limit, if known.
        adapter_slots: how many adapters it is to hold at a time; None for as many as are loaded.
        prefix_caching: False if the server is known to run without it.
        timeout: seconds for connecting, and for any answer except a load's.
        load_timeout: seconds for a load.
        probe: whether a loaded adapter must generate a token; None: only if the server answers in time.
    """

    name: str
    base_url: str
    base_model: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    api_key: Secret | None = None
    headers: Mapping[str, str | Secret] = field(default_factory=dict)
    tls: Tls = Tls()  # noqa: RUF009 - immutable
    adapter_store: str | None = None
    max_lora_rank: int | None = None
    adapter_slots: int | None = None
    prefix_caching: bool | None = None
    timeout: float = 5.0
    load_timeout: float = 120.0
    probe: bool | None = None

    @property
    def instance(self) -> InstancePlace | None:
        """The instance that this target is; None for a server that Garrison did not start."""
        return instance_place(self.base_url)

    @property
    def unverified(self) -> bool:
        """Whether the server's certificate is not verified, so that anyone may pose as it. Views show it."""
        return self.tls.insecure and self.base_url.startswith("https:")

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values without defaults; `from_json` reads them back. Contains references, no secrets."""
        body: dict[str, Any] = {"base_url": self.base_url}
        for name in ("base_model", "adapter_store", "max_lora_rank", "adapter_slots", "prefix_caching", "probe"):
            if (value := getattr(self, name)) is not None:
                body[name] = value
        if self.labels:
            body["labels"] = dict(self.labels)
        if self.api_key:
            body["api_key"] = self.api_key.to_json()
        if self.headers:
            body["headers"] = headers_to_json(self.headers)
        tls = {name: getattr(self.tls, name) for name in ("ca", "cert", "key", "insecure") if getattr(self.tls, name)}
        if tls:
            body["tls"] = tls
        for name, default in (("timeout", 5.0), ("load_timeout", 120.0)):
            if getattr(self, name) != default:
                body[name] = getattr(self, name)
        return body

    @classmethod
    def from_json(cls, name: str, body: Mapping[str, Any]) -> "TargetSpec":
        values = dict(body)
        if "api_key" in values:
            values["api_key"] = Secret.from_json(values["api_key"])
        if "headers" in values:
            values["headers"] = headers_from_json(values["headers"])
        if "tls" in values:
            values["tls"] = Tls(**values["tls"])
        return cls(name=name, **values)


def headers_to_json(headers: Mapping[str, str | Secret]) -> dict[str, Any]:
    return {name: value.to_json() if isinstance(value, Secret) else value for name, value in headers.items()}


def headers_from_json(body: Mapping[str, Any]) -> dict[str, str | Secret]:
    return {name: Secret.from_json(value) if isinstance(value, Mapping) else value for name, value in body.items()}
