"""Turns a draft into a declaration: first the types of single values, then the rules across the whole manifest."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from garrison.base.documents import Path, inside
from garrison.base.invalid_values import in_our_words, what_to_write
from garrison.base.positions.misread import misread
from garrison.base.problems import Problems, did_you_mean, dotted
from garrison.fleet.manifest.address import address
from garrison.fleet.manifest.declare_instances import (
    LORA_ENGINES,
    declare_instances,
    instance_targets,
)
from garrison.fleet.manifest.declare_routes import declare_routes
from garrison.fleet.manifest.draft import Draft
from garrison.fleet.manifest.fields import SecretModel
from garrison.fleet.manifest.model import AdapterModel, FleetManifest, HookModel, TargetModel
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration, Hook, ModelSpec, Policy
from garrison.fleet.values.target import TargetSpec
from garrison.net.endpoint import Secret, Tls

__all__ = ["declare"]

_READ_ONLY = ("id", "parent", "root")
_FRAMING = ("connection", "content-length", "transfer-encoding")
_HEADER = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")


def declare(draft: Draft, problems: Problems) -> Declaration:
    """Validate `draft` and return its declaration.

    Raises:
        InvalidError: the manifest has errors, found here or already in `problems`.
    """
    manifest = _validated(draft, problems)
    problems.refuse()  # the checks across the manifest need every value to be valid
    assert manifest is not None
    targets = _targets(draft, manifest, problems)
    instances = declare_instances(draft, manifest, problems)
    places = _places(manifest)
    adapters = _adapters(draft, manifest, places, problems)
    models = []
    for label, model in manifest.models.items():
        if _known_target(draft, ("models", label, "target"), model.target, places, problems):
            models.append(ModelSpec(target=model.target, label=label, id=model.id, root=model.root))
    routes = declare_routes(draft, manifest, adapters, problems)
    problems.refuse()
    attached = {one.target for one in adapters} | {one.target for one in models}
    return Declaration(
        stack=manifest.stack,
        targets=targets | instance_targets(instances, attached),
        adapters=adapters,
        models=tuple(models),
        policy=Policy(on_drift=manifest.policy.on_drift, interval=manifest.policy.interval),
        hooks=tuple(_hook(hook) for hook in manifest.hooks),
        instances=instances,
        routes=routes,
        profiles=manifest.profiles,
    )


def _validated(draft: Draft, problems: Problems) -> FleetManifest | None:
    try:
        return FleetManifest.model_validate(draft.content)
    except ValidationError as error:
        for one in error.errors(include_url=False, include_input=False):
            _add(draft, one["loc"], one["type"], in_our_words(one["type"], one["msg"], one.get("ctx")), problems)
        if not problems.found:  # every error belonged to an alternative of a union: report the first
            first = error.errors(include_url=False, include_input=False)[0]
            problems.add(draft.where(()), (), in_our_words(first["type"], first["msg"], first.get("ctx")))
        return None


def _add(draft: Draft, loc: Path, kind: str, text: str, problems: Problems) -> None:
    path, value, branches = inside(draft.content, loc)
    if (
        branches
        and kind != "missing"
        and branches != ("[key]",)
        and isinstance(value, dict) != (SecretModel.__name__ in str(branches[0]))
    ):
        return  # pydantic reports every alternative of a union: skip those that the user did not mean
    key = dotted(path)
    if kind == "missing":
        path = (*path, loc[-1])
        add = _stack_hint(draft) if path == ("stack",) else f"Add a line `{loc[-1]}: …`."
        problems.add(draft.where(path), path, f"missing key {dotted(path)!r}", add)
        return
    hint = what_to_write(kind)
    if kind == "string_type" and (written := draft.scalars.get(path)):
        text, hint = misread(written, value)
    prefix = f"{key}: " if key else ""
    problems.add(draft.where(path), path, f"{prefix}{text}", hint)


def _stack_hint(draft: Draft) -> str:
    return "Add a line `stack: NAME`; it names everything that the manifest owns."


def _targets(draft: Draft, manifest: FleetManifest, problems: Problems) -> dict[str, TargetSpec]:
    targets: dict[str, TargetSpec] = {}
    at: dict[str, str] = {}
    for name, model in manifest.targets.items():
        path: Path = ("targets", name)
        try:
            url = address(model.base_url, model.host, model.port, model.scheme)
        except ValueError as error:
            key = next((key for key in ("base_url", "host") if getattr(model, key) is not None), None)
            path = (*path, key) if key else path
            problems.add(draft.where(path), path, f"{dotted(path)}: {error}", "Fix the address.")
            continue
        if url in at:
            text = f"targets {at[url]!r} and {name!r} have the same address"
            problems.add(draft.where(path), path, text, "Declare each server once; it can have several labels.")
        at[url] = name
        _check_headers(draft, (*path, "headers"), model, problems)
        targets[name] = _target(name, url, model)
    return targets


def _target(name: str, url: str, model: TargetModel) -> TargetSpec:
    return TargetSpec(
        name=name,
        base_url=url,
        base_model=model.base_model,
        labels=model.labels,
        api_key=None if model.api_key is None else model.api_key.reference(),
        headers=_headers(model.headers),
        tls=Tls(ca=model.tls.ca, cert=model.tls.cert, key=model.tls.key, insecure=model.tls.insecure),
        adapter_store=model.adapter_store,
        max_lora_rank=model.max_lora_rank,
        adapter_slots=model.adapter_slots,
        prefix_caching=model.prefix_caching,
        timeout=model.timeout,
        load_timeout=model.load_timeout,
        probe=model.probe,
    )


def _check_headers(draft: Draft, path: Path, model: TargetModel | HookModel, problems: Problems) -> None:
    names = [name.lower() for name in model.headers]
    for name in model.headers:
        low, at = name.lower(), (*path, name)
        if not set(low) <= _HEADER:
            problems.add(draft.where(at), at, f"invalid header name {name!r}")
        elif low in _FRAMING:
            problems.add(draft.where(at), at, f"header {name!r} is managed by Garrison", "Remove it.")
        elif names.count(low) > 1:
            problems.add(draft.where(at), at, f"duplicate header {name!r}", "Remove one of the two.")
        elif low == "authorization" and isinstance(model, TargetModel) and model.api_key is not None:
            text = "api_key and header 'Authorization' set the same header"
            problems.add(draft.where(at), at, text, "Remove one of the two.")


@dataclass(frozen=True, slots=True)
class _Place:
    """What adapters may be attached to: a target or an instance.

    Attributes:
        engine: of an instance.
        versions: adapters are versioned there by default.
    """

    base_model: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    engine: str | None = None
    versions: bool = False


def _places(manifest: FleetManifest) -> dict[str, _Place]:
    places = {
        name: _instance(one.served_model_name, one.engine or ("custom" if one.custom else "vllm"), one.node)
        for name, one in manifest.instances.items()
    }
    return places | {name: _Place(one.base_model, one.labels) for name, one in manifest.targets.items()}


def _instance(base_model: str | None, engine: str, node: str | None) -> _Place:
    """What is known of an instance. One of a node has a gateway that does not know this stack's adapters."""
    return _Place(base_model, engine=engine, versions=node is None and engine != "custom")


def _adapters(
    draft: Draft, manifest: FleetManifest, targets: Mapping[str, _Place], problems: Problems
) -> tuple[AdapterDeclaration, ...]:
    made: list[AdapterDeclaration] = []
    served: dict[str, dict[str, str]] = {}  # by lora_name, then by target: the label
    for label, model in manifest.adapters.items():
        name = model.lora_name or label
        path: Path = ("adapters", label)
        at = (*path, "lora_name")
        if re.search(r"\s", name):
            text = f"lora_name {draft.shown(at, name)} contains white space"
            hint = "Use - or _ instead: names are written on command lines as TARGET/NAME."
            problems.add(draft.where(at), at, text, hint if model.lora_name else f"{hint} Or set lora_name.")
        taken = served.setdefault(name, {})
        for target in _chosen(draft, label, model, targets, problems):
            if (engine := targets[target].engine) is not None and engine not in LORA_ENGINES:
                text = f"adapter {label!r}: {engine} loads no adapters while it runs (instance {target!r})"
                problems.add(draft.where(path), path, text, "Name it in the instance's options, or use vllm.")
            if targets[target].base_model == name:
                text = f"adapter {label!r} has the same name as the base model of target {target!r}"
                problems.add(draft.where(at), at, text, "Give it another lora_name; vLLM rejects this one.")
            if target in taken:
                text = f"adapters {taken[target]!r} and {label!r} have the same lora_name on target {target!r}"
                problems.add(draft.where(at), at, text, "Give one of them another lora_name.")
            taken[target] = label
            made.append(
                AdapterDeclaration(
                    target=target,
                    label=label,
                    lora_name=name,
                    lora_path=model.lora_path,
                    base_model_name=model.base_model_name,
                    is_3d_lora_weight=model.is_3d_lora_weight,
                    probe=model.probe,
                    versioned=targets[target].versions if model.update is None else model.update == "versioned",
                    on_demand=model.load == "on_demand",
                    select=tuple((model.select or {}).items()),
                )
            )
    return tuple(made)


def _chosen(
    draft: Draft, label: str, model: AdapterModel, targets: Mapping[str, _Place], problems: Problems
) -> list[str]:
    """Return the names of the adapter's targets, in manifest order."""
    path: Path = ("adapters", label)
    if model.select is not None:
        wanted = model.select.items()
        found = [name for name, target in targets.items() if wanted <= target.labels.items()]
        if not found:
            at = (*path, "select")
            have = sorted({f"{key}: {value}" for target in targets.values() for key, value in target.labels.items()})
            add = f"Write `labels: {{{', '.join(f'{key}: {value}' for key, value in wanted)}}}` in a target"
            hint = f"Existing labels: {'; '.join(have[:20])}." if have else f"{add}, or name targets with `targets`."
            problems.add(draft.where(at), at, f"{dotted(at)}: no target has these labels", hint)
        return found
    if model.target is not None:
        at = (*path, "target")
        return [model.target] if _known_target(draft, at, model.target, targets, problems) else []
    chosen: dict[str, None] = {}
    for index, name in enumerate(model.targets or ()):
        if name in targets and name not in chosen:
            chosen[name] = None
            continue
        at = (*path, "targets", index)
        if name in chosen:
            problems.add(draft.where(at), at, f"{dotted(at)}: duplicate target {draft.shown(at, name)}", "Remove one.")
        else:
            _known_target(draft, at, name, targets, problems)
    return list(chosen)


def _known_target(draft: Draft, path: Path, name: str, targets: Mapping[str, _Place], problems: Problems) -> bool:
    if name in targets:
        return True
    text = f"{dotted(path)}: unknown target {draft.shown(path, name)}"
    problems.add(draft.where(path), path, text, did_you_mean(name, targets, what="targets"))
    return False


def _hook(model: HookModel) -> Hook:
    url = model.url.reference() if isinstance(model.url, SecretModel) else model.url
    return Hook(on=tuple(model.on), url=url, command=tuple(model.command or ()), headers=_headers(model.headers))


def _headers(headers: Mapping[str, str | SecretModel]) -> dict[str, str | Secret]:
    return {name: value.reference() if isinstance(value, SecretModel) else value for name, value in headers.items()}
