"""From a container and the engine's command in it to the command of docker or podman. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from garrison.base.errors import InvalidError
from garrison.base.redaction import is_secret_name
from garrison.engines.engine import EngineCommand
from garrison.launch.containers.values import ContainerSpec, is_podman

__all__ = ["Mount", "container_command", "visible_devices"]

_OF_THE_PROGRAM = frozenset(
    (
        "GODEBUG",
        "GOGC",
        "GOMAXPROCS",
        "HOME",
        "LOGNAME",
        "NOTIFY_SOCKET",
        "PATH",
        "REGISTRY_AUTH_FILE",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "STORAGE_DRIVER",
        "STORAGE_OPTS",
        "TMPDIR",
        "USER",
    )
)
_PREFIXES_OF_THE_PROGRAM = ("CONTAINERS_", "CONTAINER_", "DOCKER_", "LD_", "PODMAN_", "XDG_")
"""Variables that docker or podman itself obeys: in its environment they would change what it does."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or directory of this machine that the container sees, read-only, under the same path."""

    path: Path


def container_command(
    executable: Path, spec: ContainerSpec, inner: EngineCommand, mounts: Sequence[Mount]
) -> EngineCommand:
    """The command that runs `inner` in a container.

    The values of variables are in the environment of the program, never in its argv, which every user of the machine
    can read. The exception are variables that docker or podman itself would obey.

    Args:
        executable: the absolute path of docker or podman.

    Raises:
        InvalidError: a path cannot be mounted.
    """
    values = {**spec.own.env, **inner.env}
    told = {name: value for name, value in values.items() if _obeyed(name)}
    names = sorted({*values, *inner.env_from} - set(told))
    argv = [str(executable), *spec.program[1:], "run", "--rm", "--name", spec.name]
    for label, value in spec.labels.items():
        argv += ["--label", f"{label}={value}"]
    argv += ["--network", "host"]
    if not any(word.startswith("--log-driver") for word in spec.own.args):
        argv += ["--log-driver", "none"]  # the shim keeps the output; a driver would keep it again, without a bound
    for name in names:
        argv += ["-e", name]
    for name, value in sorted(told.items()):
        argv += ["-e", f"{name}={value}"]
    for mount in mounts:
        argv += ["-v", _volume(mount.path)]
    argv += _gpus(spec)
    argv += spec.own.args
    words = inner.argv
    if spec.own.entrypoint:
        argv += ["--entrypoint", spec.own.entrypoint]
        words = words[1:]
    kept = {name: value for name, value in values.items() if name not in told}
    return EngineCommand((*argv, spec.image, *words), kept, inner.unset, inner.env_from)


def visible_devices(devices: Sequence[str]) -> Mapping[str, str]:
    """The variable that has CUDA use these GPUs and no others; nothing for none."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else {}


def _obeyed(name: str) -> bool:
    known = name in _OF_THE_PROGRAM or name.startswith(_PREFIXES_OF_THE_PROGRAM)
    return known and not is_secret_name(name)


def _volume(path: Path) -> str:
    if ":" in str(path):
        raise InvalidError(
            f"{path} cannot be given to a container: its path contains a colon",
            hint="Move or link the model to a path without one.",
            details={"path": str(path)},
        )
    return f"{path}:{path}:ro"


def _gpus(spec: ContainerSpec) -> list[str]:
    """The user's own choice stays; then `CUDA_VISIBLE_DEVICES` alone says which of them the engine uses."""
    if not spec.devices or spec.own.gpus:
        return []
    if is_podman(spec.program):
        return [word for device in spec.devices for word in ("--device", f"nvidia.com/gpu={device}")]
    listed = ",".join(spec.devices)
    # docker reads the value as CSV, so a list needs quotes of its own.
    return ["--gpus", f"device={listed}" if len(spec.devices) == 1 else f'"device={listed}"']
