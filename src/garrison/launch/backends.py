"""What the settings say about the engines of instances, and how an instance's engine is started by them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from garrison.base.errors import InvalidError
from garrison.base.settings import Settings
from garrison.engines.parse.container import RunCommand, is_container, split_run
from garrison.launch.containers.values import OwnArguments, own_arguments

__all__ = ["Arrangement", "Backend", "Image", "arrange", "backend_of"]

_ROWS = {"vllm": "vllm", "llama_cpp": "llama", "mlx_lm": "mlx_lm"}
"""The prefix of an engine's settings."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The settings of one engine.

    Attributes:
        executable: its program, in any number of words; empty for an installed engine.
        args: arguments of every instance, before its own.
        env: variables of every instance.
        container: instances run in containers.
        image: for those.
        container_args: arguments of `run`.
        container_env: variables of every container.
    """

    executable: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    container: bool = False
    image: str | None = None
    container_args: tuple[str, ...] = ()
    container_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    container_program: tuple[str, ...] = ("docker",)


@dataclass(frozen=True, slots=True)
class Image:
    """A container to start: the program with its own options, the image, and the words that follow it."""

    program: tuple[str, ...]
    image: str
    own: OwnArguments
    inside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How an engine is started.

    Attributes:
        words: its program; empty for an installed engine, and in a container.
        container: where it runs; None for this machine itself.
        notes: what was asked for and is not done, in sentences.
    """

    words: tuple[str, ...] = ()
    container: Image | None = None
    notes: tuple[str, ...] = ()


def backend_of(settings: Settings, engine: str) -> Backend:
    """The settings of an engine; those of containers alone for one that has no settings, `sim` and `custom`."""
    program, variables = settings.container_program, dict(settings.container_env)
    row = _ROWS.get(engine)
    if row is None:
        return Backend(container_program=program, container_env=variables)
    args: tuple[str, ...] = getattr(settings, f"{row}_args")
    if engine == "vllm" and args[:1] == ("serve",):
        args = args[1:]  # llamactl's settings begin with it
    contained = engine != "mlx_lm"
    return Backend(
        executable=getattr(settings, f"{row}_executable"),
        args=args,
        env=dict(getattr(settings, f"{row}_env")),
        container=contained and getattr(settings, f"{row}_container"),
        image=getattr(settings, f"{row}_image") if contained else None,
        container_args=getattr(settings, f"{row}_container_args") if contained else (),
        container_env=variables,
        container_program=program,
    )


def arrange(
    engine: str, backend: Backend, executable: tuple[str, ...] = (), container: bool | None = None
) -> Arrangement:
    """Decide how the engine of an instance is started.

    Args:
        executable: the instance's own program, llamactl's `command_override`.
        container: whether the instance wants a container; None for what the settings say.

    Raises:
        InvalidError: a container without an image, or a container's command that cannot be read.
    """
    words = executable or backend.executable
    wanted = (backend.container or is_container(words)) if container is None else container
    notes: list[str] = []
    if wanted and engine == "mlx_lm":
        notes.append("MLX needs this machine's own GPU, so it does not run in a container")
        wanted = False
    if not wanted:
        if is_container(words):
            notes.append(f"{words[0]!r} starts a container, which is not wanted: an installed engine is used")
            words = ()
        return Arrangement(words, notes=tuple(notes))
    if executable and not is_container(executable):
        notes.append(f"{' '.join(executable)!r} was left out: in a container the image has the program")
    image = _image(engine, backend, executable if is_container(executable) else backend.executable)
    return Arrangement(container=image, notes=(*notes, *image.own.notes))


def _image(engine: str, backend: Backend, words: tuple[str, ...]) -> Image:
    if is_container(words):
        command: RunCommand = split_run(words)
        return Image(command.program, command.image, own_arguments(command.arguments), command.inside)
    if backend.image is None:
        raise InvalidError(
            f"no image is known for the engine {engine}",
            hint="Name it with the program: `docker run IMAGE`, as the executable of the instance.",
            details={"engine": engine},
        )
    return Image(backend.container_program, backend.image, own_arguments(backend.container_args))
