"""From what should be served to the engine's command: engine and arguments first, since checking them is cheap, then
the model, then the adapters."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from garrison.base.children import find_program
from garrison.base.errors import EngineMissingError, InvalidError, ModelInvalidError
from garrison.base.home import expanded
from garrison.base.presence import exists, is_missing
from garrison.base.settings import Settings
from garrison.engines import registry
from garrison.engines.engine import Endpoint, Engine, EngineCommand, LoraModule, LoraOptions, ServeOptions
from garrison.engines.executable import Located, locate
from garrison.engines.findings import Finding, check_args
from garrison.engines.runnable import require_runnable
from garrison.engines.version import UNKNOWN
from garrison.launch.containers.command import container_command
from garrison.launch.containers.mounts import mounts_of
from garrison.launch.containers.program import missing_program
from garrison.launch.spec import AdapterSpec, LaunchSpec
from garrison.models.layout import Layout

if TYPE_CHECKING:
    from garrison.models.adapters.adapter import AdapterInfo
    from garrison.models.adapters.fit import Base

__all__ = ["Chosen", "PreparedAdapter", "choose", "command", "prepare_adapters", "require_key", "served_names"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """An engine and what its arguments mean, known before a model is looked for or fetched.

    Attributes:
        endpoint: where and how the engine will listen, by the user's flags and the engine's config file.
        file_args: the content of the engine's own config file, as arguments.
        findings: remarks of the option catalogue about the arguments; advice, never a change.
    """

    engine: Engine
    located: Located
    version: str
    endpoint: Endpoint
    findings: Sequence[Finding]
    file_args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PreparedAdapter:
    """An adapter that can be served. `untold`: what could not be checked, a sentence each."""

    name: str
    info: "AdapterInfo"
    untold: tuple[str, ...] = ()


def choose(spec: LaunchSpec, settings: Settings, environ: Mapping[str, str]) -> Chosen:
    """Find the engine and check the arguments.

    Raises:
        EngineMissingError: its program is not found, or cannot be run.
        InvalidError: the engine is unknown, or its config file cannot be read.
    """
    engine: Engine = spec.custom or registry.engine(spec.engine)
    located = _locate(spec, engine, settings, environ)
    require_runnable(located.path, remedy=located.remedy(engine.name))
    version = _version(spec, engine, located)
    file_args = engine.file_args(spec.args)
    variables = {**(environ if spec.container is None else {}), **spec.env}
    return Chosen(
        engine=engine,
        located=located,
        version=version,
        endpoint=engine.endpoint((*file_args, *spec.args), Endpoint(spec.host, spec.port), variables),
        findings=check_args(engine.catalogue(version), (*file_args, *spec.args)),
        file_args=file_args,
    )


def _locate(spec: LaunchSpec, engine: Engine, settings: Settings, environ: Mapping[str, str]) -> Located:
    """The program to execute: the engine's, or docker or podman."""
    if spec.container is not None:
        name = spec.container.program[0]
        if (found := find_program(name, environ)) is None:
            raise missing_program(name)
        return Located(Path(found), "container")
    explicit = str(spec.executable) if spec.executable is not None else None
    if spec.custom is not None:
        explicit = spec.custom.argv[0] if spec.custom.argv else None
    if explicit is None and engine.name == "custom":
        raise InvalidError("a custom server needs a command", hint="Give `argv`, with {port} where its port goes.")
    return locate(engine, data_dir=settings.data_dir, environ=environ, explicit=explicit)


def _version(spec: LaunchSpec, engine: Engine, located: Located) -> str:
    """The engine's version; unknown in an image, and where the program does not tell that of the engine it starts."""
    if spec.container is not None:
        return UNKNOWN
    try:
        return engine.version(located.path)
    except EngineMissingError:
        if not spec.launcher:
            raise
        return UNKNOWN


def require_key(spec: LaunchSpec, environ: Mapping[str, str]) -> None:
    """Check that the variable for the API key is set. Raises InvalidError."""
    EngineCommand((), env_from={"key": spec.api_key_env} if spec.api_key_env else {}).environment(environ)


def prepare_adapters(
    adapters: Sequence[AdapterSpec], model: Path | None, layout: Layout, engine: Engine
) -> tuple[PreparedAdapter, ...]:
    """Inspect what `engine` reads of each adapter, and compare it with the base `model`, a path, where that is known.

    vLLM accepts an adapter whose shapes do not fit and then answers with garbage, so such a server is not started.

    Raises:
        InvalidError: neither a path nor an imported adapter of that name exists.
        ModelInvalidError: it is incomplete, corrupt, made for another base, or nothing that the engine serves; the
            message names adapter and file.
    """
    if not adapters:
        return ()
    base = _read_base(model, engine) if model is not None else None
    return tuple(_prepare_adapter(adapter, base, layout, engine) for adapter in adapters)


def _read_base(model: Path, engine: Engine) -> "Base | None":
    """The base as `engine` loads it; None for files that only another engine reads."""
    from garrison.models.adapters.fit import read_base

    try:
        return read_base(Path(engine.locate_model(str(model))))
    except ModelInvalidError:
        return None  # it was found whole a moment ago; the engine says what it cannot load


def _prepare_adapter(adapter: AdapterSpec, base: "Base | None", layout: Layout, engine: Engine) -> PreparedAdapter:
    from garrison.models.adapters.fit import Fit, check_against_base
    from garrison.models.adapters.judge import inspect_for

    path = _adapter_path(adapter, layout)
    try:
        info = inspect_for(engine.name, path)
    except ModelInvalidError as error:
        raise ModelInvalidError(
            f"adapter {adapter.name!r}: {error.message}", hint=error.hint, details=error.details
        ) from None
    fit = check_against_base(info, base) if base is not None else Fit()
    if fit.problems:
        raise ModelInvalidError(
            f"adapter {adapter.name!r} does not fit the model: {fit.problems[0]}",
            hint=f"Its config names {info.base_model or 'no model'} as its base; serve it with the model it fits.",
            details={"adapter": adapter.name, "problems": list(fit.problems)},
        )
    return PreparedAdapter(adapter.name, info, (*info.warnings, *fit.untold))


def command(
    spec: LaunchSpec, chosen: Chosen, *, model: str, names: Sequence[str], adapters: Sequence[PreparedAdapter]
) -> EngineCommand:
    """The command that serves the resolved `model` under `names`. Pure, except that it lists the model's directory.

    A container sees model and adapters under their real paths: links in them lead to the same places there.

    Raises:
        InvalidError: the engine does not support what is asked, an adapter has the name of the model or of another, or
            a path cannot be given to a container.
    """
    called = [adapter.name for adapter in adapters]
    if clash := [name for name in called if name in names]:
        raise InvalidError(f"adapter {clash[0]!r} has the same name as the model", hint="Rename the adapter.")
    if twice := [name for name in called if called.count(name) > 1]:
        raise InvalidError(f"two adapters are named {twice[0]!r}", hint="Rename one of them.")
    real = os.path.realpath if spec.container is not None else str
    file = chosen.engine.locate_model(model) if model else ""
    beside = tuple(real(word) if word.startswith("/") else word for word in chosen.engine.model_args(file))
    if Path(file).is_absolute():
        file = real(file)
    paths = {adapter.name: real(adapter.info.path) for adapter in adapters}
    made = chosen.engine.command(
        chosen.located.path,
        ServeOptions(
            model=file,
            host=spec.host,
            port=spec.port,
            served_name=names[0],
            args=spec.args,
            lora=_lora(spec, adapters, paths),
            api_key_env=spec.api_key_env,
            file_args=chosen.file_args,
            model_args=beside,
            program=_program(spec, chosen),
        ),
    )
    made = replace(made, env={**made.env, **spec.env})
    if spec.container is None:
        return made
    needed = (*map(Path, (file, *beside, *paths.values())), *spec.reads)
    seen = [path for path in needed if path.is_absolute() and exists(path)]
    return container_command(chosen.located.path, spec.container, made, mounts_of(seen))


def _program(spec: LaunchSpec, chosen: Chosen) -> tuple[str, ...] | None:
    """The words that start the engine, where they are not its executable alone."""
    if spec.container is not None:
        return spec.container.words
    return (str(chosen.located.path), *spec.launcher) if spec.launcher else None


def served_names(spec: LaunchSpec, chosen: Chosen, model_id: str) -> tuple[str, ...]:
    """The names that clients may use, the first one being that of the answers: what the engine prescribes, else what
    its own arguments and config file say, else what Garrison was told, else the model's id or the last part of its
    path."""
    if chosen.engine.fixed_model_name is not None:
        return (chosen.engine.fixed_model_name,)
    if given := chosen.engine.served_names((*chosen.file_args, *spec.args)):
        return given
    if spec.served_name:
        return (spec.served_name,)
    return (Path(model_id).name.removesuffix(".gguf") if model_id.startswith("/") else model_id,)


def _lora(spec: LaunchSpec, adapters: Sequence[PreparedAdapter], paths: Mapping[str, str]) -> LoraOptions | None:
    if not adapters and not spec.runtime_lora:
        return None
    return LoraOptions(
        modules=tuple(LoraModule(adapter.name, paths[adapter.name]) for adapter in adapters),
        max_loras=spec.max_loras or (len(adapters) or None),
        max_rank=max([spec.max_lora_rank or 0, *(adapter.info.max_rank for adapter in adapters)]),
        runtime_updates=spec.runtime_lora,
    )


def _adapter_path(adapter: AdapterSpec, layout: Layout) -> Path:
    given, imported = expanded(adapter.source), layout.adapters / adapter.source
    # A bare name means an imported adapter first, as for models, whatever the current directory contains.
    for candidate in (given, imported) if "/" in adapter.source else (imported, given):
        if adapter.source and not is_missing(candidate):
            return candidate.absolute()
    raise InvalidError(
        f"adapter {adapter.name!r}: {adapter.source!r} is neither a path nor an imported adapter",
        hint="`garrison adapters list` shows the imported ones; `garrison adapters import DIR` adds one.",
    )
