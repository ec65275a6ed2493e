"""Agents and their signs of life."""

from collections.abc import Collection
from dataclasses import asdict

from sqlalchemy import Connection, delete, insert, select, update

from garrison.store.records import AgentRecord, Holder
from garrison.store.sql.schema import agents

__all__ = ["all_agents", "beat", "drop"]


def beat(connection: Connection, agent: AgentRecord) -> None:
    values = {"alive_at": agent.alive_at, "looked_at": agent.looked_at}
    if connection.execute(update(agents).where(agents.c.token == agent.token).values(values)).rowcount:
        return
    stacks = None if agent.stacks is None else list(agent.stacks)
    known = {"token": agent.token, "holder": asdict(agent.holder), "since": agent.since, "stacks": stacks}
    connection.execute(insert(agents).values(known | values))


def all_agents(connection: Connection) -> list[AgentRecord]:
    rows = connection.execute(select(agents).order_by(agents.c.since, agents.c.token))
    return [
        AgentRecord(
            token=row.token,
            holder=Holder(**row.holder),
            since=row.since,
            alive_at=row.alive_at,
            looked_at=row.looked_at,
            stacks=None if row.stacks is None else tuple(row.stacks),
        )
        for row in rows
    ]


def drop(connection: Connection, tokens: Collection[str]) -> None:
    for token in tokens:
        connection.execute(delete(agents).where(agents.c.token == token))
