"""Compares how an adapter is declared with how it was last applied. No I/O."""

from collections.abc import Mapping
from typing import Any

from garrison.fleet.values.declaration import AdapterDeclaration
from garrison.fleet.values.plan import Change
from garrison.store.records import Resource

__all__ = ["differences"]

_WORDS = {"versioned": ("in_place", "versioned"), "on_demand": ("eager", "on_demand")}
"""How a manifest writes a flag that is off, and one that is on."""


def differences(spec: AdapterDeclaration, recorded: Resource) -> list[Change]:
    """Return the changed fields, except fields that are not declared and content that cannot be read locally."""
    before: Mapping[str, Any] = recorded.spec
    found: list[Change] = []
    if recorded.key.name == spec.served_name and before.get("is_3d_lora_weight", False) != spec.is_3d_lora_weight:
        was, now = str(before.get("is_3d_lora_weight", False)).lower(), str(spec.is_3d_lora_weight).lower()
        found.append(Change("is_3d_lora_weight", was, now, immutable=True))
    was_base, base = before.get("base_model_name"), spec.base_model_name
    if was_base and base and was_base != base:
        found.append(Change("base_model_name", was_base, base, immutable=True))
    if before.get("lora_path") != spec.lora_path:
        found.append(Change("lora_path", before.get("lora_path"), spec.lora_path))
    old, new = before.get("digest"), spec.digest
    if old and new and old != new:
        found.append(Change("content", _short(old), _short(new)))
    for flag, named in (("versioned", "update"), ("on_demand", "load")):
        if bool(before.get(flag)) != getattr(spec, flag):
            found.append(Change(named, _WORDS[flag][bool(before.get(flag))], _WORDS[flag][getattr(spec, flag)]))
    if recorded.label != spec.label:
        found.append(Change("label", recorded.label, spec.label))
    return found


def _short(digest: str) -> str:
    return f"sha256:{digest[:12]}"
