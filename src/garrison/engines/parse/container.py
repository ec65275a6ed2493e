"""Parse `docker run … IMAGE ARGS`, and podman's: the runtime's options, the image, and the words that follow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from garrison.base.errors import InvalidError

__all__ = ["Container", "RunCommand", "is_container", "notes", "run_arguments", "split_run", "understand"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_RUNTIMES = {"docker", "nerdctl", "nvidia-docker", "podman", "podman-remote"}
_BARE = _names(
    "--detach --disable-content-trust --env-host --help --http-proxy --init --interactive --no-healthcheck "
    "--no-hostname --no-hosts --oom-kill-disable --passwd --privileged --publish-all --quiet --read-only "
    "--read-only-tmpfs --replace --rm --rmi --rootfs --sig-proxy --tls-verify --tty --unsetenv-all --use-api-socket"
)
_BARE_LETTERS = frozenset("ditPq")
_WITH_VALUE = _names(
    "--add-host --annotation --arch --attach --authfile --blkio-weight --blkio-weight-device --cap-add --cap-drop "
    "--cert-dir --cgroup-conf --cgroup-manager --cgroup-parent --cgroupns --cgroups --chrootdirs --cidfile "
    "--conmon-pidfile --cpu-count --cpu-percent --cpu-period --cpu-quota --cpu-rt-period --cpu-rt-runtime "
    "--cpu-shares --cpus --cpuset-cpus --cpuset-mems --creds --decryption-key --detach-keys --device "
    "--device-cgroup-rule --device-read-bps --device-read-iops --device-write-bps --device-write-iops --dns "
    "--dns-option --dns-search --domainname --entrypoint --env --env-file --env-merge --expose --gidmap --gpus "
    "--group-add --group-entry --health-cmd --health-interval --health-log-destination --health-max-log-count "
    "--health-max-log-size --health-on-failure --health-retries --health-start-interval --health-start-period "
    "--health-startup-cmd --health-startup-interval --health-startup-retries --health-startup-success "
    "--health-startup-timeout --health-timeout --hostname --hosts-file --hostuser --image-volume --init-path "
    "--intel-rdt-closid --io-maxbandwidth --io-maxiops --ip --ip6 --ipc --isolation --kernel-memory --label "
    "--label-file --link --link-local-ip --log-driver --log-opt --mac-address --memory --memory-reservation "
    "--memory-swap --memory-swappiness --mount --name --net --network --network-alias --oom-score-adj --os "
    "--passwd-entry --personality --pid --pidfile --pids-limit --platform --pod --pod-id-file --preserve-fd "
    "--preserve-fds --publish --pull --rdt-class --requires --restart --retry --retry-delay --runtime --sdnotify "
    "--seccomp-policy --secret --security-opt --shm-size --shm-size-systemd --signature-policy --stop-signal "
    "--stop-timeout --storage-opt --subgidname --subuidname --sysctl --systemd --timeout --tmpfs --tz --uidmap "
    "--ulimit --umask --unsetenv --user --userns --uts --variant --volume --volume-driver --volumes-from --workdir"
)
_GLOBAL_WITH_VALUE = _names(
    "--cgroup-manager --config --conmon --connection --context --events-backend --hooks-dir --host --identity "
    "--log-level --namespace --network-cmd-path --root --runroot --runtime --storage-driver --storage-opt --tlscacert "
    "--tlscert --tlskey --tmpdir --url --volumepath -H -c -l"
)
_LETTERS = {"-e": "--env", "-v": "--volume", "-p": "--publish", "-m": "--memory", "-u": "--user", "-w": "--workdir",
            "-h": "--hostname", "-l": "--label", "-c": "--cpu-shares", "-a": "--attach"}  # fmt: skip
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


@dataclass(frozen=True, slots=True)
class RunCommand:
    """The words of a `run` command, in their order.

    Attributes:
        program: the program, and its own options before `run`.
        arguments: those of `run`.
        inside: what follows the image.
    """

    program: tuple[str, ...]
    arguments: tuple[str, ...] = field(repr=False)
    image: str
    inside: tuple[str, ...] = field(repr=False)


def is_container(argv: Sequence[str]) -> bool:
    """Whether these words run docker, podman or nerdctl."""
    return bool(argv) and PurePosixPath(argv[0]).name in _RUNTIMES


def split_run(argv: Sequence[str]) -> RunCommand:
    """Take a `run` command apart, without changing a word.

    Raises:
        InvalidError: not a `run` command, an unknown option, or no image.
    """
    runtime = PurePosixPath(argv[0]).name
    start = _after_globals(argv)
    position = start + 1 if list(argv[start : start + 1]) == ["container"] else start
    if list(argv[position : position + 1]) != ["run"]:
        raise InvalidError(
            f"only `{runtime} run` is supported",
            hint=f"Paste a whole `{runtime} run` command, a compose service, or what runs in the container.",
        )
    _, image = _known_options(runtime, argv, position + 1)
    if image >= len(argv):
        raise InvalidError(f"the {runtime} command names no image", hint="Paste the whole command.")
    return RunCommand(tuple(argv[:start]), tuple(argv[position + 1 : image]), argv[image], tuple(argv[image + 1 :]))


def run_arguments(words: Sequence[str]) -> tuple[tuple[str, str | None], ...]:
    """Arguments of `run` as flags and values, short ones spelled out. Those that are not known are passed through: a
    word that follows one and is no flag becomes its value.

    Raises:
        InvalidError: a value is missing.
    """
    found: list[tuple[str, str | None]] = []
    position = 0
    while position < len(words):
        known, position = _options(words, position)
        found += known
        if position == len(words):
            break
        word, equals, value = words[position].partition("=")
        if not word.startswith("-"):
            raise InvalidError(
                f"the container argument {word!r} belongs to no option",
                hint="Give only the options of `run`; the image has a setting of its own.",
            )
        position += 1
        if not equals and position < len(words) and not words[position].startswith("-"):
            equals, value, position = "=", words[position], position + 1
        found.append((word, value if equals else None))
    return tuple(found)


def understand(argv: Sequence[str]) -> tuple[Container, list[str]]:
    """The container, and the words that run in it.

    Raises:
        InvalidError: not a `run` command, an unknown option, or no image.
    """
    runtime = PurePosixPath(argv[0]).name
    command = split_run(argv)
    options, _ = _options(command.arguments, 0)
    inside = list(command.inside)
    for value in (value for name, value in options if name == "--entrypoint"):
        inside = [*([value] if value else []), *inside]
    if _engine(command.image) == "llama_cpp" and not any(name == "--entrypoint" for name, _ in options):
        inside = _of_llama_image(command.image, inside)
    env = dict(value.split("=", 1) for name, value in options if name == "--env" and value and "=" in value)
    return Container(runtime, command.image, _engine(command.image), tuple(options), env), inside


def _of_llama_image(image: str, inside: list[str]) -> list[str]:
    """What the server is given by an image of llama.cpp: the full one starts one of several programs, by its first
    argument, and the light one only those without a server.

    Raises:
        InvalidError: the image starts another program.
    """
    kind = image.rpartition(":")[2]
    if inside[:1] in (["--server"], ["-s"]):
        return inside[1:]
    if kind.startswith("light") or (kind.startswith("full") and inside[:1] and inside[0].startswith("-")):
        raise InvalidError(
            f"{image} starts no server this way",
            hint="Use the image whose tag begins with `server`, or the full one with --server as its first argument.",
        )
    return inside


def notes(container: Container) -> tuple[str, ...]:
    """What the container did and starting the engine directly will not do."""
    mounts = [volume.split(":") for volume in container.values("--volume") if ":" in volume]
    return (
        *(f"paths under {mount[1]} are {mount[0]} on the host; they were not translated" for mount in mounts),
        *(f"the published port {port} was not translated" for port in container.values("--publish")),
        *(f"the variables in {name} were not read" for name in container.values("--env-file")),
    )


def _after_globals(argv: Sequence[str]) -> int:
    """The index of the first word that is no option of the program itself: `podman --runtime runc run …`."""
    position = 1
    while position < len(argv) and argv[position].startswith("-"):
        position += 2 if argv[position] in _GLOBAL_WITH_VALUE else 1
    return position


def _known_options(runtime: str, argv: Sequence[str], position: int) -> tuple[list[tuple[str, str | None]], int]:
    """As `_options`. Raises InvalidError for an option that is not known: its value cannot be told from the image."""
    found, position = _options(argv, position)
    if position < len(argv) and argv[position].startswith("-"):
        raise InvalidError(
            f"unknown {runtime} option {argv[position]}: its value cannot be told from the image",
            hint="Leave the option out, or paste the command that runs inside the container.",
        )
    return found, position


def _options(argv: Sequence[str], position: int) -> tuple[list[tuple[str, str | None]], int]:
    """The known options from `position` on, and the position of the first word that is none."""
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
                raise InvalidError(f"{word} needs a value", hint="Give the whole command.")
            found.append((short or name, argv[position]))
            position += 1
        else:
            return found, position - 1
    return found, position


def _engine(image: str) -> str | None:
    """By the repository's name: `vllm/vllm-openai:v0.32.0`, `registry.example/org/llama.cpp:server`."""
    repository = image.rsplit("/", 1)[-1].split("@")[0].split(":")[0]
    return _IMAGES.get(repository)
