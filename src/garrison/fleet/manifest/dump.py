"""Writes a declaration as a concise manifest. Loading the manifest gives an equal declaration."""

import itertools
from collections.abc import Collection, Mapping
from typing import Any

import yaml

from garrison.base.values import duration_text
from garrison.base.yaml_text import yaml_text
from garrison.fleet.manifest.variables import escape
from garrison.fleet.manifest.writable import LONGEST_NAME
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration, Policy

__all__ = ["dump_manifest", "manifest_body"]

_DURATIONS = frozenset({"idle", "interval", "load_timeout", "timeout"})


def dump_manifest(declaration: Declaration, *, selections: bool = True) -> str:
    """Return `declaration` as YAML, without defaults.

    An adapter that is the same on several targets is written once. Adapters that share a label but differ get separate
    labels: `sql`, `sql-edge-2`.
    """
    body = manifest_body(declaration, selections=selections)
    return "\n".join(_block(key, _with_durations(key, value)) for key, value in body.items())


def _with_durations(section: str, value: Any) -> Any:
    """The section with durations as people write them, `30m` for 1800 seconds."""
    if section == "policy":
        return _durations(value)
    if section in ("targets", "instances"):
        return {name: _durations(one) for name, one in value.items()}
    return value


def _durations(fields: Any) -> Any:
    if not isinstance(fields, dict):
        return fields
    return {key: _text(one) if key in _DURATIONS else one for key, one in fields.items()}


def _text(seconds: Any) -> Any:
    """A duration in whole seconds as text; anything else as it is."""
    whole = isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds > 0 and seconds % 1 == 0
    return duration_text(seconds) if whole else seconds


def _block(key: str, value: Any) -> str:
    if key == "instances":  # few, and the only ones with text of several lines
        return yaml_text({key: value}, flow=None)
    style = None if isinstance(value, dict | list) else False  # None: PyYAML writes leaf collections on one line
    # libyaml writes 100,000 targets in a third of the time. It escapes characters that the Python dumper writes as they
    # are, so a text with an escape in it is written again.
    text = _dump(key, value, style, getattr(yaml, "CSafeDumper", yaml.SafeDumper))
    return _dump(key, value, style, yaml.SafeDumper) if "\\" in text else text


def _dump(key: str, value: Any, style: bool | None, dumper: type[yaml.SafeDumper]) -> str:
    text: str = yaml.dump(
        {key: value}, Dumper=dumper, sort_keys=False, allow_unicode=True, default_flow_style=style, width=120
    )
    return text


def manifest_body(declaration: Declaration, *, selections: bool = True) -> dict[str, Any]:
    """Return `declaration` as a mapping with the manifest's keys; a `${` that would begin a variable is escaped.

    Args:
        selections: whether targets that were selected by labels are written as such, or by name.
    """
    body: dict[str, Any] = {"stack": declaration.stack}
    if declaration.instances:
        body["instances"] = {name: one.to_json() for name, one in declaration.instances.items()}
    # A target that stands for an instance follows from what is attached to it.
    targets = {name: one for name, one in declaration.targets.items() if one.instance is None}
    if targets:
        body["targets"] = {name: target.to_json() for name, target in targets.items()}
    if declaration.adapters:
        local = {name for name, one in declaration.instances.items() if one.node is None and one.engine != "custom"}
        labels = {name: one.labels for name, one in targets.items()} if selections else {}
        body["adapters"] = _adapters(declaration.adapters, local, labels)
    if declaration.models:
        body["models"] = {
            model.label: {"target": model.target}
            | {key: value for key in ("id", "root") if (value := getattr(model, key)) is not None}
            for model in declaration.models
        }
    if declaration.routes:
        body["routes"] = {name: one.to_json() for name, one in declaration.routes.items()}
    if declaration.profiles:
        body["profiles"] = {name: dict(pins) for name, pins in declaration.profiles.items()}
    default = Policy().to_json()
    policy = {key: value for key, value in declaration.policy.to_json().items() if value != default[key]}
    if policy:
        body["policy"] = policy
    if declaration.hooks:
        body["hooks"] = [hook.to_json() for hook in declaration.hooks]
    return {key: _escaped(value) for key, value in body.items()}


def _adapters(
    adapters: tuple[AdapterDeclaration, ...], local: Collection[str], targets: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """Write adapters.

    Args:
        local: names of instances where they are versioned by default.
        targets: the labels of targets.
    """
    same: dict[tuple[object, ...], list[AdapterDeclaration]] = {}
    for one in adapters:
        key = (
            one.label, one.lora_name, one.lora_path, one.base_model_name, one.probe, one.is_3d_lora_weight,
            one.on_demand, one.select, _update(one, local),
        )  # fmt: skip
        same.setdefault(key, []).append(one)
    written: dict[str, Any] = {}
    labels = {one.label for one, *_ in same.values()}
    for first, *others in same.values():
        label = first.label if first.label not in written else _free(f"{first.label}-{first.target}", labels)
        labels.add(label)
        body: dict[str, Any] = {"targets": [first.target, *(one.target for one in others)]}
        if not others:
            body = {"target": first.target}
        if first.select and _selected(first.select, targets) == {first.target, *(one.target for one in others)}:
            body = {"select": dict(first.select)}
        body |= _fields(first, _update(first, local))
        if body["lora_name"] == label:
            del body["lora_name"]
        written[label] = body
    return written


def _selected(select: tuple[tuple[str, str], ...], targets: Mapping[str, Mapping[str, str]]) -> set[str]:
    return {name for name, labels in targets.items() if dict(select).items() <= labels.items()}


def _update(adapter: AdapterDeclaration, local: Collection[str]) -> str | None:
    """Return the value of `update`; None where the default says the same."""
    if adapter.versioned == (adapter.target in local):
        return None
    return "versioned" if adapter.versioned else "in_place"


def _fields(adapter: AdapterDeclaration, update: str | None) -> dict[str, Any]:
    body = {"lora_name": adapter.lora_name, "lora_path": adapter.lora_path}
    optional = {"base_model_name": adapter.base_model_name, "probe": adapter.probe, "update": update}
    flag: dict[str, Any] = {"is_3d_lora_weight": True} if adapter.is_3d_lora_weight else {}
    flag |= {"load": "on_demand"} if adapter.on_demand else {}
    return body | {key: value for key, value in optional.items() if value is not None} | flag


def _free(label: str, taken: set[str]) -> str:
    ends = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    cut = (f"{label[: LONGEST_NAME - len(end)]}{end}" for end in ends)
    return next(found for found in cut if found not in taken)


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, Mapping):
        return {key: _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list | tuple) else value
