"""Any OpenAI-compatible server, by its command: SGLang, TabbyAPI, a whisper server, infinity.

Nothing is known about it but what its declaration says: it has no catalogue of options, no phases, no sleep and no key.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from garrison.base.errors import InvalidError
from garrison.engines.argv import Endpoint
from garrison.engines.engine import Capabilities, EngineCommand, Readiness, ServeOptions

if TYPE_CHECKING:
    from garrison.engines.catalogue import Catalogue
    from garrison.engines.control import Drain, SleepControl
    from garrison.engines.memory import MemoryUse
    from garrison.engines.metrics import MetricsPage
    from garrison.engines.parse.command import ParsedCommand

__all__ = ["Custom"]

_PLACEHOLDER = re.compile(r"\{(?:port|host|model)\}")
_APIS = frozenset({"chat", "completions"})


class Custom:
    """`Engine` for one declared server.

    Args:
        argv: its command; `{port}`, `{host}` and `{model}` in a word are replaced.
        ready_path: answers 200 once it can serve.
        apis: API families that it speaks, as in `Capabilities`.
    """

    name = "custom"
    title = "the custom server"
    default_endpoint = Endpoint("127.0.0.1", 8000)
    fixed_model_name: str | None = None

    def __init__(self, argv: Sequence[str] = (), *, ready_path: str = "/health", apis: frozenset[str] = _APIS) -> None:
        self.argv = tuple(argv)
        self.executable = argv[0] if argv else ""
        self.readiness = Readiness(
            ready_path, "its readiness path answers 200", loading=frozenset({503}), declared=True
        )
        self.capabilities = Capabilities(
            runtime_lora=False, static_lora=False, sleep=False, metrics=False, apis=apis, api_key=False
        )

    def locate_model(self, model: str) -> str:
        return model

    def model_args(self, model: str) -> tuple[str, ...]:
        return ()

    def file_args(self, args: Sequence[str]) -> tuple[str, ...]:
        return ()

    def endpoint(
        self, argv: Sequence[str], default: Endpoint | None = None, environ: Mapping[str, str] | None = None
    ) -> Endpoint:
        """The default: what the argv means is not known."""
        return default or self.default_endpoint

    def served_names(self, argv: Sequence[str]) -> tuple[str, ...]:
        return ()

    def command(self, executable: Path, options: ServeOptions) -> EngineCommand:
        """The declared command with its placeholders replaced, then `options.args`.

        Raises:
            InvalidError: there is no command, or it contains `{model}` and no model is named.
        """
        program = self.argv if options.program is None else options.program
        if not program and options.program is None:
            raise InvalidError("a custom server needs a command", hint="Set `argv`, with {port} where its port goes.")
        if any("{model}" in word for word in program) and not options.model:
            raise InvalidError(
                "the command of the custom server contains {model}, and no model is named",
                hint="Add `model` to its options, or write the model into the command.",
            )
        given = {"{port}": str(options.port), "{host}": options.host, "{model}": options.model}
        words = [_PLACEHOLDER.sub(lambda found: given[found[0]], word) for word in program]
        if options.program is None:
            words[0] = str(executable)
        return EngineCommand((*words, *options.args))

    def catalogue(self, version: str | None = None) -> "Catalogue":
        from garrison.engines.catalogue import Catalogue

        return Catalogue(self.name, version or "", ())

    def parse_command(self, text: str) -> "ParsedCommand":
        raise InvalidError(
            "the command of a custom server is not parsed", hint="Give it as `argv`, with {port} for its port."
        )

    def version(self, executable: Path) -> str:
        from garrison.engines.version import UNKNOWN

        return UNKNOWN

    def sleep_control(self, version: str | None = None, device: str | None = None) -> "SleepControl | None":
        return None

    def drain(self) -> "Drain":
        from garrison.engines.control import NO_DRAIN

        return NO_DRAIN

    def metrics_page(self) -> "MetricsPage | None":
        return None

    def memory_use(self, argv: Sequence[str], environ: Mapping[str, str], device: str | None = None) -> "MemoryUse":
        from garrison.engines.memory import on_gpu_unless_cpu

        return on_gpu_unless_cpu(device, environ)
