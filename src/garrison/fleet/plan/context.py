"""The context of the decisions in a plan. Values and lookups, no I/O."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from garrison.fleet.artifacts.entry import next_name
from garrison.fleet.artifacts.protocol import EntryFault
from garrison.fleet.values.cures import cure_of, is_silent
from garrison.fleet.values.declaration import AdapterDeclaration
from garrison.fleet.values.demand import NOTHING_ASKED, Demand
from garrison.fleet.values.failure import Failure, FailureCode, code_of_unknown, unknown_message
from garrison.fleet.values.observation import Cause, Served, Sighting

__all__ = ["Mode", "PlanOptions", "Scene", "routes_off"]

Mode = Literal["reconcile", "patch", "destroy"]

_RETURNS = "The next apply, or the agent, carries this out once the target is reachable."


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """Conflicts and risks that the user accepted.

    Attributes:
        force: overwrite outside changes made since the last apply.
        adopt: take over adapters that another party loaded under a declared name.
        accept_stale_cache: load new content from an unchanged path although the server may answer from old blocks.
    """

    force: bool = False
    adopt: bool = False
    accept_stale_cache: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What every decision in a plan depends on, apart from the adapter itself; see `plan.plan` for the fields."""

    stack: str
    mode: Mode
    options: PlanOptions
    sightings: Mapping[str, Sighting]
    staged_path: Callable[[str, str], str | None]
    faults: Mapping[str, EntryFault]
    prefix_caching: Mapping[str, bool | None]
    ending: frozenset[str] = frozenset()
    demand: Demand = NOTHING_ASKED
    slots: Mapping[str, int | None] = field(default_factory=dict)
    instances: frozenset[str] = frozenset()

    def unknown(self, target: str) -> Failure | None:
        """Return why `target` is unknown; None if it was observed."""
        seen = self.sightings.get(target)
        if seen is not None and seen.known:
            return None
        cause, detail = (seen.cause, seen.detail) if seen else (Cause.NEVER_ASKED, "it was not asked")
        return Failure(
            code=code_of_unknown(cause),
            message=unknown_message(target, cause or Cause.NEVER_ASKED, detail),
            hint=_RETURNS if is_silent(cause) else cure_of(cause, detail) or _RETURNS,
            recoverable=True,
            cause=cause,
        )

    def observed(self, target: str, name: str) -> Served | None:
        """Return the adapter served as `name` on `target`, if any."""
        seen = self.sightings.get(target)
        return seen.adapter(name) if seen is not None else None

    def full(self, target: str) -> bool:
        """Return whether the target is known to have no room for one more adapter."""
        slots, seen = self.slots.get(target), self.sightings.get(target)
        return slots is not None and seen is not None and len(seen.adapters) >= slots

    def load_path(self, spec: AdapterDeclaration) -> tuple[str, bool]:
        """Return the path to load from, and whether files are copied there first."""
        staged = self.staged_path(spec.target, spec.digest) if spec.digest else None
        if staged and staged in self.faults:  # staging picks the next free name, which only the disk knows for sure
            staged = str(PurePosixPath(staged).with_name(next_name(PurePosixPath(staged).name)))
        return (staged, True) if staged else (spec.lora_path, False)


def routes_off(target: str) -> Failure:
    """Return the failure of loading or unloading on a target whose run-time LoRA is off."""
    return Failure(
        code=FailureCode.INVALID_REQUEST,
        message=f"{target} has no routes to load or unload adapters",
        hint="Start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment.",
        cause=Cause.NO_LORA_ROUTES,
    )
