"""What a target holds, from the record and from looks at it that are older or newer."""

from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from garrison.fleet.values.declaration import ADAPTER_TYPE
from garrison.fleet.values.observation import Served, Sighting
from garrison.server.adapters.places import held
from garrison.server.adapters.records import AdapterRecords
from garrison.store.records import Changes, Key, Operation, Resource
from garrison.testing.clock import FakeClock


class Stage:
    """The target `edge`, and what is on record there."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.recorded: list[Resource] = []
        store = SimpleNamespace(
            changes=lambda _since: Changes(revision=1, targets=frozenset({"edge"})), resources=self._resources
        )
        fleet: Any = SimpleNamespace(store=store, read=self._read, clock=self.clock)
        self.records = AdapterRecords(fleet, ())

    def _resources(self, **_wanted: Any) -> list[Resource]:
        return self.recorded

    async def _read(self, call: Callable[..., Any], *args: Any, **given: Any) -> Any:
        return call(*args, **given)

    async def record(self, *names: str) -> None:
        """Have these on record from now on, and read that."""
        self.clock.advance(1)
        self.recorded = [
            Resource(
                key=Key("edge", ADAPTER_TYPE, name), label=name, spec={}, stack="lab", parent="base",
                at=self.clock.now(), served_path=f"/{name}", operation=Operation.CREATED,
            )
            for name in names
        ]  # fmt: skip
        await self.records.read((), ())

    def look(self) -> datetime:
        self.clock.advance(1)
        return self.clock.now()

    def saw(self, at: datetime, *names: str) -> None:
        self.clock.advance(1)
        served = {name: Served(name, f"/{name}", "base") for name in names}
        self.records.saw(Sighting(target="edge", at=at, served=served))

    def held(self) -> set[str]:
        return held("edge", self.records.known())


async def test_what_was_unloaded_is_gone_although_it_was_seen_before() -> None:
    stage = Stage()
    await stage.record("a", "b")
    stage.saw(stage.look(), "a", "b", "theirs")
    assert stage.held() == {"a", "b", "theirs"}
    await stage.record("a")
    assert stage.held() == {"a", "theirs"}


async def test_a_look_that_began_before_says_nothing_about_it() -> None:
    stage = Stage()
    await stage.record("a", "b")
    began = stage.look()
    await stage.record("a")
    stage.saw(began, "a", "b")
    assert stage.held() == {"a"}


async def test_what_is_seen_afterwards_is_somebody_elses() -> None:
    stage = Stage()
    await stage.record("a", "b")
    await stage.record("a")
    stage.saw(stage.look(), "a", "b")
    assert stage.held() == {"a", "b"}
    await stage.record("a", "b")
    await stage.record("b")
    assert stage.held() == {"b"}


def test_before_anything_was_read() -> None:
    stage = Stage()
    stage.saw(datetime(2026, 1, 1, tzinfo=UTC), "theirs")
    assert stage.held() == {"theirs"}
