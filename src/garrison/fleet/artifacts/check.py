"""Decides before a load whether an adapter fits a target: a server answers 200 to one that does not, and then serves
garbage. No I/O; the files were read by `models.adapters`."""

from collections.abc import Sequence
from pathlib import Path

from garrison.base.errors import GarrisonError
from garrison.engines.vllm import LORA_RANKS
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.models.adapters import judge
from garrison.models.adapters.adapter import AdapterInfo

__all__ = ["being_written", "broken", "refusal", "single_file"]

_MOST_MISFITS = 3


def refusal(info: AdapterInfo, *, target: str, max_lora_rank: int | None, misfits: Sequence[str]) -> Failure | None:
    """Return why `target` must not load the adapter; None if nothing is known against it.

    Args:
        max_lora_rank: the server's `--max-lora-rank`; None if not known.
        misfits: what `models.adapters.fit.check_against_base` found.
    """
    if (found := judge.refusal(info, "vllm")) is not None:
        return _invalid(found.what, found.hint)
    if info.max_rank > LORA_RANKS[-1]:
        message = f"{info.path} has rank {info.max_rank}, and vLLM accepts ranks up to {LORA_RANKS[-1]}"
        return _invalid(message, "Train it with a lower rank, or merge it into its base model.")
    if max_lora_rank is not None and info.max_rank > max_lora_rank:
        enough = next(rank for rank in LORA_RANKS if rank >= info.max_rank)
        message = f"{info.path} has rank {info.max_rank}, and {target} accepts ranks up to {max_lora_rank}"
        return _invalid(message, f"Restart its vLLM with --max-lora-rank {enough}, or train it with a lower rank.")
    if misfits:
        shown = "; ".join(misfits[:_MOST_MISFITS])
        more = f"; and {len(misfits) - _MOST_MISFITS} more" if len(misfits) > _MOST_MISFITS else ""
        trained = f" It says it was trained on {info.base_model}." if info.base_model else ""
        return _invalid(
            f"{info.path} does not fit the base model of {target}: {shown}{more}",
            f"Declare the adapter for a target that serves the base it was trained on.{trained}",
        )
    return None


def broken(error: GarrisonError) -> Failure:
    """Return the failure of an adapter that is truncated, incomplete, or does not match its own config."""
    return _invalid(error.message, error.hint)


def single_file(path: Path) -> Failure:
    """Return the failure of a declared path that is a file: vLLM loads directories."""
    if path.suffix == ".gguf":
        found = judge.other_format(path, "gguf", "vllm")
        return _invalid(found.what, found.hint)
    return _invalid(f"{path} is a file", "Declare the directory that holds adapter_config.json.")


def being_written(path: str) -> Failure:
    """Return the failure of an adapter whose files changed while they were read."""
    return Failure(
        code=FailureCode.NOT_STABILIZED,
        message=f"the files at {path} changed while they were read",
        hint="Wait until they are written. To avoid this, write a new directory and rename it into place when it is "
        "complete.",
        recoverable=True,
    )


def _invalid(message: str, hint: str | None) -> Failure:
    return Failure(code=FailureCode.INVALID_REQUEST, message=message, hint=hint)
