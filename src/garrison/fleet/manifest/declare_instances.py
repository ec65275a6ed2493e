"""Turns the instances of a valid manifest into declarations, and checks the rules across them."""

from collections.abc import Iterable, Mapping

from garrison.base.documents import Path
from garrison.base.errors import InvalidError
from garrison.base.problems import Problems, dotted
from garrison.engines.llama_router import is_router
from garrison.engines.options import normal_keys
from garrison.fleet.manifest.draft import Draft
from garrison.fleet.manifest.instance_model import INSTANCE_NAME, InstanceModel
from garrison.fleet.manifest.instance_options import args_as_options, with_args
from garrison.fleet.manifest.model import FleetManifest
from garrison.fleet.values.instance import CustomCommand, InstanceDeclaration
from garrison.fleet.values.target import TargetSpec, instance_url

__all__ = ["LORA_ENGINES", "declare_instances", "instance_targets", "is_llama_router"]

LORA_ENGINES = frozenset({"vllm", "sim", "custom"})
"""Engines to which adapters can be attached while they run; what a custom server can do shows when it is asked."""


def declare_instances(draft: Draft, manifest: FleetManifest, problems: Problems) -> dict[str, InstanceDeclaration]:
    """Return the instances by name; what is wrong goes to `problems`."""
    return {name: _instance(draft, name, model, manifest, problems) for name, model in manifest.instances.items()}


def instance_targets(instances: Mapping[str, InstanceDeclaration], attached: Iterable[str]) -> dict[str, TargetSpec]:
    """Return a target for each instance in `attached`. Whoever runs the instance supplies its address."""
    names = set(attached)
    return {
        name: TargetSpec(
            name=name,
            base_url=instance_url(name, one.node),
            base_model=one.served_model_name,
            adapter_slots=_slots(one),
        )
        for name, one in instances.items()
        if name in names
    }


def _slots(instance: InstanceDeclaration) -> int | None:
    """How many adapters its engine is told to hold; None if that is left to the engine."""
    kept = instance.options.get("max_cpu_loras", instance.options.get("max_loras"))
    return kept if isinstance(kept, int) else instance.max_loras


def _instance(
    draft: Draft, name: str, model: InstanceModel, manifest: FleetManifest, problems: Problems
) -> InstanceDeclaration:
    path: Path = ("instances", name)
    engine = model.engine or ("custom" if model.custom else "vllm")
    if not INSTANCE_NAME.match(name):
        hint = "Use 1 to 50 letters, digits, dots, underscores and dashes, beginning with a letter or digit."
        problems.add(draft.where(path), path, f"invalid instance name {name!r}", hint)
    if name in manifest.targets:
        text = f"{name!r} is both an instance ({draft.where(path)}) and a target"
        at: Path = ("targets", name)
        problems.add(draft.where(at), at, text, "Rename one of them: adapters and routes refer to both by name.")
    _check_container(draft, path, model, engine, problems)
    options = _options(draft, (*path, "options"), model, problems)
    named = options.pop("model", None)
    if model.model is not None and named is not None:
        at = (*path, "options", "model")
        problems.add(draft.where(at), at, f"{dotted(path)}: the model is given twice", "Remove it from options.")
    found = model.model if model.model is not None else named
    if not isinstance(found, str | None) or (found is None and engine != "custom" and not is_llama_router(model)):
        problems.add(draft.where(path), path, f"{dotted(path)}: no model", "Add a line `model: …`.")
        found = None
    _check_args(draft, (*path, "args"), model, engine, problems)
    return InstanceDeclaration(
        name=name,
        engine=engine,
        model=found,
        options=options,
        custom=None
        if model.custom is None
        else CustomCommand(tuple(model.custom.argv), model.custom.ready_path, tuple(model.custom.apis)),
        env={key: value if isinstance(value, str) else value.reference() for key, value in model.env.items()},
        args=tuple(model.args),
        executable=tuple(model.executable),
        devices=tuple(model.devices),
        **{key: getattr(model, key) for key in _AS_THEY_ARE},
    )


_AS_THEY_ARE = (
    "preset_ini", "container", "served_model_name", "runtime_lora", "max_loras", "max_lora_rank", "port", "on_demand",
    "idle", "auto_restart", "max_restarts", "restart_delay", "group", "pin", "priority", "weight", "memory",
    "sleep_level", "preload", "node",
)  # fmt: skip


def _options(draft: Draft, path: Path, model: InstanceModel, problems: Problems) -> dict[str, object]:
    if model.custom is not None and model.options:
        text = f"{dotted(path)}: a custom server has no options"
        problems.add(draft.where(path), path, text, "Write its arguments into custom.argv, or as args.")
    try:
        return normal_keys(model.options)
    except InvalidError as error:
        key = error.details.get("option")
        again = [one for one in model.options if key is not None and one.replace("-", "_") == key]
        at = (*path, again[-1]) if again else path
        problems.add(draft.where(at), at, f"{dotted(path)}: {error.message}", error.hint)
        return {}


def _check_args(draft: Draft, path: Path, model: InstanceModel, engine: str, problems: Problems) -> None:
    if engine == "custom":
        return
    try:
        args_as_options(engine, model.args)
    except InvalidError as error:
        word = next((at for at, one in enumerate(model.args) if repr(one) in error.message), None)
        at = path if word is None else (*path, word)
        problems.add(draft.where(at), at, f"{dotted(path)}: {error.message}", error.hint)


def is_llama_router(model: InstanceModel) -> bool:
    """Whether an instance has no model of its own. What is wrong with its options is said elsewhere."""
    if model.engine != "llama_cpp":
        return False
    try:
        options = with_args(model.engine, model.options, model.args)
    except InvalidError:
        return False
    named = {} if model.model is None else {"model": model.model}
    return is_router(model.engine, options | named, preset=model.preset_ini is not None)


def _check_container(draft: Draft, path: Path, model: InstanceModel, engine: str, problems: Problems) -> None:
    if model.container and (engine == "mlx_lm" or model.executable):
        at = (*path, "container")
        what = "mlx_lm does not run in a container" if engine == "mlx_lm" else "a container has a program of its own"
        problems.add(draft.where(at), at, f"{dotted(at)}: {what}", "Remove container, or executable.")
