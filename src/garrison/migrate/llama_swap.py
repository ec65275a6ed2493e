"""llama-swap: its YAML config, where a model is a command."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from garrison.base.errors import InvalidError
from garrison.base.redaction import is_secret_name
from garrison.fleet.manifest.address import canonical_url
from garrison.fleet.manifest.variables import escape
from garrison.migrate.command_line import instance_of_command
from garrison.migrate.llama_swap_filters import add_aliases, add_filters
from garrison.migrate.llama_swap_macros import Macros, marked, reference, unmarked
from garrison.migrate.values import FOREVER, Found, free_name, idle_text, may_be_route

__all__ = ["add_config"]

_PORT = "5800"
"""Stands for `${PORT}` while a command is parsed."""
_MODEL_KEYS = {"macros", "cmd", "env", "proxy", "checkEndpoint", "ttl", "aliases", "description", "name", "filters",
               "concurrencyLimit"}  # fmt: skip
_MODEL_ANSWERS = {
    "cmdStop": "no equivalent; the whole process group is ended, and a container by its name",
    "useModelName": "requests are sent with the name that the engine serves",
    "unlisted": "no equivalent; every model is listed",
    "includeAliasesInList": "aliases are routes here, and listed",
    "sendLoadingState": "no equivalent for a model; GARRISON_LOADING_COMMENTS holds for all",
}
_TOP_KEYS = {"models", "macros", "groups", "routing", "hooks", "peers", "selectors", "profiles", "globalTTL",
             "healthCheckTimeout", "logLevel", "startPort", "sendLoadingState"}  # fmt: skip
_TOP_ANSWERS = {
    "apiKeys": "secrets, which are not copied; make keys with `garrison keys create --inference`",
    "unloadTimeout": "see GARRISON_DRAIN_TIMEOUT",
    "includeAliasesInList": "aliases are routes here, and listed",
}
_POLICIES = {"spillover": "spill", "warm": "warm-first", "pin": "pin"}


def add_config(config: Mapping[str, Any], found: Found) -> None:
    """Take over a whole config.

    Raises:
        InvalidError: it has no mapping of models.
    """
    models = config.get("models")
    if not isinstance(models, dict):
        raise InvalidError("the config has no mapping `models`", hint="Name llama-swap's config.yaml.")
    macros = _mapping(config.get("macros"))
    names: dict[str, str] = {}
    for model, body in models.items():
        if isinstance(body, dict) and (name := _add_model(str(model), body, macros, config.get("globalTTL"), found)):
            names[str(model)] = name
    for model, name in names.items():
        own = Macros(macros, _mapping(models[model].get("macros")), model=model)
        add_filters(model, name, models[model], own, found)
    for model, name in names.items():
        add_aliases(model, name, _texts(models[model].get("aliases")), found)
    _groups(config, names, found)
    _preload(config, names, found)
    _selectors(config, names, found)
    _profiles(config, found)
    _peers(config, macros, found)
    _settings(config, found)


def _add_model(model: str, body: Mapping[str, Any], macros: Mapping[str, Any], ttl: Any, found: Found) -> str | None:
    where = f"models.{model}"
    own = Macros(macros, _mapping(body.get("macros")), model=model)
    command = own.expand(_one_line(str(body.get("cmd", ""))))
    if not command:
        found.remark(where, "left out: it has no cmd")
        return None
    known = instance_of_command(command.replace("${PORT}", _PORT), found, f"{where}.cmd")
    instance = known if known is not None else _custom(command, body, own, found, where)
    if instance is None:
        return None
    if env := _env(body, own, found, where):
        instance["env"] = {**instance.get("env", {}), **env}
    instance |= _idle(body.get("ttl", -1), ttl, found, where)
    for key in body:
        if key not in _MODEL_KEYS:
            found.remark(f"{where}.{key}", _MODEL_ANSWERS.get(key, "no equivalent"))
    for name in sorted(own.unknown):
        found.remark(where, f"the macro {name} is not known")
    return found.add_instance(model, unmarked(instance), where)


def _one_line(text: str) -> str:
    """Join the lines of a command, without comments. A backslash at the end of a line is allowed, and not needed."""
    lines = (line.strip() for line in text.splitlines())
    return " ".join(line.removesuffix("\\").strip() for line in lines if line and not line.startswith("#"))


def _custom(command: str, body: Mapping[str, Any], own: Macros, found: Found, where: str) -> dict[str, Any] | None:
    try:
        argv = shlex.split(command)
    except ValueError as error:
        found.remark(f"{where}.cmd", f"left out: {str(error).lower()}")
        return None
    argv = [one.replace("${PORT}", "{port}") for one in _without_secrets(argv, found, where)]
    instance: dict[str, Any] = {"engine": "custom", "custom": {"argv": argv}}
    check = body.get("checkEndpoint", "/health")
    if check == "none":
        found.remark(f"{where}.checkEndpoint", "a server that cannot be asked has no equivalent; /health is asked")
    elif check != "/health":
        instance["custom"]["ready_path"] = check
    if not any("{port}" in one for one in argv):
        port = _port_of(own.expand(str(body.get("proxy", ""))))
        if port is None:
            found.remark(f"{where}.cmd", "it does not say on which port it listens; write {port} into custom.argv")
        else:
            instance["port"] = port
    found.remark(f"{where}.cmd", "no engine that Garrison knows: a custom server; check the APIs that it speaks")
    return instance


def _without_secrets(argv: list[str], found: Found, where: str) -> list[str]:
    """Return the words of a command with a variable in place of each value that looks like a secret."""
    made: list[str] = []
    variable = ""
    for word in argv:
        flag, equals, _ = word.partition("=")
        secret = word.startswith("-") and is_secret_name(flag.lstrip("-"))
        if variable and not word.startswith("-"):
            made.append(reference(variable))
        else:
            variable = flag.lstrip("-").replace("-", "_").upper() if secret else ""
            made.append(f"{flag}={reference(variable)}" if secret and equals else word)
            if secret:
                found.remark(f"{where}.cmd", f"the value of {flag} looks like a secret; export it as {variable}")
            if equals:
                variable = ""
            continue
        variable = ""
    return made


def _port_of(url: str) -> int | None:
    try:
        return urlsplit(url).port
    except ValueError:
        return None


def _env(body: Mapping[str, Any], own: Macros, found: Found, where: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    references: dict[str, Any] = {}
    for line in _texts(body.get("env")):
        name, _, value = own.expand(line).partition("=")
        if (variable := marked(value)) is not None:
            references[name] = {"env": variable}
        else:
            given[name] = value
    return found.env(given, f"{where}.env") | references


def _idle(ttl: Any, fallback: Any, found: Found, where: str) -> dict[str, Any]:
    seconds = ttl if isinstance(ttl, int | float) and ttl >= 0 else fallback if isinstance(fallback, int | float) else 0
    return {"idle": idle_text(seconds) if seconds > 0 else FOREVER}


def _groups(config: Mapping[str, Any], names: Mapping[str, str], found: Found) -> None:
    router = _mapping(_mapping(config.get("routing")).get("router"))
    settings = _mapping(router.get("settings"))
    if router.get("use") == "matrix" or "matrix" in config:
        found.remark(
            "routing.router.settings.matrix", "no equivalent; declare devices and memory: what fits runs together"
        )
        return
    groups = _mapping(settings.get("groups", config.get("groups")))
    limits = {}
    for group, body in groups.items():
        where = f"groups.{group}"
        members = [names[one] for one in _texts(_mapping(body).get("members")) if one in names]
        for name in members:
            found.instances[name]["group"] = free_name(str(group), {})
            if body.get("persistent"):
                found.instances[name]["pin"] = True
        if body.get("swap", True):
            limits[free_name(str(group), {})] = 1
        if body.get("exclusive", True) and len(groups) > 1:
            found.remark(where, "exclusive: no equivalent; the groups run side by side as far as there is room")
    grouped = any("group" in one for one in found.instances.values())
    if not groups and len(names) > 1:
        found.set("groups", "GARRISON_MAX_RUNNING_INSTANCES", "1")
        found.remark("groups", "without groups one model runs at a time; GARRISON_MAX_RUNNING_INSTANCES says so")
    if limits and grouped:
        found.set("groups", "GARRISON_GROUP_LIMITS", ",".join(f"{name}={most}" for name, most in limits.items()))


def _preload(config: Mapping[str, Any], names: Mapping[str, str], found: Found) -> None:
    start = _mapping(_mapping(config.get("hooks")).get("on_startup"))
    for model in _texts(start.get("preload")):
        name = names.get(model)
        if name is None:
            found.remark("hooks.on_startup.preload", f"unknown model {model!r}")
        else:
            found.instances[name]["preload"] = True


def _selectors(config: Mapping[str, Any], names: Mapping[str, str], found: Found) -> None:
    for selector, body in _mapping(config.get("selectors")).items():
        where = f"selectors.{selector}"
        strategy = _mapping(body).get("strategy")
        to = [names[one] for one in _texts(_mapping(body).get("targets")) if one in names]
        if not to or strategy not in _POLICIES:
            found.remark(where, f"left out: no equivalent of strategy {strategy!r} over these targets")
            continue
        found.add_route(str(selector), to, where, _POLICIES[strategy])
        limit = _mapping(_mapping(body).get("settings")).get("spillover", 1)
        if strategy == "spillover" and str(selector) in found.routes and type(limit) is int and limit > 0:
            found.routes[str(selector)]["spill"] = {"limit": limit}


def _profiles(config: Mapping[str, Any], found: Found) -> None:
    """Take over the profiles. What they name are names for clients, which are the same here."""
    for profile, body in _mapping(config.get("profiles")).items():
        where = f"profiles.{profile}"
        pins: dict[str, str | None] = {}
        for name, to in _mapping(_mapping(body).get("pins")).items():
            if may_be_route(str(name)) and (to is None or may_be_route(str(to))):
                pins[str(name)] = None if to is None else escape(str(to))
            else:
                found.remark(f"{where}.pins", f"left out: {name!r}, which cannot be a name in a manifest")
        if may_be_route(str(profile)):
            found.profiles[str(profile)] = pins
        else:
            found.remark(where, "left out: its name cannot be a key of a manifest")


def _peers(config: Mapping[str, Any], macros: Mapping[str, Any], found: Found) -> None:
    for peer, body in _mapping(config.get("peers")).items():
        where = f"peers.{peer}"
        own = Macros(macros)
        try:
            target: dict[str, Any] = {"base_url": canonical_url(own.expand(str(_mapping(body).get("proxy", ""))))}
        except ValueError as error:
            found.remark(where, f"left out: {error}")
            continue
        if key := own.expand(str(body.get("apiKey", ""))):
            variable = marked(key) or "".join(c if c.isalnum() else "_" for c in f"{peer}_API_KEY".upper())
            target["api_key"] = {"env": variable}
            if marked(key) is None:
                found.remark(f"{where}.apiKey", f"a secret, which is not copied; export it as {variable}")
        models = _texts(body.get("models"))
        name = free_name(str(peer), found.instances | found.targets)
        found.targets[name] = target
        if len(models) == 1:
            target["base_model"] = models[0]
            found.add_route(models[0], [name], where)
        else:
            found.remark(where, f"a target serves one base model; its {len(models)} models have no routes")
        for key in body:
            if key not in ("proxy", "models", "apiKey"):
                found.remark(f"{where}.{key}", "no equivalent")


def _settings(config: Mapping[str, Any], found: Found) -> None:
    if isinstance(seconds := config.get("healthCheckTimeout"), int):
        found.set("healthCheckTimeout", "GARRISON_ON_DEMAND_START_TIMEOUT", str(seconds))
    if config.get("sendLoadingState") is True:
        found.set("sendLoadingState", "GARRISON_LOADING_COMMENTS", "5")
    if isinstance(first := config.get("startPort"), int):
        found.set("startPort", "GARRISON_INSTANCE_PORT_RANGE", f"{first}-{min(first + 999, 65535)}")
    if isinstance(level := config.get("logLevel"), str):
        found.set("logLevel", "GARRISON_LOG_LEVEL", level.replace("warn", "warning") if level == "warn" else level)
    scheduler = _mapping(_mapping(config.get("routing")).get("scheduler"))
    if scheduler:
        found.remark("routing.scheduler", "no equivalent; the priority of an instance says which one is evicted first")
    for key in config:
        if key not in _TOP_KEYS:
            found.remark(str(key), _TOP_ANSWERS.get(str(key), "no equivalent"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, Iterable) and not isinstance(value, str | dict) else []
