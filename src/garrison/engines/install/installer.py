"""`garrison engine install`: each version of an engine in an environment of its own.

An environment is built at its final path, since its scripts contain the path of their interpreter, and counts only once
it has the marker, which is written last. A killed installation leaves no marker: nothing uses it, and the next
installation deletes it and starts again, quickly, from the cache of uv or pip. An installation that replaces a complete
environment sets that aside first, and restores it if it fails.
"""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from garrison.base.children import SAFE_PYTHON, find_program
from garrison.base.clock import Clock, SystemClock
from garrison.base.errors import DiskFullError, EngineMissingError, InvalidError
from garrison.base.files import write_atomic
from garrison.base.home import expanded
from garrison.base.locks import FileLock, file_lock
from garrison.base.values import size_text
from garrison.engines.environments import (
    Environment,
    environment_of,
    environments,
    forget_choice,
    mark_complete,
    root,
    use,
)
from garrison.engines.install.failure import explain_failure
from garrison.engines.install.package_sources import PackageSources, child_environment, sources_from
from garrison.engines.install.plan import (
    Tools,
    alias_metadata,
    build_variables,
    create_command,
    install_command,
    remaining_requirements,
)
from garrison.engines.install.recipes import Recipe, recipe
from garrison.engines.install.relocate import relocate
from garrison.engines.install.replacement import clear, recover, replacing
from garrison.engines.install.runner import Runner, SystemRunner
from garrison.engines.runnable import problem_of
from garrison.engines.version import distribution_version

__all__ = ["InstallRequest", "Progress", "find_tools", "has_nvidia", "install", "remove"]

_LOG_TAIL = 20
_LOCK_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Progress:
    """A sign of progress. `line` is the tool's last line, empty if only time has passed; `elapsed` is in seconds."""

    step: str
    line: str
    elapsed: float


@dataclass(frozen=True, slots=True)
class InstallRequest:
    """What to install. `version` None means the tested one; `again` reinstalls."""

    engine: str
    version: str | None = None
    device: str = "auto"
    find_links: tuple[str, ...] = ()
    extra_indexes: tuple[str, ...] = field(default=(), repr=False)
    offline: bool = False
    again: bool = False
    lock_timeout: float = _LOCK_SECONDS


def install(
    request: InstallRequest,
    *,
    data_dir: Path,
    environ: Mapping[str, str],
    progress: Callable[[Progress], None] = lambda _: None,
    runner: Runner | None = None,
    tools: Tools | None = None,
    clock: Clock | None = None,
    free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
) -> Environment:
    """Install an engine unless it is there and can run. The first environment of an engine is also put to use.

    Raises:
        InvalidError: unknown engine or device, malformed version, or the environment to replace is running.
        DiskFullError: not enough free space; raised before anything is fetched.
        LockedError: another installation of the same environment takes too long.
        FetchError: a package was not found or could not be fetched. Details: `log`, `log_tail`.
        EngineMissingError: a build failed, or the program does not run. Details: `log`, `log_tail`.
    """
    clock = clock or SystemClock()
    chosen = recipe(request.engine, request.device, has_nvidia=has_nvidia(environ), is_macos=sys.platform == "darwin")
    version = _version(request.version or chosen.tested_version)
    home = _made_home(data_dir, request.engine)
    path = home / chosen.environment_name(version)
    started = clock.monotonic()

    def tell(step: str, line: str = "") -> None:
        progress(Progress(step, line, clock.monotonic() - started))

    with file_lock(
        home / f".{path.name}.lock",
        timeout=request.lock_timeout,
        purpose=f"is installing {request.engine} {path.name}",
        clock=clock,
        on_wait=lambda sentence: tell("wait", sentence),
    ) as lock:
        recover(path)
        there = [item for item in environments(data_dir, request.engine) if item.path == path]
        if there and not request.again:
            if (problem := _repaired(there[0])) is None:
                return there[0]
            tell("notice", f"{there[0].executable} {problem}; it is installed again")
        _refuse_running(request.engine, path)
        _check_room(chosen, home, free_bytes)
        if chosen.notice is not None:
            tell("notice", chosen.notice)
        build = _Build(chosen, version, path, _sources(request, environ), environ, runner or SystemRunner(), lock, tell)
        with replacing(path):
            build.carry_out(tools or find_tools(environ))
            build.mark(clock)
    if len(environments(data_dir, request.engine)) == 1:
        use(data_dir, request.engine, path.name)
    tell("done", str(path / chosen.executable))
    return environment_of(data_dir, request.engine, path.name)


def _repaired(there: Environment) -> str | None:
    """Repair an environment that was moved; what is still wrong with it, or None."""
    problem = problem_of(there.executable)
    return problem_of(there.executable) if problem is not None and relocate(there.path) else problem


def _made_home(data_dir: Path, engine: str) -> Path:
    home = root(data_dir, engine)
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "Set GARRISON_DATA_DIR to a directory that this user can write to."
        raise InvalidError(f"{home} cannot be created: {error.strerror}", hint=hint) from None
    return home


def remove(data_dir: Path, engine: str, name: str, *, lock_timeout: float = 0) -> Environment:
    """Delete an environment.

    Raises:
        InvalidError: there is none of that name, or a process is running from it. Details: `pids`.
        LockedError: it is being installed.
    """
    found = environment_of(data_dir, engine, name)
    lock = root(data_dir, engine) / f".{found.name}.lock"
    with file_lock(lock, timeout=lock_timeout, purpose=f"is installing {engine} {found.name}"):
        _refuse_running(engine, found.path)
        clear(found.path)
        forget_choice(data_dir, engine, found.name)
    return found


def find_tools(environ: Mapping[str, str]) -> Tools:
    """This interpreter, and uv from beside it, else from PATH."""
    python = Path(sys.executable)
    beside = python.with_name("uv")
    uv = str(beside) if os.access(beside, os.X_OK) else find_program("uv", environ)
    return Tools(python, Path(uv) if uv else None)


def has_nvidia(environ: Mapping[str, str]) -> bool:
    """Whether there is an NVIDIA driver."""
    return Path("/proc/driver/nvidia").is_dir() or find_program("nvidia-smi", environ) is not None


@dataclass(frozen=True, slots=True)
class _Build:
    recipe: Recipe
    version: str
    path: Path
    sources: PackageSources
    environ: Mapping[str, str]
    runner: Runner
    lock: FileLock
    tell: Callable[..., None]

    @property
    def log(self) -> Path:
        return self.path.parent / f"{self.path.name}.log"

    def carry_out(self, tools: Tools) -> None:
        self.log.write_bytes(b"")
        self.run("creating the environment", create_command(tools, self.path))
        self.install_packages(tools)
        if self.recipe.stands_for is not None:
            self.write_alias(self.recipe.stands_for)
        if self.recipe.finish is not None:
            self.run("finishing", (str(self.path / "bin" / "python"), SAFE_PYTHON, "-c", self.recipe.finish))
        for name, target in self.recipe.links.items():
            (self.path / "bin" / name).symlink_to(os.path.relpath(self.site_packages() / target, self.path / "bin"))
        self.run("checking that it runs", (str(self.path / self.recipe.executable), *self.recipe.check), show=False)

    def mark(self, clock: Clock) -> None:
        found = distribution_version(self.path / self.recipe.executable, (self.recipe.distribution,)) or self.version
        mark_complete(
            self.path,
            engine=self.recipe.engine,
            version=self.version if _same(self.version, found) else found,
            device=self.recipe.device,
            executable=self.recipe.executable,
            installed_at=clock.now().isoformat(timespec="seconds"),
        )

    def install_packages(self, tools: Tools) -> None:
        first = self.recipe.requirement(self.version)
        if not self.recipe.left_out:
            both = (first, *self.recipe.companions)
            self.run("installing packages", install_command(tools, self.path, self.recipe, self.sources, both))
            return
        alone = install_command(tools, self.path, self.recipe, self.sources, (first,), alone=True)
        self.run(f"installing {first}", alone)
        metadata = next(self.site_packages().glob(f"{self.recipe.distribution.replace('-', '_')}-*.dist-info/METADATA"))
        rest = remaining_requirements(metadata.read_text(encoding="utf-8"), self.recipe.left_out)
        listed = self.path / "requirements.txt"
        write_atomic(listed, "\n".join((*rest, *self.recipe.companions)) + "\n")
        requirements = ("--requirement", str(listed))
        self.run(
            "installing its dependencies", install_command(tools, self.path, self.recipe, self.sources, requirements)
        )

    def write_alias(self, name: str) -> None:
        version = f"{self.version}+{self.recipe.device}"
        for relative, content in alias_metadata(name, version, self.recipe.distribution).items():
            file = self.site_packages() / relative
            file.parent.mkdir(exist_ok=True)
            write_atomic(file, content)

    def site_packages(self) -> Path:
        return next(self.path.glob("lib/python3*/site-packages"))

    def run(self, step: str, argv: tuple[str, ...], *, show: bool = True) -> None:
        self.tell(step)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        build = build_variables(self.recipe, self.environ, os.cpu_count() or 1, memory)
        environ = child_environment(self.environ, self.sources) | build
        try:
            status = self.runner.run(
                argv,
                env=environ,
                log=self.log,
                on_line=lambda line: self.tell(step, line if show else ""),
                hold=self.lock.descriptor,
            )
        except OSError as error:
            raise EngineMissingError(
                f"{argv[0]} cannot be run: {error.strerror}", hint=f"The whole log is {self.log}"
            ) from None
        if status != 0:
            tail = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL:]
            raise explain_failure(self.recipe, step, status, self.log, tail, self.sources)


def _sources(request: InstallRequest, environ: Mapping[str, str]) -> PackageSources:
    return sources_from(
        environ,
        find_links=[_absolute(link) for link in request.find_links],
        extra_indexes=request.extra_indexes,
        offline=request.offline,
    )


def _version(text: str) -> str:
    bare = text.split("+")[0].removeprefix("v")
    if not bare or not bare[0].isdigit() or not all(part.isalnum() for part in bare.split(".")):
        raise InvalidError(f"invalid version {text!r}", hint="Give one such as 0.32.0.")
    return bare


def _same(wanted: str, found: str) -> bool:
    """11434 and 11434.0.0 are the same version."""
    return found.split("+")[0].removesuffix(".0.0") == wanted.removesuffix(".0.0")


def _absolute(link: str) -> str:
    return link if "://" in link else str(expanded(link).absolute())


def _check_room(chosen: Recipe, home: Path, free_bytes: Callable[[Path], int]) -> None:
    free = free_bytes(home)
    if free < chosen.room:
        raise DiskFullError(
            f"{chosen.engine} needs {size_text(chosen.room)}, and {home} has {size_text(free)} free",
            hint="Free some space, or choose another data directory with GARRISON_DATA_DIR.",
            details={"needed_bytes": chosen.room, "free_bytes": free, "path": str(home)},
        )


def _refuse_running(engine: str, path: Path) -> None:
    if pids := _running_from(path):
        raise InvalidError(
            f"{engine} {path.name} is running (pid {', '.join(map(str, pids))})",
            hint="Stop it first.",
            details={"pids": pids},
        )


def _running_from(path: Path) -> list[int]:
    """Processes whose command line names a file of the environment. Works only on Linux, through /proc."""
    needle = os.fsencode(path) + b"/"
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(needle) for word in words[:2]):
            found.append(int(entry.name))
    return sorted(found)
