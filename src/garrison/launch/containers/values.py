"""A container that an engine runs in, as a value, and the user's own arguments for it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from garrison.engines.parse.container import run_arguments

__all__ = [
    "INSTANCE_LABEL",
    "SERVER_LABEL",
    "ContainerSpec",
    "OwnArguments",
    "container_name",
    "is_podman",
    "own_arguments",
]

SERVER_LABEL, INSTANCE_LABEL = "garrison.server", "garrison.instance"
_HASH_CHARACTERS = 12
_DROPPED = frozenset({"--rm", "--detach", "--interactive", "--tty", "--replace", "--name", "--cidfile"})
"""Options that Garrison gives itself, or that would take the engine out of its hands."""
_SINGLE = frozenset("ditP")


@dataclass(frozen=True, slots=True)
class OwnArguments:
    """The user's arguments of `run`, sorted.

    Attributes:
        args: those that are passed on, in their order.
        env: variables whose values they contain.
        entrypoint: the program instead of that of the image.
        gpus: they give GPUs to the container.
        notes: what was left out, and why.
    """

    args: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    entrypoint: str | None = None
    gpus: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container.

    Attributes:
        program: docker or podman, with its own options: `("podman", "--runtime", "runc")`.
        name: by which it is found, together with its labels.
        server, instance: values of its labels: the server whose it is, and the instance that runs in it.
        inside: the words before the engine's arguments, where the image has no entry point that starts it.
        devices: UUIDs of the GPUs that it may use; empty passes none.
    """

    program: tuple[str, ...]
    image: str
    name: str
    server: str
    instance: str
    own: OwnArguments = OwnArguments()
    inside: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """The words that start the engine in it; empty where the image's entry point does."""
        return (*((self.own.entrypoint,) if self.own.entrypoint else ()), *self.inside)

    @property
    def labels(self) -> dict[str, str]:
        return {SERVER_LABEL: self.server, INSTANCE_LABEL: self.instance}


def container_name(data_dir: Path, instance: str) -> tuple[str, str]:
    """The name of an instance's container, and the label of its server. Resolves links in the path of `data_dir`.

    Two servers of one machine have two data directories, and so two names for instances of one name.
    """
    server = hashlib.sha256(str(data_dir.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:_HASH_CHARACTERS]
    return f"garrison-{server}-{instance}", server


def own_arguments(words: Sequence[str]) -> OwnArguments:
    """Sort the user's arguments of `run`. A leading `run`, as llamactl's settings have it, is skipped.

    Raises:
        InvalidError: they cannot be read.
    """
    rest = list(words)
    for skipped in ("container", "run"):
        if rest[:1] == [skipped]:
            rest = rest[1:]
    args: list[str] = []
    env: dict[str, str] = {}
    entrypoint: str | None = None
    notes: list[str] = []
    for flag, value in run_arguments(rest):
        if flag == "--env" and value is not None and "=" in value:
            name, _, text = value.partition("=")
            env[name] = text
        elif flag == "--entrypoint":
            entrypoint = value or None
        elif note := _refused(flag, value):
            notes.append(note)
        elif not _is_ours(flag, value):
            args += [flag] if value is None else [flag, value] if len(flag) == 2 else [f"{flag}={value}"]
    gpus = any(word.startswith("--gpus") or "nvidia.com/gpu" in word for word in args)
    return OwnArguments(tuple(args), env, entrypoint, gpus, tuple(notes))


def _is_ours(flag: str, value: str | None) -> bool:
    if flag in ("--network", "--net"):
        return value == "host"
    return flag in _DROPPED or (not flag.startswith("--") and set(flag[1:]) <= _SINGLE)


def _refused(flag: str, value: str | None) -> str | None:
    """Why an argument is left out; None if it is not, or if nobody would miss it."""
    if flag in ("--publish", "--publish-all"):
        return f"the container argument {flag} {value or ''} was left out: the engine listens on loopback"
    if flag in ("--network", "--net") and value != "host":
        return f"the container argument {flag} {value} was left out: the engine must be reached over loopback"
    if flag == "--restart":
        return f"the container argument --restart {value} was left out: the server restarts its instances"
    return None


def is_podman(program: Sequence[str]) -> bool:
    """Whether it names GPUs as podman does."""
    return PurePosixPath(program[0]).name == "podman"
