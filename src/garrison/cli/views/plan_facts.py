"""What is on record about the targets of a plan, for its view."""

from garrison.cli.views.plan import PlanFacts
from garrison.fleet.management.operations import StackOperations
from garrison.fleet.values.declaration import Declaration

__all__ = ["plan_facts"]


async def plan_facts(operations: StackOperations, declared: Declaration, *, everything: bool) -> PlanFacts:
    """Collect addresses, last sightings and TLS settings of the targets that a plan may name.

    Args:
        declared: what is planned; its targets are shown as declared, the others of the stack as they are on record.
        everything: do not truncate the view.
    """
    known = await operations.places(declared.targets, stack=declared.stack)
    specs = declared.targets
    insecure = {one.name: one.insecure for one in known} | {name: spec.unverified for name, spec in specs.items()}
    return PlanFacts(
        now=operations.now(),
        last_seen={one.name: one.last_seen for one in known},
        addresses={one.name: one.base_url for one in known} | {name: spec.base_url for name, spec in specs.items()},
        insecure=frozenset(name for name, unverified in insecure.items() if unverified),
        everything=everything,
        place=operations.place,
    )
