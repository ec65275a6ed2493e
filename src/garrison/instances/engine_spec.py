"""From an instance and the settings of its backend to what is launched. Pure, except that paths are made real."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from garrison.base.errors import InvalidError
from garrison.base.settings import Settings
from garrison.engines import registry
from garrison.engines.argv import gives, last_value
from garrison.engines.catalogue import Catalogue, without_flags
from garrison.engines.custom import Custom
from garrison.engines.engine import Engine
from garrison.engines.llama_preset import PRESET_FLAG, files_of_preset
from garrison.engines.options import EXTRA, normal_keys, to_args
from garrison.engines.parse.container import is_container
from garrison.instances.instance_files import preset_path
from garrison.instances.room.values import HOST as SYSTEM_MEMORY
from garrison.instances.runner import Launch
from garrison.instances.sleeper import sleep_environment
from garrison.instances.values.spec import InstanceSpec
from garrison.launch.backends import Arrangement, Backend, Image, arrange, backend_of
from garrison.launch.containers.command import visible_devices
from garrison.launch.containers.values import ContainerSpec, container_name
from garrison.launch.spec import LaunchSpec

__all__ = ["ADDRESS", "KEY_VARIABLE", "Plan", "engine_of", "plan_launch", "require_servers_address"]

KEY_VARIABLE = "GARRISON_INSTANCE_KEY"
ADDRESS = "127.0.0.1"
_OURS = ("host", "port", "api_key", "api_key_file", "uds")
"""Options that the server decides: an engine listens on loopback, with a key that nobody else has."""
_OUR_FLAGS = tuple("--" + name.replace("_", "-") for name in _OURS)
_KEY_VARIABLES = frozenset({"VLLM_API_KEY", "LLAMA_API_KEY"})


@dataclass(frozen=True, slots=True)
class Plan:
    """How one instance is started. `notes` say what was asked for and is not done."""

    spec: LaunchSpec
    engine: Engine
    notes: tuple[str, ...] = ()


def engine_of(spec: InstanceSpec) -> Engine:
    """The engine of an instance. Raises InvalidError."""
    if spec.engine != "custom":
        return registry.engine(spec.engine)
    if spec.custom is None or not spec.custom.argv:
        raise InvalidError(
            f"instance {spec.name} is a custom server without a command",
            hint="Give `argv`, with {port} where its port goes.",
            details={"instance": spec.name},
        )
    return Custom(spec.custom.argv, ready_path=spec.custom.ready_path, apis=spec.custom.apis)


def plan_launch(launch: Launch, settings: Settings) -> Plan:
    """Decide what is launched for an instance.

    Raises:
        InvalidError: it names no model, its options cannot be arguments, or its container has no image.
    """
    spec, engine = launch.spec, engine_of(launch.spec)
    backend = backend_of(settings, spec.engine)
    arranged = _arranged(spec, engine, backend)
    args, notes = _arguments(launch, engine, backend, settings)
    env, more = _environment(launch, engine, backend, contained=arranged.container is not None)
    words = arranged.words
    container = None if arranged.container is None else _container(arranged.container, launch, settings)
    return Plan(
        LaunchSpec(
            model=_model(spec, engine),
            engine=spec.engine,
            host=ADDRESS,
            port=launch.port,
            args=args,
            env=env,
            api_key_env=KEY_VARIABLE if engine.capabilities.api_key else None,
            executable=Path(words[0]) if words and not isinstance(engine, Custom) else None,
            launcher=words[1:],
            container=container,
            router=spec.router,
            reads=_reads(spec, args, settings),
            custom=engine if isinstance(engine, Custom) else None,
        ),
        engine,
        (*arranged.notes, *notes, *more),
    )


def require_servers_address(name: str, file_args: Sequence[str]) -> None:
    """See that the engine's config file leaves to the server what no flag can take back. Pure.

    Raises:
        InvalidError: it sets a socket file or a key.
    """
    for flag in ("--uds", "--api-key"):
        if gives(file_args, {flag}):
            raise InvalidError(
                f"instance {name}: its config file sets {flag.removeprefix('--')}",
                hint="Remove that line: the server decides where its engines listen, and their keys.",
                details={"instance": name},
            )


def _arranged(spec: InstanceSpec, engine: Engine, backend: Backend) -> Arrangement:
    if not isinstance(engine, Custom):
        return arrange(spec.engine, backend, spec.executable, spec.container)
    _check_custom(spec, engine)
    if spec.container is None and not is_container(engine.argv):
        return Arrangement()
    # Its command is its program, so a container's command is taken apart as an executable is.
    return arrange(spec.engine, backend, engine.argv if is_container(engine.argv) else (), spec.container)


def _check_custom(spec: InstanceSpec, engine: Custom) -> None:
    unknown = sorted(set(normal_keys(spec.options)) - {"model", EXTRA, *_OURS})
    if unknown:
        raise InvalidError(
            f"instance {spec.name}: a custom server has no option {unknown[0]}: its options are not known",
            hint=f"Write it into its command, or into {EXTRA} under the name of its flag.",
            details={"instance": spec.name, "options": unknown},
        )
    if spec.executable:
        raise InvalidError(
            f"instance {spec.name}: a custom server has its command in `argv`, so it takes no other executable",
            hint="Write the program as the first word of `argv`.",
            details={"instance": spec.name},
        )
    if spec.port is None and not any("{port}" in word for word in engine.argv):
        raise InvalidError(
            f"instance {spec.name}: the command of the custom server does not say where its port goes",
            hint="Write {port} into it, or give the instance the port that it listens on.",
            details={"instance": spec.name},
        )


def _arguments(
    launch: Launch, engine: Engine, backend: Backend, settings: Settings
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those of its room, then the backend's, then the instance's own, without those that the server decides."""
    options = {name: value for name, value in normal_keys(launch.spec.options).items() if name not in _OURS}
    catalogue: Catalogue = engine.catalogue()
    own = to_args(options, catalogue)
    if isinstance(engine, Custom):
        return own, ()
    args, dropped = without_flags(catalogue, (*launch.room_args, *backend.args, *own), _OUR_FLAGS)
    if launch.spec.preset_ini is not None and not gives(args, {PRESET_FLAG}):
        args = (PRESET_FLAG, str(preset_path(settings, launch.spec.name)), *args)
    notes = (f"{flag} was left out: the server decides where its engines listen, and their keys" for flag in dropped)
    if "--config" in args:  # its file may name another address, and flags win over it
        args = (*args, "--host", ADDRESS, "--port", str(launch.port))
    return args, tuple(notes)


def _environment(
    launch: Launch, engine: Engine, backend: Backend, *, contained: bool
) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Variables of the backend, of containers, of sleep and of the instance, in this order; and remarks."""
    gpus = [one for one in launch.devices if one != SYSTEM_MEMORY]
    made = dict(backend.env)
    made |= backend.container_env if contained else {}
    gpus_seen = launch.room_env or visible_devices(gpus)
    made |= {**gpus_seen, **sleep_environment(launch.spec), **launch.spec.env}
    dropped = sorted(_KEY_VARIABLES & made.keys()) if engine.capabilities.api_key else []
    notes = (f"{name} was left out: the server gives its engines keys of their own" for name in dropped)
    return {name: value for name, value in made.items() if name not in dropped}, tuple(notes)


def _container(image: Image, launch: Launch, settings: Settings) -> ContainerSpec:
    name, server = container_name(settings.data_dir, launch.spec.name)
    return ContainerSpec(
        program=image.program,
        image=image.image,
        name=name,
        server=server,
        instance=launch.spec.name,
        own=image.own,
        inside=image.inside,
        devices=tuple(one for one in launch.devices if one != SYSTEM_MEMORY),
    )


def _reads(spec: InstanceSpec, args: Sequence[str], settings: Settings) -> tuple[Path, ...]:
    """Files and directories that a router reads: its preset, what that names, and the directory of its models."""
    if not spec.router:
        return ()
    named = [found for flag in (PRESET_FLAG, "--models-dir") if (found := last_value(args, {flag}))]
    if spec.preset_ini is not None and str(preset_path(settings, spec.name)) in named:
        named += files_of_preset(spec.preset_ini)
    return tuple(Path(one) for one in named)


def _model(spec: InstanceSpec, engine: Engine) -> str:
    if spec.model is None:
        if isinstance(engine, Custom) or spec.router:
            return ""
        raise InvalidError(
            f"instance {spec.name} names no model",
            hint="Add `model` to its options: a name, a directory or a file.",
            details={"instance": spec.name},
        )
    return spec.model
