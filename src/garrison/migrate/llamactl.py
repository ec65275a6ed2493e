"""llamactl: its YAML config, and its instances as the API exports them or as its database holds them."""

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from garrison.engines.llama_router import is_router
from garrison.engines.options import EXTRA, normal_keys
from garrison.migrate.command_line import hub_model, server_options
from garrison.migrate.values import Found, idle_text, literal

__all__ = ["add_config", "add_instance", "database_path"]

_ENGINES = {"llama_cpp": "llama_cpp", "vllm": "vllm", "mlx_lm": "mlx_lm", "mlx": "mlx_lm"}

_SETTINGS = {
    "server.host": "LLAMACTL_HOST",
    "server.port": "LLAMACTL_PORT",
    "server.allowed_origins": "LLAMACTL_ALLOWED_ORIGINS",
    "backends.llama-cpp.command": "LLAMACTL_LLAMACPP_COMMAND",
    "backends.llama-cpp.args": "LLAMACTL_LLAMACPP_ARGS",
    "backends.llama-cpp.environment": "LLAMACTL_LLAMACPP_ENV",
    "backends.llama-cpp.docker.enabled": "LLAMACTL_LLAMACPP_DOCKER_ENABLED",
    "backends.llama-cpp.docker.image": "LLAMACTL_LLAMACPP_DOCKER_IMAGE",
    "backends.llama-cpp.docker.args": "LLAMACTL_LLAMACPP_DOCKER_ARGS",
    "backends.llama-cpp.docker.environment": "LLAMACTL_LLAMACPP_DOCKER_ENV",
    "backends.vllm.command": "LLAMACTL_VLLM_COMMAND",
    "backends.vllm.args": "GARRISON_VLLM_ARGS",
    "backends.vllm.environment": "LLAMACTL_VLLM_ENV",
    "backends.vllm.docker.enabled": "LLAMACTL_VLLM_DOCKER_ENABLED",
    "backends.vllm.docker.image": "LLAMACTL_VLLM_DOCKER_IMAGE",
    "backends.vllm.docker.args": "LLAMACTL_VLLM_DOCKER_ARGS",
    "backends.vllm.docker.environment": "LLAMACTL_VLLM_DOCKER_ENV",
    "backends.mlx.command": "LLAMACTL_MLX_COMMAND",
    "backends.mlx.args": "LLAMACTL_MLX_ARGS",
    "backends.mlx.environment": "LLAMACTL_MLX_ENV",
    "local_node": "LLAMACTL_LOCAL_NODE",
    "instances.port_range": "LLAMACTL_INSTANCE_PORT_RANGE",
    "instances.max_instances": "LLAMACTL_MAX_INSTANCES",
    "instances.max_running_instances": "LLAMACTL_MAX_RUNNING_INSTANCES",
    "instances.group_limits": "LLAMACTL_GROUP_LIMITS",
    "instances.enable_lru_eviction": "LLAMACTL_ENABLE_LRU_EVICTION",
    "instances.default_idle_timeout": "LLAMACTL_DEFAULT_IDLE_TIMEOUT",
    "instances.default_auto_restart": "LLAMACTL_DEFAULT_AUTO_RESTART",
    "instances.default_max_restarts": "LLAMACTL_DEFAULT_MAX_RESTARTS",
    "instances.default_restart_delay": "LLAMACTL_DEFAULT_RESTART_DELAY",
    "instances.default_on_demand_start": "LLAMACTL_DEFAULT_ON_DEMAND_START",
    "instances.on_demand_start_timeout": "LLAMACTL_ON_DEMAND_START_TIMEOUT",
    "instances.log_rotation_max_size": "LLAMACTL_LOG_ROTATION_MAX_SIZE",
    "auth.require_inference_auth": "LLAMACTL_REQUIRE_INFERENCE_AUTH",
    "auth.require_management_auth": "LLAMACTL_REQUIRE_MANAGEMENT_AUTH",
}
_ANSWERS = {
    "auth.management_keys": "secrets, which are not copied; make keys with `garrison keys create --manage`",
    "data_dir": "Garrison keeps its own data directory; see GARRISON_DATA_DIR",
    "database.path": "Garrison has a database of its own",
    "instances.instances_dir": "instances live in Garrison's data directory",
    "instances.logs_dir": "logs live in Garrison's data directory",
    "instances.auto_create_dirs": "Garrison always creates its directories",
    "instances.timeout_check_interval": "idle instances are stopped on time, without an interval of checks",
    "instances.log_rotation_enabled": "logs are always rotated",
}
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_BRANCHES = ("server", "backends", "instances", "database", "auth")
_MAPPINGS = ("environment", "docker.environment", "group_limits")
_KEPT = {
    "auto_restart", "max_restarts", "restart_delay", "on_demand_start", "idle_timeout", "environment",
    "docker_enabled", "command_override", "group", "nodes", "backend_type", "backend_options", "preset_ini",
}  # fmt: skip


def add_config(config: Mapping[str, Any], found: Found) -> None:
    """Take over llamactl's config file: settings, and its nodes as remarks. It holds no instances."""
    for path, value in _leaves(config, ""):
        if path.startswith("nodes."):
            continue
        if (variable := _SETTINGS.get(path)) is not None:
            text = _setting_text(path, value)
            if text is not None:
                found.set(path, variable, text)
        elif value not in (None, {}, [], ""):
            found.remark(path, _ANSWERS.get(path, "no equivalent"))
    nodes = config.get("nodes")
    for name, node in nodes.items() if isinstance(nodes, dict) else ():
        address = node.get("address") if isinstance(node, dict) else None
        if address:
            found.remark(f"nodes.{name}", f"`garrison nodes add {name} {address}` adds it; its key is not copied")


def database_path(config: Mapping[str, Any], home: str) -> str:
    """Return where the instances of a llamactl with this config are."""
    database = config.get("database")
    if isinstance(database, dict) and isinstance(database.get("path"), str):
        return str(database["path"])
    data = config.get("data_dir")
    return f"{data if isinstance(data, str) else f'{home}/.local/share/llamactl'}/llamactl.db"


def add_instance(name: str, options: Mapping[str, Any], found: Found, *, local_node: str = "main") -> None:
    """Take over one instance.

    Args:
        options: its options, as in llamactl's API and its column `options_json`.
        local_node: what llamactl calls this machine.
    """
    where = f"instances.{name}"
    engine = _ENGINES.get(str(options.get("backend_type")))
    backend = options.get("backend_options")
    if engine is None or not isinstance(backend, dict | None):
        found.remark(where, f"left out: unknown backend_type {options.get('backend_type')!r}")
        return
    given = _engine_options(backend or {}, found, where)
    preset = _preset(engine, options.get("preset_ini"), found, where)
    body: dict[str, Any] = {"engine": engine} | preset
    if not is_router(engine, given, preset=bool(preset)):
        model = given.pop("model", None) or hub_model(given, found, where)
        if not isinstance(model, str):
            found.remark(where, "left out: it names no model")
            return
        body = {"model": literal(model)} | body
    if options_left := server_options(given):
        body["options"] = literal(options_left)
    body |= _how_it_lives(options, found, where, local_node)
    if engine == "mlx_lm" or "executable" in body:
        if body.get("container") and engine != "mlx_lm":
            found.remark(f"{where}.command_override", "left out, as llamactl does in a container")
            body.pop("executable")
        else:
            body.pop("container", None)
    found.add_instance(name, body, where)
    for key, value in options.items():
        if key not in _KEPT and value not in (None, "", {}, []):
            found.remark(f"{where}.{key}", "no equivalent")


def _preset(engine: str, text: Any, found: Found, where: str) -> dict[str, Any]:
    if not isinstance(text, str) or not text.strip():
        return {}
    if engine != "llama_cpp":
        found.remark(f"{where}.preset_ini", "left out: only llama_cpp has presets")
        return {}
    lines = [line.rstrip() for line in text.splitlines()]
    if any(_CONTROL.search(line) for line in lines):
        found.remark(f"{where}.preset_ini", "left out: it holds a control character")
        return {}
    return {"preset_ini": literal("\n".join(lines) + "\n")}


def _engine_options(backend: Mapping[str, Any], found: Found, where: str) -> dict[str, Any]:
    """The options that llamactl would write into a command: it leaves out zero, false and empty ones."""
    known = normal_keys(backend)
    extra = known.pop(EXTRA, None) or {}
    given = {key: value for key, value in known.items() if value not in (None, False, 0, "", [], {})}
    if dropped := sorted(key for key, value in known.items() if key not in given and value is not None):
        found.remark(
            f"{where}.backend_options", f"{', '.join(dropped)}: zero, false or empty, which llamactl never passed on"
        )
    if extra:
        # llamactl writes `--flag true` for a switch that it does not know, which no engine takes.
        given[EXTRA] = {key: True if value in ("true", "", True) else value for key, value in extra.items()}
    return given


def _how_it_lives(options: Mapping[str, Any], found: Found, where: str, local_node: str) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for key, ours in (
        ("auto_restart", "auto_restart"),
        ("max_restarts", "max_restarts"),
        ("on_demand_start", "on_demand"),
        ("group", "group"),
    ):
        if (value := options.get(key)) not in (None, ""):
            body[ours] = value
    if isinstance(delay := options.get("restart_delay"), int | float):
        body["restart_delay"] = min(max(delay, 0.05), 86_400)
    if isinstance(minutes := options.get("idle_timeout"), int | float):
        body["idle"] = idle_text(minutes * 60) if minutes > 0 else "never"
    if options.get("docker_enabled") is not None:
        body["container"] = bool(options["docker_enabled"])
    if override := str(options.get("command_override") or ""):
        try:
            body["executable"] = literal(shlex.split(override))
        except ValueError as error:
            found.remark(f"{where}.command_override", f"left out: {str(error).lower()}")
    environment = options.get("environment")
    if isinstance(environment, dict) and environment:
        body["env"] = literal(found.env(environment, f"{where}.environment"))
    nodes = [one for one in options.get("nodes") or () if isinstance(one, str)]
    if elsewhere := [one for one in nodes if one != local_node]:
        body["node"] = elsewhere[0]
        if len(nodes) > 1:
            found.remark(f"{where}.nodes", f"several nodes; {elsewhere[0]} is taken")
    return body


def _leaves(value: Mapping[str, Any], prefix: str) -> "list[tuple[str, Any]]":
    found: list[tuple[str, Any]] = []
    for key, one in value.items():
        path = f"{prefix}{key}"
        if isinstance(one, dict) and not path.endswith(_MAPPINGS) and (path in _BRANCHES or path in _SETTINGS or one):
            found += _leaves(one, f"{path}.")
        else:
            found.append((path, one))
    return found


def _setting_text(path: str, value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "1" if value else "0"
    if path == "instances.port_range" and isinstance(value, list) and len(value) == 2:
        return f"{value[0]}-{value[1]}"
    if isinstance(value, dict):
        return ",".join(f"{key}={one}" for key, one in value.items()) or None
    if isinstance(value, list):
        if path == "server.allowed_origins":
            return ",".join(map(str, value)) or None
        return shlex.join(map(str, value)) or None
    return value if isinstance(value, str) else json.dumps(value)
