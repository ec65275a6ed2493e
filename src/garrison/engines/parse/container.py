"""Parse `docker run … IMAGE ARGS`, and podman's: the runtime's options, the image, and the words that follow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from garrison.base.errors import InvalidError

__all__ = ["Container", "is_container", "notes", "understand"]

_RUNTIMES = {"docker", "podman", "nerdctl"}
_BARE = {
    "--detach", "--init", "--interactive", "--privileged", "--publish-all", "--read-only", "--rm", "--tty",
    "--no-healthcheck", "--oom-kill-disable", "--quiet", "--replace",
}  # fmt: skip
_BARE_LETTERS = frozenset("ditPq")
_WITH_VALUE = {
    "--add-host", "--annotation", "--cap-add", "--cap-drop", "--cgroupns", "--cpus", "--cpuset-cpus", "--cpuset-mems",
    "--device", "--dns", "--entrypoint", "--env", "--env-file", "--gpus", "--group-add", "--health-cmd", "--hostname",
    "--ipc", "--label", "--log-driver", "--log-opt", "--memory", "--memory-swap", "--mount", "--name", "--net",
    "--network", "--pid", "--pids-limit", "--platform", "--publish", "--pull", "--restart", "--runtime",
    "--security-opt", "--shm-size", "--stop-timeout", "--tmpfs", "--ulimit", "--user", "--userns", "--uts",
    "--volume", "--workdir", "--cgroup-manager", "--cpu-shares",
}  # fmt: skip
_LETTERS = {"-e": "--env", "-v": "--volume", "-p": "--publish", "-m": "--memory", "-u": "--user", "-w": "--workdir",
            "-h": "--hostname", "-l": "--label", "-c": "--cpu-shares"}  # fmt: skip
_IMAGES = {"vllm-openai": "vllm", "vllm": "vllm", "llama.cpp": "llama_cpp", "mlx": "mlx_lm"}


@dataclass(frozen=True, slots=True)
class Container:
    """The container of a command line. `options` are the runtime's, as flag and value."""

    runtime: str
    image: str
    engine: str | None
    options: tuple[tuple[str, str | None], ...] = field(repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)

    def values(self, flag: str) -> tuple[str, ...]:
        return tuple(value for name, value in self.options if name == flag and value is not None)


def is_container(argv: Sequence[str]) -> bool:
    return PurePosixPath(argv[0]).name in _RUNTIMES


def understand(argv: Sequence[str]) -> tuple[Container, list[str]]:
    """The container, and the words that run in it.

    Raises:
        InvalidError: not a `run` command, an unknown option, or no image.
    """
    runtime = PurePosixPath(argv[0]).name
    position = 2 if list(argv[1:2]) == ["container"] else 1
    if list(argv[position : position + 1]) != ["run"]:
        raise InvalidError(f"only `{runtime} run` is supported", hint=f"Paste the whole `{runtime} run` command.")
    options, position = _options(runtime, argv, position + 1)
    if position >= len(argv):
        raise InvalidError(f"the {runtime} command names no image", hint="Paste the whole command.")
    image = argv[position]
    inside = list(argv[position + 1 :])
    for value in (value for name, value in options if name == "--entrypoint"):
        inside = [*([value] if value else []), *inside]
    env = dict(value.split("=", 1) for name, value in options if name == "--env" and value and "=" in value)
    return Container(runtime, image, _engine(image), tuple(options), env), inside


def notes(container: Container) -> tuple[str, ...]:
    """What the container did and starting the engine directly will not do."""
    mounts = [volume.split(":") for volume in container.values("--volume") if ":" in volume]
    return (
        *(f"paths under {mount[1]} are {mount[0]} on the host; they were not translated" for mount in mounts),
        *(f"the published port {port} was not translated" for port in container.values("--publish")),
        *(f"the variables in {name} were not read" for name in container.values("--env-file")),
    )


def _options(runtime: str, argv: Sequence[str], position: int) -> tuple[list[tuple[str, str | None]], int]:
    found: list[tuple[str, str | None]] = []
    while position < len(argv) and argv[position].startswith("-"):
        word = argv[position]
        position += 1
        name, equals, value = word.partition("=")
        short = _LETTERS.get(word[:2]) if not word.startswith("--") else None
        if name in _BARE or (not word.startswith("--") and set(word[1:]) <= _BARE_LETTERS):
            found.append((name, value if equals else None))
        elif name in _WITH_VALUE and equals:
            found.append((name, value))
        elif short is not None and len(word) > 2:
            found.append((short, word[2:].removeprefix("=")))
        elif name in _WITH_VALUE or short is not None:
            if position >= len(argv):
                raise InvalidError(f"{word} needs a value", hint="Paste the whole command.")
            found.append((short or name, argv[position]))
            position += 1
        else:
            raise InvalidError(
                f"unknown {runtime} option {word}: its value cannot be told from the image",
                hint="Leave the option out, or paste the command that runs inside the container.",
            )
    return found, position


def _engine(image: str) -> str | None:
    """By the repository's name: `vllm/vllm-openai:v0.32.0`, `registry.example/org/llama.cpp:server`."""
    repository = image.rsplit("/", 1)[-1].split("@")[0].split(":")[0]
    return _IMAGES.get(repository)
