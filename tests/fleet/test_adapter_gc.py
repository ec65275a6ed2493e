from datetime import UTC, datetime
from pathlib import Path

import pytest
from aged_files import aged

from garrison.fleet.artifacts import gc as adapter_gc
from garrison.fleet.artifacts.entry import Entry
from garrison.fleet.artifacts.gc import GRACE_SECONDS, Kept, collect_all, read_pins, sort_out
from garrison.fleet.artifacts.pins import Pin
from garrison.fleet.artifacts.store import AdapterStore
from garrison.fleet.values.declaration import ADAPTER_TYPE
from garrison.models.adapters.adapter import adapter_digest
from garrison.store.records import (
    ActionRecord,
    ActionState,
    CommandRecord,
    Key,
    Operation,
    Resource,
    StackRecord,
    TargetRecord,
)
from garrison.testing.clock import FakeClock
from garrison.testing.store import MemoryStore

D1, D2, D3 = "1" * 64, "2" * 64, "3" * 64


def test_sort_out():
    pin = Pin("edge", "sql", "served")
    entries = [Entry(Path("/s", name), 1, used) for name, used in ((D1, 0), (f"{D1}-2", 0), (D2, 0), (D3, 11))]
    going, kept = sort_out(entries, {D1: [pin]}, fresh_after=10)
    assert going == [entries[2]]
    assert kept == [Kept(entries[0], (pin,)), Kept(entries[1], (pin,)), Kept(entries[3], ())]


class World:
    """A store of files, a database and a clock."""

    def __init__(self, data_dir, adapter):
        self.clock = FakeClock(datetime.now(UTC))
        self.database = MemoryStore()
        self.data_dir = data_dir
        self.adapter = adapter
        self.files = AdapterStore(data_dir / "adapter-store", self.database.identity(), clock=self.clock)

    def staged(self, seed):
        made = self.adapter(f"made{seed}", seed=seed)
        aged(made)
        path = self.files.stage(made, adapter_digest(made)).path
        for file in made.iterdir():
            file.unlink()  # so that the store has the only link
        return path

    def later(self, seconds=GRACE_SECONDS + 1):
        self.clock.advance(seconds)

    def serves(self, name, *paths, state="reachable"):
        served = tuple({"name": f"a{n}", "root": path, "parent": "acme/tiny"} for n, path in enumerate(paths))
        record = TargetRecord(
            name=name, spec={"base_url": "http://127.0.0.1:1"}, declared_at=self.clock.now(), state=state,
            since=self.clock.now(), served=served,
        )  # fmt: skip
        self.declare(targets=[record])
        self.database.sight([record])

    def declare(self, targets=(), actions=()):
        now = self.clock.now()
        stack = StackRecord(name="s", declaration={}, at=now)
        command = CommandRecord(id=f"c{now.timestamp()}", kind="apply", stack="s", started_at=now, by="me")
        self.database.declare(stack, targets, command, [a(command.id) for a in actions])
        return command

    def collect(self, **options):
        (done,) = collect_all(self.database, self.data_dir, self.clock, **options)
        return done


@pytest.fixture
def world(tmp_path, adapter):
    return World(tmp_path / "data", adapter)


def test_what_is_served_stays_and_the_rest_goes(world):
    used, unused = world.staged(1), world.staged(2)
    world.serves("edge", used, state="unreachable")
    world.later()
    done = world.collect()
    assert [entry.path for entry in done.freed] == [Path(unused)]
    assert done.bytes > 1000
    ((kept),) = done.kept
    assert (str(kept.entry.path), kept.pins[0].target, kept.pins[0].why) == (used, "edge", "served")
    assert kept.pins[0].unreachable_since is not None
    assert Path(used).exists()
    assert not Path(unused).exists()
    assert world.collect().freed == ()


def test_a_dry_run_removes_nothing(world):
    path = world.staged(1)
    world.later()
    assert [entry.path for entry in world.collect(dry_run=True).freed] == [Path(path)]
    assert Path(path).exists()


def test_what_was_just_staged_stays(world):
    path = world.staged(1)
    world.later(GRACE_SECONDS - 1)
    (kept,) = world.collect().kept
    assert (str(kept.entry.path), kept.pins) == (path, ())


def test_what_an_owner_would_load_again_stays(world):
    path = world.staged(1)
    spec = {"target": "edge", "lora_name": "sql", "digest": None}
    world.database.put(
        [
            Resource(
                key=Key("edge", ADAPTER_TYPE, "sql"),
                stack="s",
                label="sql",
                operation=Operation.LOST,
                spec=spec,
                served_path=path,
                parent=None,
                at=world.clock.now(),
            )
        ]
    )
    world.later()
    assert world.collect().freed == ()


def test_what_a_running_command_needs_stays_until_it_ends(world):
    old, new = world.staged(1), world.staged(2)
    key = Key("edge", ADAPTER_TYPE, "sql")

    def update(command):
        return ActionRecord(
            command=command, seq=1, key=key, label="sql", kind="update", reason="", state=ActionState.STARTED,
            before={"served_path": old}, after={"served_path": new},
        )  # fmt: skip

    command = world.declare(actions=[update])
    world.later()
    assert {pin.why for one in read_pins(world.database).values() for pin in one} == {"running"}
    assert world.collect().freed == ()
    world.database.finish(CommandRecord(**{**_fields(command), "state": "succeeded"}))
    assert len(world.collect().freed) == 2


def _fields(record):
    return {name: getattr(record, name) for name in record.__slots__}


def test_the_store_of_another_database_is_left_alone(world):
    path = world.staged(1)
    AdapterStore(world.files.root, "somebody", clock=world.clock).stage(Path(path), Path(path).name)
    world.later()
    done = world.collect()
    assert "another database staged here too" in done.refused
    assert str(world.files.owners_file) in done.refused
    assert Path(path).exists()


def test_a_directory_that_nobody_staged_into_is_left_alone(world):
    (world.files.root / D1).mkdir(parents=True)
    world.later()
    assert world.collect().freed == ()
    assert (world.files.root / D1).exists()


def test_without_a_store_there_is_nothing_to_do(world):
    assert collect_all(world.database, world.data_dir, world.clock) == []


def test_declared_stores_are_looked_at_too(world, tmp_path):
    (tmp_path / "shared").mkdir()
    spec = {"base_url": "http://10.0.0.2:8000", "adapter_store": str(tmp_path / "shared")}
    world.declare(targets=[TargetRecord(name="far", spec=spec, declared_at=world.clock.now())])
    assert [done.root for done in collect_all(world.database, world.data_dir, world.clock)] == [tmp_path / "shared"]


def test_what_a_killed_one_left_goes(world):
    world.staged(1)
    (world.files.root / ".trash.x").mkdir()
    (world.files.root / ".staging.x").mkdir()
    assert world.collect().leftovers == 1
    world.later(GRACE_SECONDS + 60)
    assert world.collect().leftovers == 1
    assert not list(world.files.root.glob(".staging.*"))


def test_an_apply_between_the_pins_and_the_removal_keeps_its_entry(world, monkeypatch):
    """It found the old entry before the removal took the lock: that made it fresh."""
    path = world.staged(1)
    world.later()
    real = adapter_gc.read_pins

    def pins_then_apply(database):
        found = real(database)
        assert world.files.stage(Path("/gone"), Path(path).name).how == "there"
        return found

    monkeypatch.setattr(adapter_gc, "read_pins", pins_then_apply)
    assert world.collect().freed == ()


def test_two_at_once(world):
    """The second finds nothing left, whether or not the first has deleted its files by then."""
    path = Path(world.staged(1))
    world.later()
    with world.files.locked():
        world.files.trash(path)
    done = world.collect()
    assert (done.freed, done.leftovers) == ((), 1)


def test_the_shape_of_json(world):
    used, unused = world.staged(1), world.staged(2)
    world.serves("edge", used)
    world.later()
    body = world.collect(dry_run=True).to_json()
    assert body.keys() == {"store", "refused", "bytes_freed", "leftovers", "freed", "kept"}
    assert body["freed"] == [{"entry": Path(unused).name, "bytes": body["bytes_freed"]}]
    pin = {"target": "edge", "name": "a0", "why": "served", "unreachable_since": None}
    assert body["kept"] == [{"entry": Path(used).name, "fresh": False, "for": [pin]}]
