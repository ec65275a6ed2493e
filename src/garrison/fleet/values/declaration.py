"""The declaration: the contents of a manifest as values, with one entry per adapter and target."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from garrison.fleet.values.instance import InstanceDeclaration
from garrison.fleet.values.route import RouteDeclaration
from garrison.fleet.values.target import TargetSpec, headers_from_json, headers_to_json
from garrison.net.endpoint import Secret

__all__ = [
    "ADAPTER_TYPE",
    "MODEL_TYPE",
    "AdapterDeclaration",
    "Declaration",
    "Hook",
    "ModelSpec",
    "Policy",
    "versioned_name",
]

ADAPTER_TYPE = "VLLM::Inference::LoRAAdapter"
MODEL_TYPE = "VLLM::Inference::Model"
_DIGITS = 12
"""Of a digest, in the name of a version."""


def versioned_name(name: str, digest: str) -> str:
    """Return the name under which a server serves one version of an adapter: `sql@3f2a9c1b7d04`."""
    return f"{name}@{digest[:_DIGITS]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterDeclaration:
    """One adapter on one target.

    Attributes:
        label: the key in the manifest; it identifies an adapter across a rename.
        lora_name: the model name in client requests. Create-only.
        lora_path: path of the weights on the server.
        base_model_name: the base model it must be attached to; None: whichever the target serves. Create-only.
        is_3d_lora_weight: layout of MoE weights. Create-only, and not reported by vLLM.
        digest: of the content at `lora_path` (`models.adapters.inspect`); None if it cannot be read locally.
        probe: overrides the target's `probe`.
        versioned: each version has a name of its own on the server (`served_name`), and is loaded beside the one
            before it. Clients of the gateway go on using `lora_name`.
        on_demand: it is loaded when a request asks the gateway for it, and may be unloaded for another one.
        select: the labels by which its targets were selected, in order of the manifest; none if they were named.
    """

    target: str
    label: str
    lora_name: str
    lora_path: str
    base_model_name: str | None = None
    is_3d_lora_weight: bool = False
    digest: str | None = None
    probe: bool | None = None
    versioned: bool = False
    on_demand: bool = False
    select: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "select", tuple((name, value) for name, value in self.select))  # JSON has lists

    @property
    def served_name(self) -> str:
        """The name under which the server serves it. Without a digest, versions cannot be told apart."""
        return versioned_name(self.lora_name, self.digest) if self.versioned and self.digest else self.lora_name

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values; `AdapterDeclaration(**body)` reads them back.

        An adapter that is neither versioned, on demand nor selected is written as before there were such, so that it
        compares equal to what is on record.
        """
        extra: dict[str, Any] = {name: True for name in ("versioned", "on_demand") if getattr(self, name)}
        if self.select:
            extra["select"] = [list(one) for one in self.select]
        return {
            "target": self.target,
            "label": self.label,
            "lora_name": self.lora_name,
            "lora_path": self.lora_path,
            "base_model_name": self.base_model_name,
            "is_3d_lora_weight": self.is_3d_lora_weight,
            "digest": self.digest,
            "probe": self.probe,
        } | extra


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A declared base model. It is set when vLLM starts, so it can be checked but not changed."""

    target: str
    label: str
    id: str | None = None
    root: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values; `ModelSpec(**body)` reads them back."""
        return {"target": self.target, "label": self.label, "id": self.id, "root": self.root}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Policy of the agent. `interval` is in seconds."""

    on_drift: Literal["report", "restore"] = "report"
    interval: float = 30.0

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values; `Policy(**body)` reads them back."""
        return {"on_drift": self.on_drift, "interval": self.interval}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A receiver of events: a URL that gets a POST, or a command that reads the event as JSON from standard input.

    `on` holds event kinds: `drift`, `restored`, `unreachable`, `recovered`. `url` may be a reference to a secret, since
    the webhook URL of a chat service is itself a credential.
    """

    on: tuple[str, ...]
    url: str | Secret | None = None
    command: tuple[str, ...] = ()
    headers: Mapping[str, str | Secret] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values without defaults; `from_json` reads them back. Contains references, no secrets."""
        body: dict[str, Any] = {"on": list(self.on)}
        if self.url is not None:
            body["url"] = self.url.to_json() if isinstance(self.url, Secret) else self.url
        if self.command:
            body["command"] = list(self.command)
        if self.headers:
            body["headers"] = headers_to_json(self.headers)
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Hook":
        url = body.get("url")
        return cls(
            on=tuple(body["on"]),
            url=Secret.from_json(url) if isinstance(url, Mapping) else url,
            command=tuple(body.get("command", ())),
            headers=headers_from_json(body.get("headers", {})),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One complete stack.

    Attributes:
        targets: every declared target, with or without adapters, and the instances that adapters are attached to.
        profiles: by name, where model names go while it is active; None: nowhere.
    """

    stack: str
    targets: Mapping[str, TargetSpec] = field(default_factory=dict)
    adapters: tuple[AdapterDeclaration, ...] = ()
    models: tuple[ModelSpec, ...] = ()
    policy: Policy = Policy()
    hooks: tuple[Hook, ...] = ()
    instances: Mapping[str, InstanceDeclaration] = field(default_factory=dict)
    routes: Mapping[str, RouteDeclaration] = field(default_factory=dict)
    profiles: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values; `from_json` reads back an equal declaration. Contains references, no secrets.

        A stack without instances, routes and profiles is written as before there were any, so that it compares equal to
        what is on record.
        """
        more: dict[str, Mapping[str, InstanceDeclaration | RouteDeclaration]] = {
            "instances": self.instances,
            "routes": self.routes,
        }
        return (
            {
                "stack": self.stack,
                "targets": {name: target.to_json() for name, target in self.targets.items()},
                "adapters": [adapter.to_json() for adapter in self.adapters],
                "models": [model.to_json() for model in self.models],
                "policy": self.policy.to_json(),
                "hooks": [hook.to_json() for hook in self.hooks],
            }
            | {key: {name: one.to_json() for name, one in some.items()} for key, some in more.items() if some}
            | ({"profiles": {name: dict(pins) for name, pins in self.profiles.items()}} if self.profiles else {})
        )

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Declaration":
        return cls(
            stack=body["stack"],
            targets={name: TargetSpec.from_json(name, target) for name, target in body["targets"].items()},
            adapters=tuple(AdapterDeclaration(**adapter) for adapter in body["adapters"]),
            models=tuple(ModelSpec(**model) for model in body["models"]),
            policy=Policy(**body["policy"]),
            hooks=tuple(Hook.from_json(hook) for hook in body["hooks"]),
            instances={
                name: InstanceDeclaration.from_json(name, one) for name, one in body.get("instances", {}).items()
            },
            routes={name: RouteDeclaration.from_json(name, one) for name, one in body.get("routes", {}).items()},
            profiles=body.get("profiles", {}),
        )
