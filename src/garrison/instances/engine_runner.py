"""Engines below shims: prepared as `garrison serve` prepares them, started detached, and found again.

`instances/NAME/` in the data directory belongs to one instance, mode 0700: the shim's status and socket, what is in
`instance_files`, and the log.
"""

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from garrison.base.clock import SystemClock
from garrison.base.errors import EngineTimeoutError, GarrisonError, InvalidError, PortError
from garrison.base.logs import logger
from garrison.base.settings import Settings
from garrison.engines.argv import Endpoint
from garrison.engines.engine import Engine, EngineCommand
from garrison.instances.container_record import ContainerRecord, forget_container, read_container, record_container
from garrison.instances.engine_spec import ADDRESS, KEY_VARIABLE, Plan, plan_launch, require_servers_address
from garrison.instances.instance_files import instance_directory, make_directory, read_access, write_access
from garrison.instances.launch_secrets import with_secrets
from garrison.instances.ports import Ports
from garrison.instances.runner import Launch, LeftEngine, Progress, RunningEngine, Sleeper, Upstream
from garrison.instances.served_context import served_context
from garrison.instances.sleeper import open_sleeper
from garrison.launch.containers.program import ContainerProgram, Containers
from garrison.launch.engine_log import OutputLines
from garrison.launch.run.address import base_url
from garrison.launch.run.contained import Contained, ContainedSpawner, end_containers
from garrison.launch.run.detached import Adopted, DetachedSpawner, ShimStatus, adopt_engine, lives, read_status
from garrison.launch.run.engine_run import EngineRun, Job
from garrison.launch.run.orphans import end_orphans
from garrison.launch.run.patience import Patience
from garrison.launch.run.shims import Shims
from garrison.launch.run.spawn import EngineProcess, Spawner
from garrison.launch.serve import prepare
from garrison.models.files.progress import Silent
from garrison.models.files.stop_token import StopToken
from garrison.net.client import HttpDialer
from garrison.net.endpoint import Server
from garrison.net.secrets import Secrets
from garrison.net.thread_pool import ThreadPool
from garrison.net.transport import Dialer
from garrison.preflight.machine import Machine
from garrison.preflight.reclaim import stop_trees

__all__ = ["EngineRunner"]

_KILL_SECONDS = 5.0
_LOCATE_SECONDS = 5.0

_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class _Start:
    """What is run, where it answers, the container it runs in, and the one that it ran in before."""

    job: Job
    upstream: Upstream
    container: ContainerRecord | None = None
    before: ContainerRecord | None = None


class EngineRunner:
    """`Runner` for real engines.

    Args:
        ports: the first and the last port to give away.
        pool: threads for the preparation of starts, which may download for hours.
        containers: the seam to docker and podman, by the program with its options.
        dialer: asks engines that can sleep.
        shims: gives each engine that starts its parent process.
    """

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        ports: tuple[int, int],
        pool: ThreadPool,
        containers: Callable[[Sequence[str], Mapping[str, str]], Containers] = ContainerProgram,
        dialer: Dialer[Server] | None = None,
        shims: Shims | None = None,
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._secrets = Secrets(environ)
        self._ports = Ports(ports, pool, host=ADDRESS)
        self._pool = pool
        self._containers = containers
        self._dialer = dialer or HttpDialer()
        self._shims = shims or Shims()

    def reconfigure(self, settings: Settings) -> None:
        """Take other settings, from the next start on."""
        self._settings = settings

    def directory(self, name: str) -> Path:
        """Where the files of an instance are."""
        return instance_directory(self._settings, name)

    def log_path(self, name: str) -> Path:
        return self.directory(name) / "log"

    async def start(self, launch: Launch, progress: Callable[[Progress], None]) -> RunningEngine:
        """As `Runner.start`."""
        name, stop = launch.spec.name, StopToken()
        launch = await with_secrets(launch, self._secrets)
        directory, log = self.directory(name), self.log_path(name)
        preparing = asyncio.ensure_future(self._pool.run(lambda: self._prepare(launch, stop), f"prepare {name}"))
        try:
            start = await asyncio.shield(preparing)
        except asyncio.CancelledError:
            stop.stop()
            await asyncio.wait([preparing])
            raise
        spawner: Spawner = DetachedSpawner(directory, log, self._pool, self._shims)
        if start.before is not None and start.before != start.container:
            await self._end_container(name, start.before)
        if start.container is not None:
            containers = self._containers(start.container.program, self._environ)
            await end_containers(containers, start.container.labels)
            spawner = ContainedSpawner(spawner, containers, start.container.labels)
        return await _run(start, spawner, progress, self._questions(launch, start.upstream))

    async def find(self, launch: Launch) -> LeftEngine | None:
        """As `Runner.find`."""
        name = launch.spec.name
        directory, log = self.directory(name), self.log_path(name)
        status, container = await self._pool.run(
            lambda: (read_status(directory), read_container(directory)), f"read the status of {name}"
        )
        if status is None:
            await self._end_container(name, container)
            return None
        try:
            engine = await adopt_engine(directory, log, self._pool)
        except (OSError, TimeoutError) as error:
            _log.warning("an engine cannot be adopted", name=name, error=error.strerror or str(error))
            await self._end_orphan(name, status)
            await self._end_container(name, container)
            return None
        if container is not None:
            engine = Contained(engine, self._containers(container.program, self._environ), container.labels)
        try:
            start = await self._pool.run(lambda: self._adoptable(launch), f"adopt {name}")
        except GarrisonError as error:
            _log.warning("an engine that cannot be adopted is stopped", name=name, error=error.message)
            await engine.stop(launch.stop_timeout)
            engine.close()
            return None
        return _Left(start, Adopted(engine), self._questions(launch, start.upstream))

    async def end_left(self, name: str, stop_timeout: float) -> None:
        """Stop the engine that an earlier server started, and its container, whatever state they are in.

        Raises:
            EngineTimeoutError: it still runs.
        """
        directory, log = self.directory(name), self.log_path(name)
        status, container = await self._pool.run(
            lambda: (read_status(directory), read_container(directory)), f"read the status of {name}"
        )
        if status is not None:
            try:
                engine = await adopt_engine(directory, log, self._pool)
            except (OSError, TimeoutError):
                await self._end_orphan(name, status)
                await self._pool.run(lambda: _end_stuck(status, stop_timeout), f"stop {name} without its shim")
            else:
                await engine.stop(stop_timeout)
                engine.close()
        await self._end_container(name, container)
        if status is not None and status.main is not None and lives(status.main):
            raise EngineTimeoutError(
                f"instance {name} was told to stop, and still runs as pid {status.main.pid}",
                hint=f"garrison logs {name} may say why.",
                details={"instance": name, "pid": status.main.pid},
            )

    def _questions(self, launch: Launch, upstream: Upstream) -> "_Questions":
        return _Questions(
            sleeper=lambda: open_sleeper(launch.spec, upstream, self._dialer),
            context=lambda: served_context(launch.spec.engine, upstream, self._dialer),
        )

    async def forget(self, name: str) -> None:
        """As `Runner.forget`."""
        path = self.directory(name)
        await self._pool.run(lambda: shutil.rmtree(path, ignore_errors=True), f"delete {path}")

    async def free_port(self, taken: Container[int], kept: int | None = None) -> int:
        """As `Runner.free_port`."""
        return await self._ports.give(taken, kept)

    def _prepare(self, launch: Launch, stop: StopToken) -> _Start:
        name, plan = launch.spec.name, plan_launch(launch, self._settings)
        for note in plan.notes:
            _log.info("preparing a start", name=name, note=note)
        key = secrets.token_hex(32) if plan.spec.api_key_env is not None else None
        environ = {**self._environ, KEY_VARIABLE: key} if key is not None else self._environ
        before = read_container(self.directory(name))
        directory = make_directory(self._settings, launch.spec)  # first, since a container is to see the preset
        try:
            prepared = prepare(
                plan.spec, self._settings, environ, view=_Notes(name), progress=Silent(), stop=stop,
                port_was_free=launch.spec.port is None,
            )  # fmt: skip
        except PortError as error:
            raise type(error)(
                f"instance {name} cannot have its port: {error.message}",
                hint="Stop what holds it, or give the instance another port.",
                details={"instance": name, **error.details},
            ) from None
        require_servers_address(name, prepared.chosen.file_args)
        command = prepared.command
        model = "" if launch.spec.router else prepared.served_name or name
        container = None
        if plan.spec.container is not None:
            program = (command.argv[0], *plan.spec.container.program[1:])
            container = ContainerRecord(program, plan.spec.container.labels)
        write_access(directory, key, model)
        if container is None:
            forget_container(directory)
        else:
            record_container(directory, container)
        endpoint = prepared.chosen.endpoint
        job = self._job(launch, plan.engine, endpoint, command, command.environment(environ))
        return _Start(job, Upstream(base_url(endpoint), key, model), container, before)

    def _adoptable(self, launch: Launch) -> _Start:
        directory = self.directory(launch.spec.name)
        plan = plan_launch(launch, self._settings)
        endpoint = plan.engine.endpoint(_given(plan), Endpoint(ADDRESS, launch.port), dict(plan.spec.env))
        key, model = read_access(directory, launch.spec)
        job = self._job(launch, plan.engine, endpoint, EngineCommand(()), {})
        return _Start(job, Upstream(base_url(endpoint), key, model))

    def _job(
        self,
        launch: Launch,
        engine: Engine,
        endpoint: Endpoint,
        command: EngineCommand,
        environment: Mapping[str, str],
    ) -> Job:
        return Job(
            engine=engine,
            command=command,
            endpoint=endpoint,
            environment=environment,
            log_path=self.log_path(launch.spec.name),
            patience=Patience(self._settings.progress_window, self._settings.ready_timeout),
            stop_timeout=launch.stop_timeout,
            notes=self._settings.run_dir,
            records=self._settings.engine_records,
        )

    async def _end_container(self, name: str, container: ContainerRecord | None) -> None:
        """Remove what is left of a container whose engine is not run any more."""
        if container is None:
            return
        try:
            ended = await end_containers(
                self._containers(container.program, self._environ), container.labels, seconds=_KILL_SECONDS
            )
        except GarrisonError as error:
            _log.warning("a container cannot be removed", name=name, error=error.message)
            return
        if ended:
            _log.warning("a container that was left was removed", name=name)

    async def _end_orphan(self, name: str, status: ShimStatus) -> None:
        """End what is left of an engine whose shim is gone."""
        if status.shim is None or lives(status.shim):
            return
        if ended := await end_orphans(status.shim, _KILL_SECONDS):
            _log.warning("an engine whose shim was killed was ended", name=name, processes=ended)


def _end_stuck(status: ShimStatus, stop_timeout: float) -> None:
    """Stop an engine, and its shim, which lives and does not answer."""
    roots = [one for one in (status.main, status.shim) if one is not None and lives(one)]
    with contextlib.suppress(PermissionError):
        stop_trees(
            roots, processes=Machine(lambda _: None).processes, is_free=lambda: True, timeout=stop_timeout,
            clock=SystemClock(), say=_log.info,
        )  # fmt: skip


def _given(plan: Plan) -> tuple[str, ...]:
    """The arguments of an engine that runs, with those of its config file if that is still there."""
    try:
        return (*plan.engine.file_args(plan.spec.args), *plan.spec.args)
    except InvalidError:
        return plan.spec.args


@dataclass(frozen=True, slots=True)
class _Questions:
    """What a ready engine is asked."""

    sleeper: Callable[[], Awaitable[Sleeper | None]]
    context: Callable[[], Awaitable[int | None]]


class _Engine:
    """`RunningEngine` as a run that has become ready."""

    def __init__(
        self,
        run: EngineRun,
        task: "asyncio.Task[bool]",
        upstream: Upstream,
        view: "_View",
        questions: _Questions,
    ) -> None:
        self._questions = questions
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

    async def sleeper(self) -> Sleeper | None:
        return await self._questions.sleeper()

    async def context_length(self) -> int | None:
        return await self._questions.context()

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


@dataclass(frozen=True, slots=True)
class _Left:
    """`LeftEngine` below a shim."""

    start: _Start
    engine: Adopted
    questions: _Questions

    async def ready(self, progress: Callable[[Progress], None]) -> RunningEngine:
        return await _run(self.start, self.engine, progress, self.questions)


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

    def starting(self, *, seconds: float, memory_bytes: int) -> None: ...
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


async def _run(
    start: _Start, spawner: Spawner, progress: Callable[[Progress], None], questions: _Questions
) -> RunningEngine:
    """Run a job until it is ready. Raises the error of its run."""
    view, job = _View(progress), start.job
    run = EngineRun(job, view, spawner=spawner, log=lambda on_line: OutputLines(job.log_path, on_line), lasting=True)
    task = asyncio.create_task(run.run())
    try:
        ready = await run.started()
        if ready:
            await _located(run.process)
    except asyncio.CancelledError:
        run.request_stop("the start was cancelled")
        await asyncio.wait([task])
        raise
    if not ready:
        await task
        raise InvalidError(f"{job.engine.title} was stopped before it was ready")
    if isinstance(spawner, Adopted):
        view.seconds = None
    return _Engine(run, task, start.upstream, view, questions)


async def _located(process: EngineProcess | None) -> None:
    """Wait, for a while, until the main process in a container is known."""
    if isinstance(process, Contained):
        await process.located(_LOCATE_SECONDS)
