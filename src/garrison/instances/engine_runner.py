"""Engines below shims: prepared as `garrison serve` prepares them, started detached, and found again.

`instances/NAME/` in the data directory belongs to one instance, mode 0700: the shim's status and socket, the key, and
the log.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from garrison.base.errors import ConflictError, GarrisonError, InvalidError
from garrison.base.files import write_atomic
from garrison.base.logs import logger
from garrison.base.settings import Settings
from garrison.engines import registry
from garrison.engines.argv import Endpoint
from garrison.engines.engine import EngineCommand
from garrison.engines.options import normal_keys, to_args
from garrison.instances.runner import Launch, Progress, RunningEngine, Upstream
from garrison.instances.values.spec import InstanceSpec
from garrison.launch.engine_log import OutputLines
from garrison.launch.run.address import base_url
from garrison.launch.run.detached import Adopted, DetachedSpawner, ShimStatus, adopt_engine, lives, read_status
from garrison.launch.run.engine_run import EngineRun, Job
from garrison.launch.run.patience import Patience
from garrison.launch.run.spawn import Spawner
from garrison.launch.serve import prepare
from garrison.launch.spec import LaunchSpec
from garrison.models.files.progress import Silent
from garrison.models.files.stop_token import StopToken
from garrison.net.thread_pool import ThreadPool

__all__ = ["EngineRunner"]

KEY_VARIABLE = "GARRISON_INSTANCE_KEY"
_HOST = "127.0.0.1"
_OURS = ("host", "port", "api_key", "api_key_file", "uds")
"""Options that the server decides: an engine listens on loopback, with a key that nobody else has."""
_KILL_SECONDS = 5.0
_POLL_SECONDS = 0.05

_log = logger(__name__)


class EngineRunner:
    """`Runner` for real engines.

    Args:
        ports: the first and the last port to give away.
        pool: threads for the preparation of starts, which may download for hours.
    """

    def __init__(
        self, settings: Settings, environ: Mapping[str, str], *, ports: tuple[int, int], pool: ThreadPool
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._ports = ports
        self._pool = pool

    def directory(self, name: str) -> Path:
        """Where the files of an instance are."""
        return self._settings.data_dir / "instances" / name

    def log_path(self, name: str) -> Path:
        return self.directory(name) / "log"

    async def start(self, launch: Launch, progress: Callable[[Progress], None]) -> RunningEngine:
        """As `Runner.start`."""
        stop = StopToken()
        preparing = asyncio.ensure_future(
            self._pool.run(lambda: self._prepare(launch, stop), f"prepare {launch.spec.name}")
        )
        try:
            job, upstream = await asyncio.shield(preparing)
        except asyncio.CancelledError:
            stop.stop()
            await asyncio.wait([preparing])
            raise
        directory, log = self.directory(launch.spec.name), self.log_path(launch.spec.name)
        return await _run(job, upstream, DetachedSpawner(directory, log, self._pool), progress)

    async def adopt(self, launch: Launch) -> RunningEngine | None:
        """As `Runner.adopt`."""
        directory, log = self.directory(launch.spec.name), self.log_path(launch.spec.name)
        status = await self._pool.run(lambda: read_status(directory), f"read the status of {launch.spec.name}")
        if status is None:
            return None
        try:
            engine = await adopt_engine(directory, log, self._pool)
        except (OSError, TimeoutError) as error:
            _log.warning("an engine cannot be adopted", name=launch.spec.name, error=str(error))
            await self._end_orphan(launch.spec.name, status)
            return None
        try:
            job, upstream = await self._pool.run(lambda: self._adoptable(launch), f"adopt {launch.spec.name}")
            return await _run(job, upstream, Adopted(engine), lambda _: None)
        except GarrisonError as error:
            _log.warning("an engine cannot be adopted", name=launch.spec.name, error=error.message)
            return None

    async def forget(self, name: str) -> None:
        """As `Runner.forget`."""
        path = self.directory(name)
        await self._pool.run(lambda: shutil.rmtree(path, ignore_errors=True), f"delete {path}")

    async def free_port(self, taken: Callable[[int], bool]) -> int:
        """As `Runner.free_port`."""
        first, last = self._ports
        for port in range(first, last + 1):
            if not taken(port) and _can_bind(port):
                return port
        raise ConflictError(
            f"no port from {first} to {last} is free", hint="Set GARRISON_INSTANCE_PORT_RANGE to a larger range."
        )

    def _prepare(self, launch: Launch, stop: StopToken) -> tuple[Job, Upstream]:
        spec = _launch_spec(launch)
        key = secrets.token_hex(32)
        environ = {**self._environ, KEY_VARIABLE: key}
        prepared = prepare(spec, self._settings, environ, view=_Notes(launch.spec.name), progress=Silent(), stop=stop)
        command = prepared.command
        if launch.devices:
            visible = {"CUDA_VISIBLE_DEVICES": ",".join(launch.devices)}
            command = replace(command, env={**command.env, **visible, **launch.spec.env})
        directory = self.directory(launch.spec.name)
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        write_atomic(directory / "key", key, mode=0o600)
        write_atomic(directory / "model", prepared.served_name, mode=0o600)
        endpoint = prepared.chosen.endpoint
        job = self._job(launch, endpoint, command, command.environment(environ))
        return job, Upstream(base_url(endpoint), key, prepared.served_name)

    def _adoptable(self, launch: Launch) -> tuple[Job, Upstream]:
        directory = self.directory(launch.spec.name)
        spec = _launch_spec(launch)
        engine = registry.engine(spec.engine)
        endpoint = engine.endpoint(spec.args, Endpoint(_HOST, launch.port), dict(spec.env))
        try:
            key: str | None = (directory / "key").read_text(encoding="ascii")
            model = (directory / "model").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            key, model = None, spec.model
        return self._job(launch, endpoint, EngineCommand(()), {}), Upstream(base_url(endpoint), key, model)

    def _job(self, launch: Launch, endpoint: Endpoint, command: EngineCommand, environment: Mapping[str, str]) -> Job:
        return Job(
            engine=registry.engine(launch.spec.engine),
            command=command,
            endpoint=endpoint,
            environment=environment,
            log_path=self.log_path(launch.spec.name),
            patience=Patience(self._settings.progress_window, self._settings.ready_timeout),
            stop_timeout=launch.stop_timeout,
            notes=self._settings.run_dir,
            records=self._settings.engine_records,
        )

    async def _end_orphan(self, name: str, status: ShimStatus) -> None:
        """End an engine whose shim is gone: the whole group of its main process."""
        if status.main is None or not lives(status.main):
            return
        _log.warning("ending an engine whose shim was killed", name=name, pid=status.main.pid)
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if lives(status.main):
                    os.killpg(status.main.pid, number)
            for _ in range(int(_KILL_SECONDS / _POLL_SECONDS)):
                if not lives(status.main):
                    return
                await asyncio.sleep(_POLL_SECONDS)


class _Engine:
    """`RunningEngine` as a run that has become ready."""

    def __init__(self, run: EngineRun, task: "asyncio.Task[bool]", upstream: Upstream, view: "_View") -> None:
        self.upstream = upstream
        self.pid = run.process.main.pid if run.process is not None and run.process.main is not None else None
        self.seconds = view.seconds
        self.phases: Mapping[str, float] = view.phases
        self._run = run
        self._task = task

    def memory_bytes(self) -> int:
        return self._run.process.memory_bytes() if self._run.process is not None else 0

    def pids(self) -> frozenset[int]:
        return frozenset(one.pid for one in self._run.process.alive()) if self._run.process is not None else frozenset()

    async def ended(self) -> GarrisonError | None:
        await asyncio.wait([self._task])
        if self._task.cancelled():
            return None
        error = self._task.exception()
        if error is not None and not isinstance(error, GarrisonError):
            raise error
        return error

    async def stop(self, reason: str) -> None:
        self._run.request_stop(reason)
        await asyncio.wait([self._task])

    async def leave(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


class _View:
    """What a start shows, as progress."""

    def __init__(self, tell: Callable[[Progress], None]) -> None:
        self.phases: dict[str, float] = {}
        self.seconds: float | None = None
        self._tell = tell

    def note(self, text: str) -> None:
        _log.info("start", note=text)

    def phase(self, name: str, *, seconds: float, memory_bytes: int) -> None:
        self.phases[name] = seconds
        self._tell(Progress(name, seconds, memory_bytes))

    def line(self, text: str) -> None: ...

    def ready(self, *, seconds: float, memory_bytes: int) -> None:
        self.seconds = seconds

    def running(self, why: str, *, seconds: float, memory_bytes: int) -> None:
        self.seconds = seconds

    def reached(self, endpoint: Endpoint) -> None: ...
    def stopping(self, reason: str) -> None: ...
    def stopped(self, *, seconds: float) -> None: ...
    def end(self) -> None: ...


class _Notes(_View):
    """The remarks of a preparation, in the log."""

    def __init__(self, name: str) -> None:
        super().__init__(lambda _: None)
        self._name = name

    def note(self, text: str) -> None:
        _log.info("preparing a start", name=self._name, note=text)


async def _run(job: Job, upstream: Upstream, spawner: Spawner, progress: Callable[[Progress], None]) -> RunningEngine:
    """Run a job until it is ready. Raises the error of its run."""
    view = _View(progress)
    run = EngineRun(job, view, spawner=spawner, log=lambda on_line: OutputLines(job.log_path, on_line), lasting=True)
    task = asyncio.create_task(run.run())
    try:
        ready = await run.started()
    except asyncio.CancelledError:
        run.request_stop("the start was cancelled")
        await asyncio.wait([task])
        raise
    if not ready:
        await task
        raise InvalidError(f"{job.engine.title} was stopped before it was ready")
    if isinstance(spawner, Adopted):
        view.seconds = None
    return _Engine(run, task, upstream, view)


def _launch_spec(launch: Launch) -> LaunchSpec:
    spec = launch.spec
    engine = registry.engine(spec.engine)
    options = {name: value for name, value in normal_keys(spec.options).items() if name not in _OURS}
    return LaunchSpec(
        model=_model(spec),
        engine=spec.engine,
        host=_HOST,
        port=launch.port,
        args=to_args(options, engine.catalogue()),
        env=spec.env,
        api_key_env=KEY_VARIABLE,
    )


def _model(spec: InstanceSpec) -> str:
    if spec.model is None:
        raise InvalidError(
            f"instance {spec.name} names no model",
            hint="Add `model` to its options: a name, a directory or a file.",
            details={"instance": spec.name},
        )
    return spec.model


def _can_bind(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True
