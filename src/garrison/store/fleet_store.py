"""The seam to the database, in the fleet's words: the protocols of the nouns, together.

Every method except `prune` is one transaction and blocks, for seconds at worst; callers in an event loop use a thread.
When a method returns, what it wrote is on disk. Reads may run beside a write, each on one consistent state. Times are
handed in. `MemoryStore` is the in-memory twin, `SqlStore` the real one; one suite of tests runs on both.

A store that cannot do what it is asked raises a leaf of GarrisonError: LockedError (another program is writing),
DiskFullError, UnreachableError (the server is down), DeniedError, InvalidError (damaged, or not Garrison's).
"""

from typing import Protocol

from garrison.store.command_store import CommandStore
from garrison.store.event_store import EventStore
from garrison.store.lease_store import LeaseStore
from garrison.store.resource_store import ResourceStore
from garrison.store.stack_store import StackStore
from garrison.store.target_store import TargetStore
from garrison.store.upkeep_store import UpkeepStore

__all__ = ["FleetStore"]


class FleetStore(StackStore, TargetStore, ResourceStore, CommandStore, LeaseStore, EventStore, UpkeepStore, Protocol):
    """A whole store. What needs one noun alone takes that noun's protocol."""
