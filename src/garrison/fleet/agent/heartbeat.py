"""The agent's signs of life in the store, by which `garrison status` tells whether it works."""

import asyncio
import contextlib
import secrets
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta

from garrison.base.errors import GarrisonError
from garrison.fleet.agent.state import AgentState
from garrison.fleet.context import Fleet
from garrison.fleet.execute.lease import is_dead, this_process
from garrison.fleet.report.agents import MOST_AHEAD
from garrison.store.records import AgentRecord

__all__ = ["BEAT_SECONDS", "Heartbeat"]

BEAT_SECONDS = 15.0
_KEPT = timedelta(days=7)
"""How long an agent that was killed, or whose machine is gone, stays on record."""
_LAST_SECONDS = 5.0
"""Deadline for taking the agent off the record when it ends."""


class Heartbeat:
    """Says that this agent lives, and when it last looked at a target.

    Args:
        stacks: the stacks that it keeps; None for all.
    """

    def __init__(self, fleet: Fleet, state: AgentState, stacks: Collection[str] | None) -> None:
        self._fleet = fleet
        self._state = state
        now = fleet.clock.now()
        self._agent = AgentRecord(
            token=secrets.token_hex(16),
            holder=this_process("agent"),
            since=now,
            alive_at=now,
            stacks=None if stacks is None else tuple(sorted(stacks)),
        )
        self._due = float("-inf")
        self._begun = False

    async def beat(self) -> None:
        """Say that the agent lives, if that is due.

        Raises:
            GarrisonError: the store failed.
        """
        first_look = self._agent.looked_at is None and self._state.looked_at is not None
        if self._fleet.clock.monotonic() < self._due and not first_look:
            return
        if not self._begun:
            await self._forget_the_dead()
            self._begun = True
        self._agent = replace(self._agent, alive_at=self._fleet.clock.now(), looked_at=self._state.looked_at)
        await self._fleet.db(self._fleet.store.beat, self._agent)
        self._due = self._fleet.clock.monotonic() + BEAT_SECONDS

    async def close(self) -> None:
        """Take the agent off the record. One that cannot be taken off is told from one that lives by its last sign."""
        if not self._begun:
            return
        with contextlib.suppress(GarrisonError, TimeoutError):
            async with asyncio.timeout(_LAST_SECONDS):
                await self._fleet.db(self._fleet.store.drop_agents, [self._agent.token])

    async def _forget_the_dead(self) -> None:
        """Drop agents of this machine whose processes are gone, and any that have been silent for long, or that had a
        wrong clock: one that lives is on record again with its next sign of life."""
        now = self._fleet.clock.now()
        long_ago, ahead = now - _KEPT, now + MOST_AHEAD
        known = await self._fleet.read(self._fleet.store.agents)
        over = [one.token for one in known if is_dead(one.holder) or not long_ago <= one.alive_at <= ahead]
        if over:
            await self._fleet.db(self._fleet.store.drop_agents, over)
