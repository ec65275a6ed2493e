"""The seam to docker and podman: containers found, stopped and removed. `ContainerProgram` runs the program."""

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from garrison.base.children import DIRECTORY, child_environment, find_program
from garrison.base.errors import EngineMissingError
from garrison.base.redaction import redacted

__all__ = ["ContainerProgram", "ContainerStatus", "Containers", "missing_program", "parse_inspected"]

_SECONDS = 20.0
_SLACK_SECONDS = 10.0
_SHOWN_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """One container.

    Attributes:
        running: its main process runs.
        pid: of that process, as this machine numbers it; None while it does not run, or where that is not known.
    """

    id: str
    running: bool
    pid: int | None = None


class Containers(Protocol):
    async def find(self, labels: Mapping[str, str]) -> tuple[ContainerStatus, ...]:
        """Return every container with these labels, those that do not run included.

        Raises:
            EngineMissingError: docker or podman is not there, fails, or does not answer in time.
        """

    async def stop(self, container: str, seconds: float) -> None:
        """Stop a container: SIGTERM, then SIGKILL after `seconds`. One that is gone is stopped already.

        Raises:
            EngineMissingError: as `find`.
        """

    async def remove(self, container: str) -> None:
        """Kill and remove a container. One that is gone is removed already.

        Raises:
            EngineMissingError: as `find`.
        """


class ContainerProgram:
    """`Containers` by docker or podman.

    Args:
        program: its name or path, and its own options.
        environ: where it is looked up, and what it is started with.
    """

    def __init__(self, program: Sequence[str], environ: Mapping[str, str]) -> None:
        self._program = tuple(program)
        self._environ = environ

    async def find(self, labels: Mapping[str, str]) -> tuple[ContainerStatus, ...]:
        filters = [word for name, value in labels.items() for word in ("--filter", f"label={name}={value}")]
        listed = await self._run(_SECONDS, "ps", "--all", "--no-trunc", *filters, "--format", "{{.ID}}")
        found: list[ContainerStatus] = []
        for container in listed.split():
            with contextlib.suppress(_GoneError):  # between the two commands
                found.append(parse_inspected(await self._run(_SECONDS, "inspect", "--type", "container", container)))
        return tuple(found)

    async def stop(self, container: str, seconds: float) -> None:
        with contextlib.suppress(_GoneError):
            await self._run(seconds + _SLACK_SECONDS, "stop", "--time", str(max(1, round(seconds))), container)

    async def remove(self, container: str) -> None:
        with contextlib.suppress(_GoneError):
            await self._run(_SECONDS, "rm", "--force", container)

    async def _run(self, seconds: float, *arguments: str) -> str:
        name = self._program[0]
        executable = find_program(name, self._environ)
        if executable is None:
            raise missing_program(name)
        process = await asyncio.create_subprocess_exec(
            *(executable, *self._program[1:], *arguments),
            env=child_environment(self._environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=DIRECTORY,
        )
        try:
            async with asyncio.timeout(seconds):
                out, said = await process.communicate()
        except TimeoutError:
            raise _unusable(name, arguments[0], f"no answer within {seconds:g} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode == 0:
            return out.decode("utf-8", "replace")
        text = said.decode("utf-8", "replace").strip()
        if "no such" in text.lower():
            raise _GoneError
        raise _unusable(name, arguments[0], text or f"it ended with {process.returncode}")


def parse_inspected(text: str) -> ContainerStatus:
    """Read what `inspect` of one container prints. docker and podman agree in these fields.

    Raises:
        EngineMissingError: it is something else.
    """
    try:
        found: Any = json.loads(text)[0]
        state = found["State"]
        pid = state.get("Pid")
        running = bool(state["Running"])
        return ContainerStatus(str(found["Id"]), running, pid if running and isinstance(pid, int) and pid > 0 else None)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise EngineMissingError(
            "what the container program says of a container cannot be read", hint="Use docker or podman."
        ) from None


def missing_program(name: str) -> EngineMissingError:
    """The error for docker or podman that is not there."""
    return EngineMissingError(
        f"{name} is not installed: it is not on PATH",
        hint="Install it, or set GARRISON_CONTAINER_PROGRAM to docker or podman.",
        details={"program": name},
    )


class _GoneError(Exception):
    """The container does not exist."""


def _unusable(name: str, verb: str, why: str) -> EngineMissingError:
    return EngineMissingError(
        f"`{name} {verb}` failed: {redacted(why)[:_SHOWN_CHARACTERS]}",
        hint=f"Check that {name} works for this user, or set GARRISON_CONTAINER_PROGRAM.",
        details={"program": name},
    )
