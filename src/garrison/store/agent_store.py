"""Agents that keep the fleet: who they are, and when they last said that they live."""

from collections.abc import Collection
from typing import Protocol

from garrison.store.records import AgentRecord

__all__ = ["AgentStore"]


class AgentStore(Protocol):
    def beat(self, agent: AgentRecord) -> None:
        """Record that an agent lives; `token` says which."""

    def agents(self) -> list[AgentRecord]:
        """Return all agents on record, the longest at work first. One that was killed stays on record."""

    def drop_agents(self, tokens: Collection[str]) -> None:
        """Remove agents from the record."""
