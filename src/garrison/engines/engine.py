"""The protocol of an engine, and the values that it takes and returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from garrison.base.children import child_environment
from garrison.base.errors import InvalidError
from garrison.base.redaction import SecretValueError, know_arguments, know_environment, secret_text
from garrison.base.settings import secret_variables
from garrison.engines.argv import Endpoint, endpoint_of

if TYPE_CHECKING:
    from garrison.engines.catalogue import Catalogue
    from garrison.engines.control import Drain, SleepControl
    from garrison.engines.memory import MemoryUse
    from garrison.engines.metrics import MetricsPage
    from garrison.engines.parse.command import ParsedCommand

__all__ = [
    "Capabilities",
    "Endpoint",
    "Engine",
    "EngineCommand",
    "LoraModule",
    "LoraOptions",
    "Readiness",
    "ServeOptions",
    "endpoint_of",
]


_KEYS_OF_ENGINES = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "VLLM_API_KEY", "LLAMA_API_KEY"}


@dataclass(frozen=True, slots=True)
class LoraModule:
    """An adapter to load when the engine starts. `path` is a directory; for llama.cpp, a GGUF file."""

    name: str
    path: str
    base_model_name: str | None = None


@dataclass(frozen=True, slots=True)
class LoraOptions:
    """What the declared adapters require of the engine.

    Attributes:
        max_loras: adapters in one batch; None for the engine's default.
        max_rank: the highest rank of all adapters, including those loaded later; 0 if unknown.
        runtime_updates: adapters will be loaded and unloaded while the engine runs.
    """

    modules: tuple[LoraModule, ...] = ()
    max_loras: int | None = None
    max_rank: int = 0
    runtime_updates: bool = False


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """One server to start.

    Attributes:
        model: an absolute path, or an id for engines that accept one; empty where the arguments say what is served.
        served_name: empty where there is no model to name.
        args: the user's own engine arguments, verbatim and in order; they override everything else here.
        file_args: the contents of the engine's own config file, as arguments. They are the user's too, but not put into
            the argv: the engine reads its file itself.
        model_args: the engine's arguments for files that belong to the model; the user's own replace them.
        program: the words that start the engine, instead of its executable: `python -m vllm.entrypoints.cli.main`.
            Empty for a container whose image starts it.
        api_key_env: the variable in Garrison's environment with the key that clients must send; the key itself is never
            in a value, an argv or a log.
    """

    model: str
    host: str = "127.0.0.1"
    port: int = 8000
    served_name: str | None = None
    args: tuple[str, ...] = ()
    lora: LoraOptions | None = None
    api_key_env: str | None = None
    file_args: tuple[str, ...] = ()
    model_args: tuple[str, ...] = ()
    program: tuple[str, ...] | None = None

    def words(self, executable: Path) -> tuple[str, ...]:
        """The words before the engine's arguments."""
        return (str(executable),) if self.program is None else self.program

    @property
    def given(self) -> tuple[str, ...]:
        """All of the user's arguments; later ones override earlier ones."""
        return (*self.file_args, *self.args)


@dataclass(frozen=True, slots=True)
class EngineCommand:
    """A checked command, ready to exec or spawn.

    Attributes:
        argv: starts with the absolute path of the executable.
        env: variables to set.
        env_from: variables to copy from others of the caller's environment, target to source: so a secret reaches the
            engine without being a value here.
        unset: variables to remove.
        reads_hub_cache: it fails where the cache directory of the Hugging Face hub does not exist.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    unset: frozenset[str] = frozenset()
    env_from: Mapping[str, str] = field(default_factory=dict)
    reads_hub_cache: bool = False

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Derive the engine's environment from the caller's: without Garrison's own secrets, and such that Python does
        not import modules from the current directory.

        Raises:
            InvalidError: a variable named in `env_from` is not set, or is not a single line of text.
        """
        dropped = self.unset | secret_variables() | {"NOTIFY_SOCKET"}  # readiness is Garrison's to tell
        result = {name: value for name, value in child_environment(environ).items() if name not in dropped}
        for name in _KEYS_OF_ENGINES & result.keys():
            if result[name].strip():
                result[name] = _one_line(name, result[name])
        for target, source in self.env_from.items():
            if not environ.get(source):
                raise InvalidError(
                    f"the variable {source}, which should hold the API key, is not set",
                    hint=f"Export {source}, or leave the key out.",
                    details={"variable": source},
                )
            result[target] = _one_line(source, environ[source])
        made = result | dict(self.env)
        know_environment(made)
        know_arguments(self.argv)
        return made


def _one_line(variable: str, raw: str) -> str:
    """The key without surrounding white space: with its line break, an engine would reject every client."""
    try:
        return secret_text(raw)
    except SecretValueError as error:
        raise InvalidError(
            f"the variable {variable}, which should hold a key, {error}",
            hint=f"Export {variable} again; a key is one line of text.",
            details={"variable": variable},
        ) from None


@dataclass(frozen=True, slots=True)
class Readiness:
    """How to check whether the engine is ready: GET `path`.

    Attributes:
        means: what a 200 proves.
        listens_when_ready: it accepts connections only once it can serve, so any response proves that it is ready.
        loading: statuses that mean "not yet".
        dead: statuses that mean it will never be ready, although the process is alive.
        declared: the user named the path, so nothing but its 200 counts.
    """

    path: str
    means: str
    loading: frozenset[int] = frozenset()
    dead: frozenset[int] = frozenset()
    listens_when_ready: bool = False
    declared: bool = False


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the engine can do.

    Attributes:
        apis: API families: `completions`, `chat`, `embeddings`, `responses`, `messages` (Anthropic's), `rerank`,
            `tokenize`.
        api_key: it can demand a key of its clients. One that cannot is safe only on the loopback address.
    """

    runtime_lora: bool
    static_lora: bool
    sleep: bool
    metrics: bool
    apis: frozenset[str]
    api_key: bool = True


class Engine(Protocol):
    """A program that serves a model."""

    name: str
    title: str
    executable: str
    """File name of the program, which is looked up in an engine's environment and on PATH."""
    readiness: Readiness
    capabilities: Capabilities
    default_endpoint: Endpoint
    """Where it listens if its argv does not say."""
    fixed_model_name: str | None
    """The name that clients must use for the model, if the engine leaves no choice."""

    def locate_model(self, model: str) -> str:
        """The argument for a resolved model: the same path, or a file in it. Reads the disk.

        Raises:
            ModelInvalidError: the directory holds nothing that this engine can serve, or more than one model.
        """

    def model_args(self, model: str) -> tuple[str, ...]:
        """Arguments for files that belong to a located model, such as its projector. Reads the disk."""

    def file_args(self, args: Sequence[str]) -> tuple[str, ...]:
        """The contents of the engine's own config file, if `args` name one, as arguments. Reads the disk.

        Raises:
            InvalidError: the file cannot be read, so the engine would not start.
        """

    def endpoint(
        self, argv: Sequence[str], default: Endpoint | None = None, environ: Mapping[str, str] | None = None
    ) -> Endpoint:
        """Where and how the engine with this argv will listen. Pure.

        Args:
            argv: with the arguments of the config file before the others.
            default: for what the argv does not say; `default_endpoint` if None.
            environ: the engine's environment, for engines whose variables replace flags.
        """

    def served_names(self, argv: Sequence[str]) -> tuple[str, ...]:
        """The names of the model that this argv chooses, the first one being that of its answers. Pure.

        Args:
            argv: as in `endpoint`.

        Returns:
            Nothing where it leaves the name to Garrison.
        """

    def command(self, executable: Path, options: ServeOptions) -> EngineCommand:
        """The command that serves `options`. Pure.

        Raises:
            InvalidError: the engine cannot do what the options require.
        """

    def catalogue(self, version: str | None = None) -> "Catalogue":
        """The options of the shipped version closest to `version`; the newest if None."""

    def parse_command(self, text: str) -> "ParsedCommand":
        """Parse a pasted command line of this engine.

        Raises:
            InvalidError: it cannot be parsed, or starts another engine.
        """

    def version(self, executable: Path) -> str:
        """The version of the program, from the metadata beside it, or by running it.

        Raises:
            EngineMissingError: it cannot be run.
        """

    def sleep_control(self, version: str | None = None, device: str | None = None) -> "SleepControl | None":
        """How it is put to sleep and woken; None where it cannot sleep. Pure.

        Args:
            version: None where it is not known; then what every version understands.
            device: `cpu` or `cuda`, as it was installed for; None where that is not known.
        """

    def drain(self) -> "Drain":
        """How it finishes the requests that it has. Pure."""

    def metrics_page(self) -> "MetricsPage | None":
        """Where its metrics are and which mean what; None where it has none. Pure."""

    def memory_use(self, argv: Sequence[str], environ: Mapping[str, str], device: str | None = None) -> "MemoryUse":
        """Which memory it takes with this argv and environment, and when that counts as back. Pure.

        Args:
            device: as in `sleep_control`.
        """
