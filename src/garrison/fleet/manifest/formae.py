"""Translates formae's formas into manifests, keeping positions.

A forma has lists of stacks, targets and resources, as `formae eval` and `pkl eval -f json` print them. Its values come
from a Pkl evaluation, so `${NAME}` in them is plain text.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from garrison.base.documents import Document, Path
from garrison.base.problems import Problems
from garrison.fleet.values.declaration import ADAPTER_TYPE, MODEL_TYPE

__all__ = ["is_forma", "translate"]

KEY_VARIABLE = "VLLM_API_KEY"
_NAMESPACE = "VLLM"


def is_forma(content: Any) -> bool:
    """Return whether `content` is a forma: it has a list of stacks, resources or policies, or `Targets` is a list."""
    if not isinstance(content, dict):
        return False
    parts = [_get(content, part) for part in ("Stacks", "Resources", "Policies")]
    return any(isinstance(part, list) for part in [*parts, content.get("Targets")])


def translate(document: Document, *, environ: Mapping[str, str], problems: Problems, warnings: list[str]) -> Document:
    """Return the forma as a manifest document; resources that are not vLLM's are dropped with a warning.

    formae's vLLM plugin sends the key in `VLLM_API_KEY` to every target. Targets of a forma get the same key here, with
    a warning.
    """
    work = _Translation(document, problems, warnings)
    stacks = work.parts("Stacks")
    resources = work.resources()
    content: dict[str, Any] = {"stack": work.stack(stacks, resources), "targets": {}, "adapters": {}, "models": {}}
    work.move((), ("stack",))
    for path, target in work.parts("Targets"):
        work.target(path, target, content["targets"], key=bool(environ.get(KEY_VARIABLE)))
    for path, resource, kind in resources:
        work.resource(path, resource, "adapters" if kind == ADAPTER_TYPE else "models", content)
    policy = work.policy(stacks)
    if policy:
        content["policy"] = policy
    if environ.get(KEY_VARIABLE) and content["targets"]:
        warnings.append(f"{document.name}: every target gets the key in {KEY_VARIABLE}, as with the vLLM plugin")
    return Document(document.name, content, work.positions)


@dataclass(slots=True)
class _Translation:
    document: Document
    problems: Problems
    warnings: list[str]
    positions: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def parts(self, name: str) -> list[tuple[Path, dict[str, Any]]]:
        content = self.document.content
        key = next((one for one in (name, name.lower()) if one in content), name)
        found = content.get(key)
        if found is None:
            return []
        if not isinstance(found, list):
            self.problem((key,), f"{key} is not a list")
            return []
        for at, item in enumerate(found):
            if not isinstance(item, dict):
                self.problem((key, at), f"{key}: an entry is not a mapping")
        return [((key, at), item) for at, item in enumerate(found) if isinstance(item, dict)]

    def resources(self) -> list[tuple[Path, dict[str, Any], str]]:
        ours: list[tuple[Path, dict[str, Any], str]] = []
        others: dict[str, int] = {}
        for path, resource in self.parts("Resources"):
            kind = str(_get(resource, "Type"))
            if kind in (ADAPTER_TYPE, MODEL_TYPE):
                ours.append((path, resource, kind))
            elif kind.startswith(f"{_NAMESPACE}::") or "::" not in kind:
                self.problem(path, f"unknown resource type {kind!r}", f"Known types: {ADAPTER_TYPE}, {MODEL_TYPE}.")
            else:
                others[kind] = others.get(kind, 0) + 1
        if others:
            shown = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
            self.warnings.append(f"{self.document.name}: ignored resources that are not vLLM's: {shown}")
        return ours

    def stack(
        self, stacks: list[tuple[Path, dict[str, Any]]], resources: list[tuple[Path, dict[str, Any], str]]
    ) -> Any:
        default = next((label for _, stack in stacks if (label := _label(stack))), "default")
        used = [_label(_get(resource, "Stack")) or default for _, resource, _ in resources]
        names = list(dict.fromkeys(used)) or [default]
        if len(names) > 1:
            text = "the resources belong to several stacks: " + ", ".join(names)
            self.problem((), text, "A manifest declares one stack; write one file per stack.")
        return names[0]

    def target(self, path: Path, target: dict[str, Any], targets: dict[str, Any], *, key: bool) -> None:
        label, config = _get(target, "Label"), _get(target, "Config")
        namespace = _get(target, "Namespace") or (config.get("Type", _NAMESPACE) if isinstance(config, dict) else "")
        if str(namespace).upper() != _NAMESPACE:
            self.warnings.append(f"{self.document.name}: ignored target {label!r} of namespace {namespace}")
            return
        if not self.fresh(path, label, targets, "target"):
            return
        if not isinstance(config, dict):
            self.problem(path, f"target {label!r} has no Config")
            return
        given = {name: value for name, value in config.items() if value is not None}
        if _get(given, "BaseUrl") is not None:  # in formae it takes precedence over host, port and scheme
            given = {name: value for name, value in given.items() if name.lower() not in ("host", "port", "scheme")}
        for name, value in list(given.items()):
            if isinstance(value, dict) and "$res" in value:
                del given[name]
                text = f"target {label!r}: {name} refers to another resource, which only formae can resolve"
                self.problem((*path, "Config", name), text, "Write the address itself.")
        if key and "api_key" not in given and "apiKey" not in given:
            given["api_key"] = {"env": KEY_VARIABLE}
        targets[label] = given
        self.move((*path, "Config"), ("targets", label), given)

    def resource(self, path: Path, resource: dict[str, Any], part: str, content: dict[str, Any]) -> None:
        label, properties = _get(resource, "Label"), _get(resource, "Properties")
        if not self.fresh(path, label, content[part], "resource"):
            return
        if not isinstance(properties, dict):
            self.problem(path, f"resource {label!r} has no Properties")
            return
        target = _label(_get(resource, "Target"))
        if not target and len(content["targets"]) == 1:
            target = next(iter(content["targets"]))
        if not target:
            self.problem(path, f"resource {label!r} has no Target")
            return
        given = {name: value for name, value in properties.items() if value is not None}
        content[part][label] = given | {"target": target}
        self.move((*path, "Properties"), (part, label), given)

    def fresh(self, path: Path, label: Any, known: Mapping[str, Any], what: str) -> bool:
        if not isinstance(label, str) or not label:
            self.problem(path, f"a {what} has no Label")
            return False
        if label in known:
            self.problem(path, f"duplicate {what} {label!r}", "Remove or rename one of the two.")
            return False
        return True

    def policy(self, stacks: list[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
        shared = {_get(policy, "Label"): policy for _, policy in self.parts("Policies") if _is_word(policy)}
        made: dict[str, Any] = {}
        for path, stack in stacks:
            listed = _get(stack, "Policies")
            for policy in listed if isinstance(listed, list) else ():
                found = policy
                if isinstance(policy, dict) and isinstance(policy.get("$ref"), str):
                    found = shared.get(policy["$ref"].removeprefix("policy://"))
                kind = _get(found, "Type") if isinstance(found, dict) else None
                if kind == "auto-reconcile" and isinstance(found, dict):
                    made = {"on_drift": "restore"}
                    if (seconds := _get(found, "IntervalSeconds")) is not None:
                        made["interval"] = seconds
                    self.move((*path, "Policies"), ("policy",))
                else:
                    self.warnings.append(
                        f"{self.document.where(path)}: ignored a policy of {f'type {kind}' if kind else 'unknown type'}"
                    )
        return made

    def move(self, source: Path, path: Path, value: Any = None) -> None:
        """Copy the positions of `source` to `path`, and those below it along `value`."""
        nearest = source
        while nearest and nearest not in self.document.positions:
            nearest = nearest[:-1]
        if nearest in self.document.positions:
            self.positions[path] = self.document.positions[nearest]
        if isinstance(value, dict):
            for key, item in value.items():
                self.move((*source, key), (*path, key), item)
        elif isinstance(value, list):
            for at, item in enumerate(value):
                self.move((*source, at), (*path, at), item)

    def problem(self, path: Path, text: str, hint: str = "Fix the entry.") -> None:
        self.problems.add(self.document.where(path), ("forma", *path), text, hint)


def _get(holder: Mapping[str, Any], name: str) -> Any:
    """Return the value of `name`, whose first letter is in lower case in some renderings."""
    if name in holder:
        return holder[name]
    return holder.get(name[:1].lower() + name[1:])


def _label(value: Any) -> str:
    """Return the label of a stack or target that is given by name, as an object or as a reference."""
    if isinstance(value, dict):
        value = value.get("$label", _get(value, "Label"))
    return value if isinstance(value, str) else ""


def _is_word(policy: Mapping[str, Any]) -> bool:
    return isinstance(_get(policy, "Label"), str)
