"""What is on record about the targets of a plan, for its view."""

from garrison.cli.views.plan import PlanFacts
from garrison.fleet.context import Fleet
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.target import TargetSpec

__all__ = ["plan_facts"]


def plan_facts(fleet: Fleet, declared: Declaration | None, *, everything: bool) -> PlanFacts:
    """Collect addresses, last sightings and TLS settings of all targets.

    Args:
        declared: overrides the targets on record; None for a plan made from the record alone, as `destroy` makes.
        everything: do not truncate the view.
    """
    known = fleet.store.targets()
    specs = {one.name: TargetSpec.from_json(one.name, one.spec) for one in known}
    if declared is not None:
        specs |= declared.targets
    return PlanFacts(
        now=fleet.clock.now(),
        last_seen={one.name: one.last_seen for one in known},
        addresses={name: spec.base_url for name, spec in specs.items()},
        insecure=frozenset(name for name, spec in specs.items() if spec.unverified),
        everything=everything,
    )
