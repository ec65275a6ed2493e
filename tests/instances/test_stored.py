"""Specs as JSON, and instances in a store."""

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from garrison.instances.stored import StoredInstances, spec_from_json, spec_to_json
from garrison.instances.values.record import Costs, InstanceRecord
from garrison.instances.values.sleep import SleepCost, SleepRecord
from garrison.instances.values.spec import CustomServer, InstanceSpec
from garrison.instances.values.state import Condition, State
from garrison.testing.store import MemoryStore

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SPECS = st.builds(
    InstanceSpec,
    name=st.just("a"),
    engine=st.sampled_from(["vllm", "custom", "llama_cpp"]),
    preset_ini=st.none() | st.text(max_size=9),
    options=st.dictionaries(st.text(max_size=5), st.one_of(st.none(), st.integers(), st.text(max_size=5)), max_size=3),
    custom=st.one_of(st.none(), st.just(CustomServer(("x", "{port}"), "/ready", frozenset({"chat"})))),
    executable=st.lists(st.text(max_size=3), max_size=2).map(tuple),
    container=st.one_of(st.none(), st.booleans()),
    env=st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    port=st.one_of(st.none(), st.integers(1, 65535)),
    idle_seconds=st.one_of(st.none(), st.floats(0, 1e6)),
    pin=st.booleans(),
    preload=st.booleans(),
    sleep_level=st.none() | st.integers(0, 2),
    devices=st.lists(st.text(max_size=3), max_size=2).map(tuple),
    stack=st.one_of(st.none(), st.text(max_size=3)),
)


@given(SPECS)
def test_a_spec_survives_the_database(spec: InstanceSpec) -> None:
    assert spec_from_json("a", spec_to_json(spec)) == spec


def test_fields_of_a_later_program_are_ignored() -> None:
    assert spec_from_json("a", {"pin": True, "colour": "red"}) == InstanceSpec(name="a", pin=True)


def test_a_record_survives_the_store() -> None:
    store = StoredInstances(MemoryStore(), "box")
    record = InstanceRecord(0, InstanceSpec(name="a"), Condition(State.STOPPED, NOW, "created"), NOW, NOW)
    made = store.create(record, [])
    changed = replace(made, wanted=True, port=8000, costs=Costs(1.5, {"loading": 1.0}, {"host": 7}))
    changed = replace(changed, sleep=SleepRecord(2, costs={2: SleepCost(1.0, 2.0)}, quarantine={"m": "it failed"}))
    store.save([changed], [])
    assert store.load() == [changed]
    store.delete(changed, [])
    assert store.load() == []
