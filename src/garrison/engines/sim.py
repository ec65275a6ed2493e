"""The vLLM simulator, which ships with Garrison: it accepts vLLM's flags and needs no installation."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from garrison.base.children import SAFE_PYTHON
from garrison.engines.engine import EngineCommand, ServeOptions
from garrison.engines.vllm import Vllm

if TYPE_CHECKING:
    from garrison.engines.catalogue import Catalogue
    from garrison.engines.control import Drain, SleepControl
    from garrison.engines.memory import MemoryUse

__all__ = ["Sim"]


class Sim(Vllm):
    name = "sim"
    title = "vLLM simulator"
    executable = "python"

    def command(self, executable: Path, options: ServeOptions) -> EngineCommand:
        """vLLM's command, with `PYTHON -P -m garrison.sim --model MODEL` instead of `vllm serve MODEL`."""
        own = (str(executable), SAFE_PYTHON, "-m", "garrison.sim")
        return super().command(executable, options if options.program is not None else replace(options, program=own))

    def file_args(self, args: Sequence[str]) -> tuple[str, ...]:
        """None: the simulator reads no config file."""
        return ()

    def catalogue(self, version: str | None = None) -> "Catalogue":
        """Empty: the simulator ignores what it does not know, and says so."""
        from garrison.engines.catalogue import Catalogue

        return Catalogue(self.name, version or self.version(Path(sys.executable)), ())

    def version(self, executable: Path) -> str:
        from garrison import __version__

        return __version__

    def sleep_control(self, version: str | None = None, device: str | None = None) -> "SleepControl | None":
        """As vLLM without a known version: the simulator's sleep aborts requests in progress."""
        from garrison.engines.vllm_control import sleep_control

        return sleep_control(None, None)

    def drain(self) -> "Drain":
        from garrison.engines.control import Drain

        return Drain(by_metrics=True)

    def memory_use(self, argv: Sequence[str], environ: Mapping[str, str], device: str | None = None) -> "MemoryUse":
        from garrison.engines.memory import MemoryUse

        return MemoryUse("host")
