"""What is on record about the targets of a plan, for its view."""

from garrison.cli.views.plan import PlanFacts
from garrison.fleet.management.operations import Operations
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.target import TargetSpec

__all__ = ["plan_facts"]


async def plan_facts(operations: Operations, declared: Declaration, *, everything: bool) -> PlanFacts:
    """Collect addresses, last sightings and TLS settings of the targets that a plan may name.

    Args:
        declared: what is planned; its targets are shown as declared, the others of the stack as they are on record.
        everything: do not truncate the view.
    """
    known = await operations.targets(declared.targets, stack=declared.stack)
    specs = {one.name: TargetSpec.from_json(one.name, one.spec) for one in known} | dict(declared.targets)
    return PlanFacts(
        now=operations.now(),
        last_seen={one.name: one.last_seen for one in known},
        addresses={name: spec.base_url for name, spec in specs.items()},
        insecure=frozenset(name for name, spec in specs.items() if spec.unverified),
        everything=everything,
    )
