"""Preflight, resolve, start: one flow, one space of exit codes.

The port is checked twice. The first check changes nothing: a foreign listener ends the command before a download
begins. The second one, after the model is on disk, frees the port: an old server is stopped as late as possible,
because it serves until then.
"""

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from garrison.base.errors import EngineMissingError
from garrison.base.identity import this_process
from garrison.base.locks import FileLock
from garrison.base.settings import Settings
from garrison.engines.argv import gives
from garrison.engines.engine import EngineCommand
from garrison.launch.engine_command import (
    Chosen,
    PreparedAdapter,
    choose,
    command,
    prepare_adapters,
    require_key,
    served_names,
)
from garrison.launch.port_server import MachineServers, engine_called
from garrison.launch.run.hub_cache import make_hub_cache
from garrison.launch.run.view import StartView
from garrison.launch.spec import LaunchSpec
from garrison.models.files.progress import Progress
from garrison.models.files.stop_token import StopToken
from garrison.models.hub_caches import user_hub_caches
from garrison.models.layout import Layout
from garrison.models.request import ResolveRequest
from garrison.models.resolve import ResolvedModel, resolve
from garrison.preflight.check import Ask, PreflightRequest, check, port_lock
from garrison.preflight.engine_records import EngineRecord, forget_engine, record_engine, unrecorded
from garrison.preflight.policy import REFUSE, REPLACE, PortPolicy, configured
from garrison.preflight.socket_file import clear_socket_file, require_usable_socket_file

__all__ = ["Prepared", "prepare", "start", "start_by_exec"]

_TOKENIZER_FLAGS = frozenset({"--tokenizer", "--skip-tokenizer-init"})
"""Flags of vLLM with which the model's own tokenizer is not read."""
_LOOPBACK = ("127.", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that a start needs, checked. `model` is None for a custom server and for a router."""

    spec: LaunchSpec
    chosen: Chosen
    model: ResolvedModel | None
    served_name: str
    adapters: tuple[PreparedAdapter, ...]
    command: EngineCommand
    request: PreflightRequest
    policy: PortPolicy


def prepare(
    spec: LaunchSpec,
    settings: Settings,
    environ: Mapping[str, str],
    *,
    view: StartView,
    progress: Progress,
    offline: bool = False,
    verify: bool = False,
    may_replace: bool = False,
    port_was_free: bool = False,
    ask: Ask | None = None,
    stop: StopToken | None = None,
) -> Prepared:
    """Do everything up to the start; nothing is stopped or started.

    Args:
        port_was_free: the caller has just looked.
        may_replace: the user's own server on the port may be stopped.
        ask: asks a person whether it may be stopped; None when there is no terminal.
        stop: cancels a download.

    Raises:
        GarrisonError: as `choose`, `check`, `resolve` and `command` do.
    """
    chosen = choose(spec, settings, environ)
    _advise(spec, chosen, view)
    request = _request(chosen, settings)
    policy = _policy(chosen, settings, may_replace=may_replace)
    if not (request.skip_port or port_was_free):
        policy = _look_early(request, policy, view, ask)
    if chosen.endpoint.uds is not None:
        require_usable_socket_file(chosen.endpoint.uds)
    # What can be checked without the model is checked before it is fetched.
    prepare_adapters(spec.adapters, None, Layout.from_settings(settings), chosen.engine)
    require_key(spec, environ)
    if spec.custom is not None or spec.router:
        made = command(spec, chosen, model=spec.model, names=(spec.model,), adapters=())
        return Prepared(spec, chosen, None, spec.model, (), made, request, policy)
    if spec.engine == "sim" and not _is_path(spec.model):  # it has no weights, so a name will do
        adapters = prepare_adapters(spec.adapters, None, Layout.from_settings(settings), chosen.engine)
        names = served_names(spec, chosen, spec.model)
        made = command(spec, chosen, model=spec.model, names=names, adapters=adapters)
        return Prepared(spec, chosen, None, names[0], adapters, made, request, policy)
    own_tokenizer = gives((*chosen.file_args, *spec.args), _TOKENIZER_FLAGS)
    wanted = ResolveRequest.from_settings(
        settings,
        spec.model,
        offline=offline,
        verify=verify,
        skip_tokenizer=own_tokenizer or None,
        hub_caches=user_hub_caches(environ),
    )
    model = resolve(wanted, progress=progress, stop=stop)
    view.note(f"model {model.model_id} from {model.source}: {model.path}")
    if wanted.model.revision is not None and model.revision is None:
        view.note(f"warning: the revision of this copy is not on record; it is assumed to be {wanted.model.revision}")
    adapters = prepare_adapters(spec.adapters, model.path, Layout.from_settings(settings), chosen.engine)
    for adapter in adapters:
        for sentence in adapter.untold:
            view.note(f"warning: adapter {adapter.name}: {sentence}")
    names = served_names(spec, chosen, model.model_id)
    made = command(spec, chosen, model=str(model.path), names=names, adapters=adapters)
    return Prepared(spec, chosen, model, names[0], adapters, made, request, policy)


def _is_path(model: str) -> bool:
    """Whether a model is meant as a path: it begins like one, or there is one."""
    return model.startswith(("/", "./", "../", "~")) or os.path.exists(model)  # noqa: PTH110 - Path raises for a name that is too long


def start_by_exec(prepared: Prepared, settings: Settings, environ: Mapping[str, str], view: StartView) -> NoReturn:
    """Free the port, check the GPUs, and replace this process with the engine. The port's lock is released at exec.

    Raises:
        EngineMissingError: it cannot be executed.
    """
    made = prepared.command
    environment = made.environment(environ)
    if made.reads_hub_cache:
        make_hub_cache(environment)
    with _ready_port(prepared, view) as lock:
        sys.stdout.flush()
        sys.stderr.flush()
        record = _record_this_process(prepared, settings, view)
        # A flock would end at exec. The fallback directory names this pid, which becomes the engine's.
        if lock is not None:
            lock.release()
        try:
            os.execve(made.argv[0], list(made.argv), environment)  # noqa: S606 - replacing this process with the engine is the job; no shell is involved
        except OSError as error:
            if record is not None:
                forget_engine(record)
            raise EngineMissingError(
                f"cannot run {made.argv[0]}: {error.strerror}", hint="Install the engine again, or name another one."
            ) from None


def _record_this_process(prepared: Prepared, settings: Settings, view: StartView) -> Path | None:
    """Record the engine that this process is about to become: pid and start time survive exec."""
    endpoint = prepared.chosen.endpoint
    port = endpoint.port if endpoint.needs_port else None
    try:
        record = EngineRecord(prepared.chosen.engine.name, port, this_process())
        return record_engine(settings.engine_records, record)
    except OSError as error:
        view.note(unrecorded(error.strerror or str(error)))
        return None


def start(prepared: Prepared, settings: Settings, environ: Mapping[str, str], view: StartView) -> int:
    """Free the port, check the GPUs, start the engine, and stay its parent until it ends.

    Returns and raises as `Supervisor.run` does.
    """
    import asyncio

    from garrison.launch.run.engine_run import Job
    from garrison.launch.run.patience import Patience
    from garrison.launch.run.supervise import Supervisor

    job = Job(
        engine=prepared.chosen.engine,
        command=prepared.command,
        endpoint=prepared.chosen.endpoint,
        environment=prepared.command.environment(environ),
        log_path=log_path(settings, prepared.chosen),
        patience=Patience(settings.progress_window, settings.ready_timeout),
        stop_timeout=float(settings.stop_timeout),
        notes=settings.run_dir,
        records=settings.engine_records,
    )
    # This opens the log, the last thing that can fail, before a server is stopped for this start.
    with contextlib.closing(Supervisor(job, view)) as supervisor, _ready_port(prepared, view) as lock:
        return asyncio.run(supervisor.run(on_bound=lock.release if lock is not None else lambda: None))


def log_path(settings: Settings, chosen: Chosen) -> Path:
    """The file for the engine's output, named for its port, else for its socket, else for having neither."""
    where = chosen.endpoint
    if where.needs_port:
        name = str(where.port)
    elif where.uds:
        # Sockets in different directories may have the same name; each gets its own log.
        path = str(Path(where.uds).absolute())
        name = f"{Path(path).stem}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    else:
        name = "headless" if where.protocol == "none" else "any-port"
    return settings.data_dir / "logs" / f"{chosen.engine.name}-{name}.log"


@contextlib.contextmanager
def _ready_port(prepared: Prepared, view: StartView) -> Iterator[FileLock | None]:
    request = prepared.request
    if prepared.chosen.endpoint.uds is not None:
        clear_socket_file(prepared.chosen.endpoint.uds, view.note)
    with contextlib.nullcontext() if request.skip_port else port_lock(request) as lock:
        check(request, prepared.policy, servers=MachineServers(request.port), say=view.note)
        yield lock


def _policy(chosen: Chosen, settings: Settings, *, may_replace: bool) -> PortPolicy:
    wrong = [finding.message for finding in chosen.findings if finding.level == "error"]
    policy = configured(REPLACE if may_replace else REFUSE, settings)
    return replace(policy, dry_run=False, in_vain=wrong[0] if wrong else None)


def _look_early(request: PreflightRequest, policy: PortPolicy, view: StartView, ask: Ask | None) -> PortPolicy:
    """Refuse, or ask, before the model is fetched; the policy for the real check, with what was agreed to.

    The GPUs are looked at when the start is near: what is hot now may be cool after an hour of downloading.
    """
    report = check(
        replace(request, skip_gpu=True),
        replace(policy, dry_run=True),
        servers=MachineServers(request.port),
        say=lambda _: None,
        ask=ask,
    )
    if report.held_by is not None:
        pids = ", ".join(map(str, report.would_stop_roots))
        title = engine_called(report.held_by).title
        view.note(f"port {report.port} is held by your {title}, pid {pids}; the start will stop it")
    return replace(policy, agreed=report.agreed)


def _request(chosen: Chosen, settings: Settings) -> PreflightRequest:
    where = chosen.endpoint
    request = PreflightRequest.from_settings(replace(settings, engine_host=where.host, engine_port=where.port))
    return replace(request, skip_port=not where.needs_port)


def _advise(spec: LaunchSpec, chosen: Chosen, view: StartView) -> None:
    for finding in chosen.findings:
        view.note(f"{finding.level}: {finding.message}")
    host = chosen.endpoint.host
    if not chosen.endpoint.needs_port:
        return
    if not host.startswith(_LOOPBACK) and not _has_key(spec, chosen):
        view.note(f"{host} can be reached from the network, and no API key is set; pass --api-key-env NAME to set one")


def _has_key(spec: LaunchSpec, chosen: Chosen) -> bool:
    return spec.api_key_env is not None or gives((*chosen.file_args, *spec.args), {"--api-key", "--api-key-file"})
