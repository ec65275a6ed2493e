"""The lines that vLLM prints at its start, phase by phase."""

from dataclasses import dataclass

from garrison.sim.config import SimConfig

__all__ = ["Phase", "phases"]


@dataclass(frozen=True, slots=True)
class Phase:
    """A line of output, and the seconds before it.

    Attributes:
        who: the process that prints it: `EngineCore` or `Worker`.
        where: file and line in vLLM.
    """

    seconds: float
    who: str
    where: str
    text: str


def phases(config: SimConfig, delay: float) -> tuple[Phase, ...]:
    """Return the phases of a start that takes `delay` seconds."""
    tokens = config.cache_blocks * config.block_size
    engine = f"Initializing a V1 LLM engine (v{config.version}) with config: model='{config.model}'"
    model = f"Model loading took 0.01 GiB memory and {0.5 * delay:.6f} seconds"
    graphs = f"Graph capturing finished in {0.2 * delay:.0f} secs, took 0.01 GiB"
    init = f"init engine (profile, create kv cache, warmup model) took {0.4 * delay:.2f} s"
    return (
        Phase(0.1 * delay, "EngineCore", "core.py:133", engine),
        Phase(0.1 * delay, "Worker", "gpu_model_runner.py:5170", f"Starting to load model {config.model}..."),
        Phase(0.4 * delay, "Worker", "default_loader.py:501", f"Loading weights took {0.4 * delay:.2f} seconds"),
        Phase(0.0, "Worker", "gpu_model_runner.py:5260", model),
        Phase(0.2 * delay, "Worker", "monitor.py:53", f"torch.compile took {0.2 * delay:.2f} s in total"),
        Phase(0.0, "EngineCore", "kv_cache_utils.py:2327", f"GPU KV cache size: {tokens:,} tokens"),
        Phase(0.2 * delay, "Worker", "gpu_model_runner.py:6200", graphs),
        Phase(0.0, "EngineCore", "core.py:402", init),
    )
