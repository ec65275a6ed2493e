"""The seam to the database: the protocols of all nouns together.

Every method except `prune` is one transaction and blocks, for seconds at worst; callers in an event loop use a thread.
When a method returns, what it wrote is on disk. Reads may run beside a write, each on one consistent state. Callers
pass the times. `MemoryStore` is the in-memory twin, `SqlStore` the real one; one suite of tests runs on both.

On failure a method raises a leaf of GarrisonError: LockedError (another program is writing), DiskFullError,
UnreachableError (the server is down), DeniedError, InvalidError (damaged, or not a database of Garrison).
"""

from typing import Protocol

from garrison.store.agent_store import AgentStore
from garrison.store.audit_store import AuditStore
from garrison.store.command_store import CommandStore
from garrison.store.event_store import EventStore
from garrison.store.instance_store import InstanceStore
from garrison.store.key_store import KeyStore
from garrison.store.lease_store import LeaseStore
from garrison.store.resource_store import ResourceStore
from garrison.store.stack_store import StackStore
from garrison.store.target_store import TargetStore
from garrison.store.upkeep_store import UpkeepStore
from garrison.store.usage_store import UsageStore

__all__ = ["FleetStore"]


class FleetStore(
    StackStore,
    TargetStore,
    ResourceStore,
    CommandStore,
    LeaseStore,
    AgentStore,
    EventStore,
    InstanceStore,
    KeyStore,
    AuditStore,
    UsageStore,
    UpkeepStore,
    Protocol,
):
    """A whole store. Code that needs a single noun takes the protocol of that noun."""
