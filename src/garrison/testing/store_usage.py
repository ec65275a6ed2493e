"""Usage by day, key and route in the in-memory store."""

from collections.abc import Collection, Sequence
from datetime import date, datetime

from garrison.store.usage_store import Usage, UsageBatch, UsageBy, UsageRow
from garrison.testing.store_state import MemoryState, locked

__all__ = ["UsageInMemory"]


class UsageInMemory(MemoryState):
    """The part of `MemoryStore` that knows usage."""

    @locked
    def add_usage(self, batches: Sequence[UsageBatch], at: datetime) -> None:
        for batch in batches:
            if batch.number <= self._usage_batches.get(batch.source, (0, at))[0]:
                continue
            self._usage_batches[batch.source] = batch.number, at
            for one in batch.rows:
                assert one.day is not None
                assert one.key_id is not None
                assert one.route is not None
                key = (one.day, one.key_id, one.route)
                self._usage[key] = self._usage.get(key, Usage()) + one.usage

    @locked
    def usage(
        self,
        first: date,
        last: date,
        *,
        by: Collection[UsageBy],
        key_id: int | None = None,
        route: str | None = None,
        limit: int = 1000,
    ) -> list[UsageRow]:
        found: dict[tuple[date | None, int | None, str | None], Usage] = {}
        for (day, number, name), used in sorted(self._usage.items(), key=lambda pair: pair[0]):
            if first <= day <= last and key_id in (None, number) and route in (None, name):
                key = (
                    day if UsageBy.DAY in by else None,
                    number if UsageBy.KEY in by else None,
                    name if UsageBy.ROUTE in by else None,
                )
                found[key] = found.get(key, Usage()) + used
        rows = [UsageRow(day=key[0], key_id=key[1], route=key[2], usage=used) for key, used in found.items()]
        rows.sort(key=lambda one: (one.day or date.min, one.key_id or 0, one.route or ""))
        return rows[:limit]

    @locked
    def prune_usage(self, before: datetime) -> int:
        size = len(self._usage) + len(self._usage_batches)
        self._usage = {key: used for key, used in self._usage.items() if key[0] >= before.date()}
        self._usage_batches = {name: one for name, one in self._usage_batches.items() if one[1] >= before}
        return size - len(self._usage) - len(self._usage_batches)
