"""The keys of the manifest, with types and descriptions.

This model validates manifests; the JSON Schema and the manifest reference are generated from it.
"""

from typing import Literal

from pydantic import Field, model_validator

from garrison.fleet.manifest.fields import (
    Flag,
    Interval,
    Keys,
    LabelText,
    Name,
    Port,
    Rank,
    SecretModel,
    Text,
    Timeout,
    Word,
)
from garrison.fleet.manifest.instance_model import InstanceModel
from garrison.fleet.manifest.route_model import RouteModel

__all__ = ["AdapterModel", "FleetManifest", "HookModel", "ModelModel", "PolicyModel", "TargetModel"]


class TlsModel(Keys):
    """TLS settings. Paths name PEM files and are relative to the manifest."""

    ca: Text | None = Field(None, description="Certificates to trust instead of the system's.")
    cert: Text | None = Field(None, description="Client certificate, if the server requires one.")
    key: Text | None = Field(None, description="Private key of `cert`, if it is in a separate file.")
    insecure: Flag = Field(
        False, description="Accept any certificate. Shown as a warning wherever the target is displayed."
    )

    @model_validator(mode="after")
    def _pair(self) -> "TlsModel":
        if self.key is not None and self.cert is None:
            raise ValueError("key requires cert")
        return self


def _no_tls() -> TlsModel:
    return TlsModel.model_validate({})


class TargetModel(Keys):
    """A vLLM server. Its key is its identity; everything else may change in place."""

    type: Literal["VLLM", "vllm"] | None = Field(None, description="`VLLM`, the only type so far.")
    base_url: Text | None = Field(
        None, description="`http://host:8000`. A trailing `/v1` or slash is ignored; a path prefix is kept."
    )
    host: Text | None = Field(None, description="Instead of `base_url`: a host name, IPv4 or IPv6 address.")
    port: Port | None = Field(None, description="Used with `host`; default 8000.")
    scheme: Literal["http", "https"] | None = Field(None, description="Used with `host`; default `http`.")
    base_model: Text | None = Field(
        None,
        description="The base model that the server's list must contain to be believed; default: the first one seen.",
    )
    labels: dict[Name, LabelText] = Field(default_factory=dict, description="Labels for `select`.")
    api_key: SecretModel | None = Field(None, description="Sent as a bearer token, to this target only.")
    headers: dict[Name, Text | SecretModel] = Field(default_factory=dict, description="Sent with every request.")
    tls: TlsModel = Field(
        default_factory=_no_tls,
        description="Which certificates to trust, and which client certificate to present.",
    )
    adapter_store: Text | None = Field(
        None,
        description="A directory that Garrison writes and the server reads under the same path, or `none`. Default: "
        "a directory in Garrison's data directory for a loopback address, `none` for any other.",
    )
    max_lora_rank: Rank | None = Field(None, description="The server's limit, if known.")
    adapter_slots: Rank | None = Field(
        None,
        description="How many adapters the server is to hold at a time. Those that are loaded on demand keep to it; an "
        "update that finds no free one unloads the old version first. Default: no limit, and 8 on demand.",
    )
    prefix_caching: Flag | None = Field(None, description="`false` if the server runs without prefix caching.")
    timeout: Timeout = Field(5.0, description="For connecting, and for every response except to a load.")
    load_timeout: Timeout = Field(120.0, description="For the response to a load.")
    probe: Flag | None = Field(
        None,
        description="Whether to request one token from a loaded adapter. Default: yes, but no answer in time is not an "
        "error. `true`: the server must answer, and the token's probability is compared with the base model's, for "
        "which vLLM pauses for some seconds once after its start.",
    )


class AdapterModel(Keys):
    """A LoRA adapter, on the targets named by exactly one of `target`, `targets` and `select`."""

    type: Literal["VLLM::Inference::LoRAAdapter"] | None = Field(None, description="`VLLM::Inference::LoRAAdapter`.")
    target: Text | None = Field(None, description="A key of `targets` or `instances`.")
    targets: list[Text] | None = Field(None, min_length=1, description="Keys of `targets` and `instances`.")
    select: dict[Name, LabelText] | None = Field(
        None, min_length=1, description="Selects every target with these labels; at least one must match."
    )
    lora_name: Name | None = Field(
        None, description="Model name in client requests, without white space; default: the key. Create-only."
    )
    lora_path: Text = Field(
        description="Path of the weights on the server (`~` is the server's home directory). `./x` and `../x` are "
        "relative to the manifest."
    )
    base_model_name: Text | None = Field(
        None,
        description="The base model that the adapter must be attached to; default: whichever the target serves. "
        "Create-only.",
    )
    is_3d_lora_weight: Flag = Field(False, description="Layout of MoE weights. Create-only.")
    probe: Flag | None = Field(None, description="Overrides the target's `probe`.")
    update: Literal["in_place", "versioned"] | None = Field(
        None,
        description="How new content replaces the old. `versioned`: it is loaded beside the old one, under a name that "
        "carries its digest, and the gateway changes over when it answers; nobody can use `lora_name` at the server "
        "itself. `in_place`: the name is unloaded and loaded. Default: `versioned` on instances of this machine, which "
        "only the gateway reaches, `in_place` elsewhere.",
    )
    load: Literal["eager", "on_demand"] = Field(
        "eager",
        description="`on_demand`: it is loaded when a request asks the gateway for it. When the target is full, the "
        "one on demand that was not used for longest makes room.",
    )

    @model_validator(mode="after")
    def _one(self) -> "AdapterModel":
        if (self.target is not None) + (self.targets is not None) + (self.select is not None) != 1:
            raise ValueError("give exactly one of target, targets, select")
        return self


class ModelModel(Keys):
    """A base model. It is checked but never changed, since it is set when vLLM starts."""

    type: Literal["VLLM::Inference::Model"] | None = Field(None, description="`VLLM::Inference::Model`.")
    target: Text = Field(description="A key of `targets` or `instances`.")
    id: Text | None = Field(None, description="The model's id; default: the key.")
    root: Text | None = Field(None, description="The path or name that it was loaded from.")


class PolicyModel(Keys):
    """Policy of the agent."""

    on_drift: Literal["report", "restore"] = Field(
        "report", description="`report`: drift is recorded and reported; `restore`: it is also repaired."
    )
    interval: Interval = Field(30.0, description="Time between two observations of a target.")


def _default_policy() -> PolicyModel:
    return PolicyModel.model_validate({})


class HookModel(Keys):
    """A receiver of events: exactly one of `url` and `command`."""

    on: list[Literal["drift", "restored", "unreachable", "recovered"]] = Field(
        min_length=1, description="Kinds of events to deliver."
    )
    url: Text | SecretModel | None = Field(None, description="Receives a POST with the event as JSON.")
    command: list[Word] | None = Field(
        None, min_length=1, description="A program and its arguments; reads the event as JSON from standard input."
    )
    headers: dict[Name, Text | SecretModel] = Field(default_factory=dict, description="Sent with the POST to `url`.")

    @model_validator(mode="after")
    def _one(self) -> "HookModel":
        if (self.url is None) == (self.command is None):
            raise ValueError("give exactly one of url, command")
        if self.headers and self.url is None:
            raise ValueError("headers require url")
        return self


class FleetManifest(Keys):
    """What runs here, what is managed elsewhere, which adapters are attached to it, and how it is reached."""

    stack: Name = Field(description="The unit of reconciliation: everything that this manifest owns.")
    instances: dict[Name, InstanceModel] = Field(
        default_factory=dict, description="Engines that a Garrison server runs, by a name of your choice."
    )
    targets: dict[Name, TargetModel] = Field(
        default_factory=dict,
        description="Servers that Garrison manages and did not start, by a name of your choice.",
    )
    adapters: dict[Name, AdapterModel] = Field(default_factory=dict, description="Adapters, by a label of your choice.")
    models: dict[Name, ModelModel] = Field(default_factory=dict, description="Base models; checked, never changed.")
    routes: dict[Name, RouteModel] = Field(
        default_factory=dict, description="Public model names, and where their requests go."
    )
    profiles: dict[Name, dict[Name, Name | None]] = Field(
        default_factory=dict,
        description="Sets of model names that go elsewhere while the profile is active: each to an instance or a "
        "route, or, with null, nowhere. None is active until somebody chooses one.",
    )
    policy: PolicyModel = Field(default_factory=_default_policy, description="How the agent handles drift.")
    hooks: list[HookModel] = Field(default_factory=list, description="Receivers of drift and outage events.")
