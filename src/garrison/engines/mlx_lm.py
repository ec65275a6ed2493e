"""MLX LM: `mlx_lm.server`, on Apple's GPUs and, with its CPU backend, on Linux. Facts are from 0.32."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from garrison.base.errors import InvalidError, ModelInvalidError
from garrison.base.presence import exists, is_dir
from garrison.engines.argv import Endpoint, endpoint_of, gives
from garrison.engines.engine import Capabilities, EngineCommand, LoraOptions, Readiness, ServeOptions

if TYPE_CHECKING:
    from garrison.engines.catalogue import Catalogue
    from garrison.engines.control import Drain, SleepControl
    from garrison.engines.memory import MemoryUse
    from garrison.engines.metrics import MetricsPage
    from garrison.engines.parse.command import ParsedCommand

__all__ = ["MlxLm"]


class MlxLm:
    name = "mlx_lm"
    title = "MLX LM"
    executable = "mlx_lm.server"
    # It listens before the model is loaded, and already answers 200; 503 means that its generation thread has died.
    readiness = Readiness(
        "/health", "it listens; the first request may still wait for the weights", dead=frozenset({503})
    )
    capabilities = Capabilities(
        runtime_lora=False,
        static_lora=True,
        sleep=False,
        metrics=False,
        apis=frozenset({"completions", "chat"}),
        api_key=False,
    )
    default_endpoint = Endpoint("127.0.0.1", 8080)
    fixed_model_name: str | None = "default_model"  # it fetches any other name from the hub

    def locate_model(self, model: str) -> str:
        directory = Path(model)
        if is_dir(directory) and not exists(directory / "config.json"):
            raise ModelInvalidError(
                f"{directory} contains no config.json, and mlx_lm serves nothing else than Hugging Face's layout",
                hint="Serve it with another engine: GGUF with llama_cpp, Mistral's own layout with vllm.",
                details={"path": str(directory)},
            )
        return model

    def model_args(self, model: str) -> tuple[str, ...]:
        return ()

    def file_args(self, args: Sequence[str]) -> tuple[str, ...]:
        return ()

    def endpoint(
        self, argv: Sequence[str], default: Endpoint | None = None, environ: Mapping[str, str] | None = None
    ) -> Endpoint:
        known = frozenset(self.catalogue().by_spelling())
        found = endpoint_of(argv, default or self.default_endpoint, known)
        return Endpoint(found.host, found.port)

    def served_names(self, argv: Sequence[str]) -> tuple[str, ...]:
        return ()

    def command(self, executable: Path, options: ServeOptions) -> EngineCommand:
        """`mlx_lm.server --model DIR --host H --port P [--adapter-path DIR] ARGS`.

        There is no flag for `served_name`: clients use `default_model`, or the path that it was started with.
        """
        args = options.args
        if options.api_key_env is not None:
            raise InvalidError(
                "mlx_lm.server has no API key", hint="Leave the key out and keep its port on the loopback address."
            )
        argv = [*options.words(executable)]
        if not gives(args, {"--model"}):
            argv += ["--model", options.model]
        if not gives(args, {"--host"}):
            argv += ["--host", options.host]
        if not gives(args, {"--port"}):
            argv += ["--port", str(options.port)]
        if options.lora is not None:
            argv += _adapter(options.lora, args)
        # Its /v1/models lists the hub cache, and ends in a traceback where there is none.
        return EngineCommand((*argv, *args), reads_hub_cache=True)

    def catalogue(self, version: str | None = None) -> "Catalogue":
        from garrison.engines.catalogue import load

        return load(self.name, version)

    def parse_command(self, text: str) -> "ParsedCommand":
        from garrison.engines.parse.command import parse_command

        return parse_command(text, self.name)

    def version(self, executable: Path) -> str:
        from garrison.engines.version import version_of

        return version_of(executable, ("mlx-lm",), None)

    def sleep_control(self, version: str | None = None, device: str | None = None) -> "SleepControl | None":
        return None

    def drain(self) -> "Drain":
        from garrison.engines.control import NO_DRAIN

        return NO_DRAIN

    def metrics_page(self) -> "MetricsPage | None":
        return None

    def memory_use(self, argv: Sequence[str], environ: Mapping[str, str], device: str | None = None) -> "MemoryUse":
        """Apple's GPUs share the memory of the machine; only its CUDA build has memory of a GPU."""
        from garrison.engines.memory import MemoryUse, on_gpu_unless_cpu

        return on_gpu_unless_cpu(device, environ) if device == "cuda" else MemoryUse("host")


def _adapter(lora: LoraOptions, args: tuple[str, ...]) -> list[str]:
    if lora.runtime_updates:
        raise InvalidError(
            "mlx_lm.server loads its adapter only when it starts",
            hint="Drop the runtime updates, or use --engine vllm.",
        )
    if len(lora.modules) > 1:
        names = ", ".join(module.name for module in lora.modules)
        raise InvalidError(
            f"mlx_lm.server serves one adapter, not {len(lora.modules)} ({names})",
            hint="Keep one, or use --engine vllm.",
        )
    if not lora.modules or gives(args, {"--adapter-path"}):
        return []
    return ["--adapter-path", lora.modules[0].path]
