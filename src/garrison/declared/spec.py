"""From a declared instance to the spec that the instance manager takes. No I/O."""

from collections.abc import Collection, Mapping
from typing import Any

from garrison.base.server_settings import ServerSettings
from garrison.engines.vllm import lora_rank
from garrison.fleet.manifest.instance_options import with_args
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.instance import InstanceDeclaration
from garrison.instances.values.spec import CustomServer, InstanceSpec
from garrison.net.endpoint import Secret

__all__ = ["attached_instances", "spec_of", "specs_of"]

_RUNTIME_LORA = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
_LORA = frozenset({"vllm", "sim"})
_SERVED_NAME = {"vllm": "served_model_name", "sim": "served_model_name", "llama_cpp": "alias"}


def specs_of(declaration: Declaration, defaults: ServerSettings) -> dict[str, InstanceSpec]:
    """Return the specs of a stack's instances, by name.

    Raises:
        InvalidError: an adapter rank that the engine does not serve, or arguments that are no options.
    """
    attached = attached_instances(declaration)
    return {
        name: spec_of(one, declaration.stack, defaults, attached=name in attached)
        for name, one in declaration.instances.items()
    }


def attached_instances(declaration: Declaration) -> Collection[str]:
    """Return the names of the instances to which the stack attaches adapters."""
    return {one.target for one in declaration.adapters} & declaration.instances.keys()


def spec_of(
    declared: InstanceDeclaration, stack: str, defaults: ServerSettings, *, attached: bool = False
) -> InstanceSpec:
    """Return the spec of one instance.

    Args:
        defaults: for what the manifest leaves open.
        attached: adapters are attached to it, so its engine must let them be loaded.

    Raises:
        InvalidError: as `specs_of`.
    """
    given = {"auto_restart", "max_restarts", "restart_delay"}
    policy = {
        name: value if (value := getattr(declared, name)) is not None else getattr(defaults, f"default_{name}")
        for name in given
    }
    on_demand = declared.on_demand if declared.on_demand is not None else defaults.default_on_demand_start
    loads = declared.engine in _LORA and (attached or declared.runtime_lora)
    return InstanceSpec(
        name=declared.name,
        engine=declared.engine,
        options=_options(declared, loads=loads),
        custom=_custom(declared),
        preset_ini=declared.preset_ini,
        executable=declared.executable,
        container=declared.container,
        env=(_RUNTIME_LORA if loads else {}) | _plain(declared.env),
        secrets={name: value for name, value in declared.env.items() if isinstance(value, Secret)},
        port=declared.port,
        on_demand=on_demand,
        idle_seconds=declared.idle,
        group=declared.group,
        pin=declared.pin,
        priority=declared.priority,
        weight=declared.weight,
        devices=declared.devices,
        memory_bytes=declared.memory,
        sleep_level=declared.sleep_level,
        preload=declared.preload,
        stack=stack,
        **policy,
    )


def _plain(env: Mapping[str, str | Secret]) -> dict[str, str]:
    return {name: value for name, value in env.items() if isinstance(value, str)}


def _options(declared: InstanceDeclaration, *, loads: bool) -> dict[str, Any]:
    """The options that the engine is given. What the user wrote counts more than what follows from other keys."""
    first: dict[str, Any] = {} if declared.model is None else {"model": declared.model}
    if declared.engine == "custom":
        return first
    user = with_args(declared.engine, declared.options, declared.args)
    if declared.served_model_name is not None and (key := _SERVED_NAME.get(declared.engine)):
        first[key] = [declared.served_model_name] if key == "served_model_name" else declared.served_model_name
    if loads:
        first["enable_lora"] = True
    if declared.engine in _LORA and declared.max_loras is not None:
        first["max_loras"] = declared.max_loras
    if declared.engine in _LORA and declared.max_lora_rank is not None:
        first["max_lora_rank"] = lora_rank(declared.max_lora_rank)
    return {key: value for key, value in first.items() if key not in user} | user


def _custom(declared: InstanceDeclaration) -> CustomServer | None:
    if declared.custom is None:
        return None
    custom = declared.custom
    return CustomServer((*custom.argv, *declared.args), custom.ready_path, frozenset(custom.apis))
