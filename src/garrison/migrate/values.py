"""What a migration finds: a manifest, settings, and what has no equivalent."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from garrison.base.errors import InvalidError
from garrison.base.redaction import is_secret_name
from garrison.base.setting import Setting, parse
from garrison.base.settings import Settings
from garrison.fleet.manifest.instance_model import INSTANCE_NAME
from garrison.fleet.manifest.variables import escape

__all__ = ["FOREVER", "Found", "Remark", "free_name", "idle_text", "literal", "may_be_route", "setting_of"]

FOREVER = "8760h"
"""A model that is never unloaded for idleness and may still be evicted: `idle: never` would pin it."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that the manifest does not say as the original did.

    Attributes:
        where: the key in the original: `models.qwen.filters`.
        text: what became of it, and what to do instead.
    """

    where: str
    text: str

    def to_json(self) -> dict[str, str]:
        return {"where": self.where, "text": self.text}


@dataclass(slots=True)
class Found:
    """What was found so far.

    Attributes:
        stack: name of the stack.
        instances, targets, routes, profiles: entries of the manifest, with its keys.
        settings: values of `GARRISON_*` variables, which no manifest holds.
    """

    stack: str
    instances: dict[str, dict[str, Any]] = field(default_factory=dict)
    targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    routes: dict[str, dict[str, Any]] = field(default_factory=dict)
    profiles: dict[str, dict[str, str | None]] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)

    def remark(self, where: str, text: str) -> None:
        """Note what has no equivalent, or is not quite the same."""
        self.remarks.append(Remark(where, text))

    def set(self, where: str, variable: str, text: str) -> None:
        """Keep a setting under the variable that the other system, or Garrison, has for it."""
        row = setting_of(variable)
        if row is None:
            self.remark(where, "no equivalent")
            return
        if row.secret:
            self.remark(
                where, f"a secret, which is not copied; set {row.env}, or make keys with `garrison keys create`"
            )
            return
        try:
            if "${" not in text:
                parse(row, where, text)
        except InvalidError as error:
            self.remark(where, f"not taken over: {error.message}")
            return
        self.settings[row.env] = text

    def add_instance(self, original: str, body: dict[str, Any], where: str) -> str:
        """Add an instance, under the name that it had as far as that is possible; return its name.

        Where the name had to be changed, a route of the original name leads to it.
        """
        name = free_name(original, self.instances)
        options = body.get("options", {})
        for option in [one for one in options if is_secret_name(one)]:
            del options[option]
            self.remark(f"{where}.{option}", "its value looks like a secret and is not copied")
        self.instances[name] = body
        if name != original:
            self.remark(where, f"called {name!r} here; a route keeps its old name for clients")
            self.add_route(original, [name], where)
        return name

    def add_route(self, name: str, to: list[str], where: str, policy: str | None = None) -> None:
        """Add a route, unless a model of that name is there already."""
        if not may_be_route(name):
            self.remark(where, f"the name {name!r} cannot be a key of a manifest")
            return
        aliases = {one for route in self.routes.values() for one in route.get("aliases", {})}
        if name in self.routes or name in self.instances or name in aliases:
            self.remark(where, f"the name {name!r} is taken by another model")
            return
        self.routes[name] = {"to": to[0] if len(to) == 1 else to} | ({"policy": policy} if policy else {})

    def env(self, env: Mapping[str, object], where: str) -> dict[str, Any]:
        """Return variables of an engine. A value that looks like a secret becomes a reference to a variable."""
        found: dict[str, Any] = {}
        for name, value in env.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                self.remark(f"{where}.{name}", "no name of a variable")
            elif is_secret_name(name):
                found[name] = {"env": name}
                self.remark(
                    f"{where}.{name}", "its value looks like a secret and is not copied; export it for the server"
                )
            else:
                found[name] = str(value)
        return found

    def body(self) -> dict[str, Any]:
        """Return the manifest as a mapping."""
        named: dict[str, Mapping[str, Any]] = {
            "instances": self.instances, "targets": self.targets, "routes": self.routes, "profiles": self.profiles
        }  # fmt: skip
        return {"stack": self.stack} | {key: some for key, some in named.items() if some}


def _may_be_key(name: str) -> bool:
    return 0 < len(name) <= 200 and name.isprintable() and name == name.strip()


def may_be_route(name: str) -> bool:
    """Whether a route of a manifest can have a name."""
    return _may_be_key(name) and not name.endswith("/")


def setting_of(variable: str) -> Setting | None:
    """Return the setting that a variable of llamactl, or of Garrison, stands for."""
    rows = Settings.table()
    return next((row for row in rows if variable in (row.env, *row.seeds)), None)


def free_name(original: str, taken: Mapping[str, object]) -> str:
    """Return a name that an instance may have, as close to `original` as possible, and not in `taken`."""
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", original).lstrip("._-")[:50].rstrip("-") or "model"
    assert INSTANCE_NAME.match(base)
    found, number = base, 2
    while found in taken:
        found = f"{base[:46]}-{number}"
        number += 1
    return found


def idle_text(seconds: float) -> str:
    """Return a time without requests as a manifest writes it: `30m`, `90s`."""
    whole = round(seconds)
    if whole > 0 and whole % 3600 == 0:
        return f"{whole // 3600}h"
    if whole > 0 and whole % 60 == 0:
        return f"{whole // 60}m"
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"


def literal(value: Any) -> Any:
    """Return a value whose `${` stay as they are."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, Mapping):
        return {key: literal(one) for key, one in value.items()}
    return [literal(one) for one in value] if isinstance(value, list | tuple) else value
