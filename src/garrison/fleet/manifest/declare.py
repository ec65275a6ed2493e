"""From a draft to the declaration: types, then what only the whole can tell."""

import re
from collections.abc import Mapping

from pydantic import ValidationError

from garrison.base.documents import Path, inside
from garrison.fleet.declaration import AdapterSpec, Declaration, Hook, ModelSpec, Policy
from garrison.fleet.manifest.address import address
from garrison.fleet.manifest.draft import Draft, Problems, did_you_mean, dotted
from garrison.fleet.manifest.model import AdapterModel, FleetManifest, HookModel, SecretModel, TargetModel
from garrison.fleet.target import Secret, TargetSpec, Tls

__all__ = ["declare"]

_READ_ONLY = ("id", "parent", "root")
_FRAMING = ("connection", "content-length", "transfer-encoding")
_HEADER = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")


def declare(draft: Draft, problems: Problems) -> Declaration:
    """
    Raises:
        InvalidError: a mistake, here or collected before.
    """
    manifest = _validated(draft, problems)
    problems.refuse()
    assert manifest is not None
    targets = _targets(draft, manifest, problems)
    adapters = _adapters(draft, manifest, problems)
    models = []
    for label, model in manifest.models.items():
        if _known_target(draft, ("models", label, "target"), model.target, manifest.targets, problems):
            models.append(ModelSpec(target=model.target, label=label, id=model.id, root=model.root))
    problems.refuse()
    return Declaration(
        stack=manifest.stack,
        targets=targets,
        adapters=adapters,
        models=tuple(models),
        policy=Policy(on_drift=manifest.policy.on_drift, interval=manifest.policy.interval),
        hooks=tuple(_hook(hook) for hook in manifest.hooks),
    )


def _validated(draft: Draft, problems: Problems) -> FleetManifest | None:
    try:
        return FleetManifest.model_validate(draft.content)
    except ValidationError as error:
        for one in error.errors(include_url=False, include_input=False, include_context=False):
            _add(draft, one["loc"], one["type"], one["msg"], problems)
        if not problems.found:  # each of them was one alternative of several: say the first
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            problems.add(draft.where(()), (), first["msg"])
        return None


def _add(draft: Draft, loc: Path, kind: str, text: str, problems: Problems) -> None:
    path, value, branches = inside(draft.content, loc)
    if (
        branches
        and kind != "missing"
        and branches != ("[key]",)
        and isinstance(value, dict) != (SecretModel.__name__ in str(branches[0]))
    ):
        return  # the error of an alternative that was not meant
    key = dotted(path)
    if kind == "missing":
        path = (*path, loc[-1])
        hint = _stack_hint(draft) if path == ("stack",) else f"Add a line `{loc[-1]}: …`."
        problems.add(draft.where(path), path, f"the key {dotted(path)!r} is missing", hint)
        return
    text = text.removeprefix("Value error, ").replace("valid dictionary", "valid mapping")
    prefix = f"{key}: " if key else ""
    problems.add(draft.where(path), path, f"{prefix}{text[:1].lower()}{text[1:]}")


def _stack_hint(draft: Draft) -> str:
    return "Add a line `stack: NAME`: everything that the manifest owns goes by that name."


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
            problems.add(draft.where(path), path, f"{dotted(path)}: {error}", "Mend the address.")
            continue
        if url in at:
            text = f"the targets {at[url]!r} and {name!r} have one address"
            problems.add(draft.where(path), path, text, "Declare a server once; its labels may be many.")
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
        api_key=None if model.api_key is None else _secret(model.api_key),
        headers=_headers(model.headers),
        tls=Tls(ca=model.tls.ca, cert=model.tls.cert, key=model.tls.key, insecure=model.tls.insecure),
        adapter_store=model.adapter_store,
        max_lora_rank=model.max_lora_rank,
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
            problems.add(draft.where(at), at, f"{name!r} is not the name of a header")
        elif low in _FRAMING:
            problems.add(draft.where(at), at, f"the header {name!r} is not yours to set", "Remove it.")
        elif names.count(low) > 1:
            problems.add(draft.where(at), at, f"the header {name!r} is given twice", "Remove one of the two.")
        elif low == "authorization" and isinstance(model, TargetModel) and model.api_key is not None:
            problems.add(draft.where(at), at, "api_key and the header Authorization are one", "Remove one of the two.")


def _adapters(draft: Draft, manifest: FleetManifest, problems: Problems) -> tuple[AdapterSpec, ...]:
    targets = manifest.targets
    made: list[AdapterSpec] = []
    served: dict[tuple[str, str], str] = {}
    for label, model in manifest.adapters.items():
        name = model.lora_name or label
        path: Path = ("adapters", label)
        at = (*path, "lora_name")
        if re.search(r"\s", name):
            text = f"the lora_name {draft.shown(at, name)} holds a blank"
            hint = "Write - or _ instead: names are given on command lines, as TARGET/NAME."
            problems.add(draft.where(at), at, text, hint if model.lora_name else f"{hint} Or give it a lora_name.")
        for target in _chosen(draft, label, model, targets, problems):
            if targets[target].base_model == name:
                text = f"the adapter {label!r} has the name of the base model of {target!r}"
                problems.add(draft.where(at), at, text, "Give it a lora_name of its own: vLLM refuses this one.")
            if (target, name) in served:
                text = f"the adapters {served[target, name]!r} and {label!r} have one lora_name on {target!r}"
                problems.add(draft.where(at), at, text, "Give one of them another lora_name.")
            served[target, name] = label
            made.append(
                AdapterSpec(
                    target=target,
                    label=label,
                    lora_name=name,
                    lora_path=model.lora_path,
                    base_model_name=model.base_model_name,
                    is_3d_lora_weight=model.is_3d_lora_weight,
                    probe=model.probe,
                )
            )
    return tuple(made)


def _chosen(
    draft: Draft, label: str, model: AdapterModel, targets: Mapping[str, TargetModel], problems: Problems
) -> list[str]:
    """The names of its targets, in the manifest's order."""
    path: Path = ("adapters", label)
    if model.select is not None:
        wanted = model.select.items()
        found = [name for name, target in targets.items() if wanted <= target.labels.items()]
        if not found:
            at = (*path, "select")
            have = sorted({f"{key}: {value}" for target in targets.values() for key, value in target.labels.items()})
            hint = "The labels there are: " + "; ".join(have[:20]) + "." if have else "No target has labels."
            problems.add(draft.where(at), at, f"{dotted(at)}: no target has these labels", hint)
        return found
    if model.target is not None:
        at = (*path, "target")
        return [model.target] if _known_target(draft, at, model.target, targets, problems) else []
    chosen: dict[str, None] = {}
    for index, name in enumerate(model.targets or ()):
        at = (*path, "targets", index)
        if name in chosen:
            problems.add(draft.where(at), at, f"{dotted(at)}: {draft.shown(at, name)} is given twice", "Remove one.")
        elif _known_target(draft, at, name, targets, problems):
            chosen[name] = None
    return list(chosen)


def _known_target(draft: Draft, path: Path, name: str, targets: Mapping[str, TargetModel], problems: Problems) -> bool:
    if name in targets:
        return True
    text = f"{dotted(path)}: there is no target {draft.shown(path, name)}"
    problems.add(draft.where(path), path, text, did_you_mean(name, targets, what="targets"))
    return False


def _hook(model: HookModel) -> Hook:
    url = _secret(model.url) if isinstance(model.url, SecretModel) else model.url
    return Hook(on=tuple(model.on), url=url, command=tuple(model.command or ()), headers=_headers(model.headers))


def _headers(headers: Mapping[str, str | SecretModel]) -> dict[str, str | Secret]:
    return {name: _secret(value) if isinstance(value, SecretModel) else value for name, value in headers.items()}


def _secret(model: SecretModel) -> Secret:
    if model.env is not None:
        return Secret("env", model.env)
    if model.file is not None:
        return Secret("file", model.file)
    return Secret("command", tuple(model.command or ()))
