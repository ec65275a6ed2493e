"""Generates the manifest's JSON Schema (draft 2020-12), for editors, from the model that validates manifests."""

from typing import Any

from garrison.fleet.manifest.canonical import spellings
from garrison.fleet.manifest.model import FleetManifest
from garrison.launch.manifest import ServeManifest

__all__ = ["manifest_schema"]

_TITLE = "Garrison manifest"
_SECRET = {"$ref": "#/$defs/SecretModel"}
_VARIABLE = {"type": "string", "pattern": r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$"}
_EITHER = {
    "AdapterModel": ("target", "targets", "select"),
    "SecretModel": ("env", "file", "command"),
    "HookModel": ("url", "command"),
}


def manifest_schema() -> dict[str, Any]:
    """Return the schema of a stack, with every key in each accepted spelling, and of its short form, which is told by
    `model` at its top.

    In a stack, a value that is not text may also be text that contains a variable.
    """
    made = FleetManifest.model_json_schema()
    definitions = {name: _object(name, body) for name, body in made.pop("$defs").items()}
    definitions["FleetManifest"] = _object("FleetManifest", made)
    definitions["ServeManifest"] = _short()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": _TITLE,
        "if": {"type": "object", "required": ["model"]},
        "then": {"$ref": "#/$defs/ServeManifest"},
        "else": {"$ref": "#/$defs/FleetManifest"},
        "$defs": definitions,
    }


def _short() -> dict[str, Any]:
    made = ServeManifest.model_json_schema()
    properties = {key: _value(value) for key, value in made["properties"].items()}
    return {
        "description": "One model to serve: a stack of one instance.",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": made["required"],
    }


def _object(name: str, body: dict[str, Any]) -> dict[str, Any]:
    made = {key: value for key, value in body.items() if key not in ("title", "properties", "required")}
    properties: dict[str, Any] = {}
    for key, value in body["properties"].items():
        plain, *others = spellings(key)
        properties[plain] = _value(value)
        for other in others:
            properties[other] = properties[plain] | {"description": f"Same as `{key}`."}
    required = [{"anyOf": [{"required": [way]} for way in spellings(key)]} for key in body.get("required", ())]
    if name in _EITHER:
        required.append({"oneOf": [{"required": [way]} for key in _EITHER[name] for way in spellings(key)]})
    made["properties"] = properties
    if required:
        made["allOf"] = required
    return made


def _value(value: dict[str, Any]) -> dict[str, Any]:
    """Remove titles, and the null that pydantic adds for an optional key: in a manifest the key is simply absent."""
    made = {key: part for key, part in value.items() if key != "title" and not (key == "default" and part is None)}
    ways = [way for way in _flat(made.pop("anyOf", ())) if way.get("type") != "null"]
    if ways == [_SECRET]:
        ways.append(_VARIABLE)
    if not ways:
        return made
    return made | (ways[0] if len(ways) == 1 else {"anyOf": ways})


def _flat(ways: Any) -> list[dict[str, Any]]:
    return [inner for way in ways for inner in (_flat(way["anyOf"]) if "anyOf" in way else [way])]
