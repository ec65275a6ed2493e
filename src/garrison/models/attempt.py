"""What each source said about a model, and the error that lists it if none has the model. Pure."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from garrison.base.errors import ModelNotFoundError
from garrison.models.request import ResolveRequest

__all__ = ["Attempt", "not_found"]

_WIDTH = 80
_MODELS = "<models>"


@dataclass(frozen=True, slots=True)
class Attempt:
    """The result of one source. `outcome` is `found`, `skipped`, `invalid` or `failed`; `unused`: it did not look."""

    source: str
    outcome: str
    reason: str = ""
    unused: bool = field(default=False, compare=False)

    def to_json(self) -> dict[str, str]:
        return {"source": self.source, "outcome": self.outcome, "reason": self.reason}


def not_found(request: ResolveRequest, tried: Sequence[Attempt]) -> ModelNotFoundError:
    """Return the error for a model that no source has: a line for each place that was searched, then the rest."""
    details = {"model_id": request.model.model_id, "tried": [attempt.to_json() for attempt in tried]}
    if request.model.path is not None:
        reasons = "; ".join(attempt.reason for attempt in tried)
        return ModelNotFoundError(
            f"no model found: {reasons}",
            hint="Check the path. To look a name up in the sources, write it without `./` or `/` before it.",
            details=details,
        )
    root = str(request.layout.root)
    width = max((len(attempt.source) for attempt in tried), default=0)
    lines = [f"model {request.model} not found"]
    for attempt in (one for one in tried if not one.unused):
        label = f"{attempt.source:<{width}}"
        for reason in attempt.reason.replace(root, _MODELS).split("; "):
            lines += _wrapped(f"  {label}  ", reason)
            label = " " * width
    if unused := [f"{one.source} ({one.reason.replace(root, _MODELS)})" for one in tried if one.unused]:
        lines += _wrapped("  not searched: ", ", ".join(unused))
    if any(_MODELS in line for line in lines):
        lines.append(f"  {_MODELS} is {root}")
    return ModelNotFoundError("\n".join(lines), hint=_hint(request, tried), details=details)


def _hint(request: ResolveRequest, tried: Sequence[Attempt]) -> str:
    if not tried:
        return "Name at least one source with --source or VLLM_MODEL_SOURCES."
    first = "Check the name, or run it without --offline" if request.offline else "Check the name"
    return f"{first}. If you have the model on disk: garrison models import DIR --as {request.model.model_id}"


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_long_words=False,
        break_on_hyphens=False,
    )
