"""A manifest that somebody sent, and what it may refer to.

Whoever holds a key must not read files or variables of this server through a manifest: its references are resolved
here and sent to addresses that the manifest names. So a manifest that comes over TCP has no variables, no relative
paths and no references, except for those that the same target has on record at the same address, which tell nobody
anything new. The owner of the data directory, over the unix socket, may write what a manifest file may contain.
"""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from garrison.base.errors import DeniedError, InvalidError
from garrison.fleet.manifest.load import STANDARD_INPUT, Loaded, load_declaration
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.target import NO_STORE, TargetSpec
from garrison.net.endpoint import Secret

__all__ = ["Sender", "load_sent", "refuse_references"]

_NOWHERE = "/".join(["", *["relative-to-no-manifest"] * 48])
"""Where relative paths lead to when there is nothing that they could be relative to."""
_MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a manifest.

    Attributes:
        owner: the owner of the data directory.
        directory: what relative paths are relative to; only an owner may say. None: nothing.
        environ: what `${NAME}` stands for; empty for others than the owner.
    """

    owner: bool = False
    directory: str | None = None
    environ: Mapping[str, str] | None = None


def load_sent(manifest: str | Mapping[str, Any], sender: Sender) -> Loaded:
    """Load a manifest in YAML, JSON or TOML, or as an object. Blocks, and takes long for a large one.

    Raises:
        InvalidError: it is no manifest, or it has a relative path and there is nothing to be relative to.
        DeniedError: it has a directory, and its sender is not the owner.
    """
    if sender.directory is not None and not sender.owner:
        raise DeniedError(
            "only the owner of the data directory may say what paths are relative to", hint="Write absolute paths."
        )
    if sender.directory is not None and not sender.directory.startswith("/"):
        raise InvalidError(f"the directory {sender.directory!r} is not absolute", hint="Give the whole path.")
    text = manifest if isinstance(manifest, str) else json.dumps(manifest)
    loaded = load_declaration(
        (STANDARD_INPUT,),
        environ=(sender.environ or {}) if sender.owner else {},
        stdin=io.StringIO(text),
        directory=Path(sender.directory or _NOWHERE),
    )
    if sender.directory is None:
        _refuse_relative(loaded.declaration)
    return loaded


def refuse_references(declaration: Declaration, on_record: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse what a sender other than the owner may not refer to.

    Args:
        on_record: targets as they were applied, by name, as `TargetSpec.to_json`.

    Raises:
        DeniedError: the message names the places.
    """
    found = list(_references(declaration, on_record))
    if found:
        more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
        raise DeniedError(
            "a manifest that is sent with a key may not refer to files, variables and commands of the server: "
            f"{', '.join(found[:_MOST_NAMED])}{more}",
            hint="Have the owner apply it on the server once. What a target has on record may be sent again.",
            details={"references": found[:100]},
        )


def _references(declaration: Declaration, on_record: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, spec in declaration.targets.items():
        known = on_record.get(name)
        before = TargetSpec.from_json(name, known) if known is not None else None
        if before is not None and before.base_url == spec.base_url and _trusts_as(before, spec):
            yield from _new(f"targets.{name}", _parts(spec), _parts(before))
        else:
            yield from _new(f"targets.{name}", _parts(spec), {})
    for name, instance in declaration.instances.items():
        yield from (f"instances.{name}.env.{key}" for key, one in instance.env.items() if isinstance(one, Secret))
    for number, hook in enumerate(declaration.hooks):
        if hook.command:
            yield f"hooks.{number}.command"
        if isinstance(hook.url, Secret):
            yield f"hooks.{number}.url"
        yield from (f"hooks.{number}.headers.{key}" for key, one in hook.headers.items() if isinstance(one, Secret))


def _trusts_as(before: TargetSpec, spec: TargetSpec) -> bool:
    """Whether a key reaches nobody that it did not reach before: a server is verified at least as it was."""
    return before.tls.ca == spec.tls.ca and (before.tls.insecure or not spec.tls.insecure)


def _parts(spec: TargetSpec) -> dict[str, object]:
    """What of a target is a reference, by its place."""
    found: dict[str, object] = {f"headers.{key}": one for key, one in spec.headers.items() if isinstance(one, Secret)}
    if spec.api_key is not None:
        found["api_key"] = spec.api_key
    found |= {f"tls.{key}": path for key in ("ca", "cert", "key") if (path := getattr(spec.tls, key)) is not None}
    if spec.adapter_store not in (None, NO_STORE):
        found["adapter_store"] = spec.adapter_store
    return found


def _new(place: str, parts: Mapping[str, object], before: Mapping[str, object]) -> Iterator[str]:
    return (f"{place}.{key}" for key, value in parts.items() if before.get(key) != value)


def _refuse_relative(declaration: Declaration) -> None:
    found = [f"adapters.{one.label}.lora_path" for one in declaration.adapters if _leads_nowhere(one.lora_path)]
    for name, spec in declaration.targets.items():
        paths = {key: value.value if isinstance(value, Secret) else value for key, value in _parts(spec).items()}
        found += [f"targets.{name}.{key}" for key, value in paths.items() if _leads_nowhere(value)]
    for number, hook in enumerate(declaration.hooks):
        values = [hook.command, hook.url, *hook.headers.values()]
        plain = [one.value if isinstance(one, Secret) else one for one in values]
        found += [f"hooks.{number}"] if any(map(_leads_nowhere, plain)) else []
    if found:
        raise InvalidError(
            f"a manifest that is sent has no directory that its paths could be relative to: {', '.join(found[:10])}",
            hint="Write absolute paths.",
        )


def _leads_nowhere(value: object) -> bool:
    first = value[0] if isinstance(value, tuple) and value else value
    return isinstance(first, str) and first.startswith("/relative-to-no-manifest")
