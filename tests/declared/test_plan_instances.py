"""What an apply does with instances: the table in `declared.plan`."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.settings import Settings
from garrison.declared.plan import Existing, plan_instances
from garrison.declared.recorded import RecordedInstances
from garrison.fleet.instance_dialer import NotRunning
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.instance import InstanceDeclaration
from garrison.fleet.values.instance_change import InstanceChange, InstanceKind
from garrison.fleet.values.target import InstancePlace
from garrison.instances.stored import spec_from_json
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import State
from garrison.net.endpoint import Secret
from garrison.net.thread_pool import ThreadPool
from garrison.store.instance_store import InstanceRow
from garrison.testing.clock import FakeClock
from garrison.testing.store import MemoryStore

SPEC = InstanceSpec(name="qwen", options={"model": "m", "max_model_len": 4096}, stack="box")


def there(spec: InstanceSpec = SPEC, state: State = State.STOPPED, node: str | None = None) -> Existing:
    return Existing(spec=spec, state=state, node=node)


def changes(declared: list[InstanceSpec], existing: list[Existing], **options: Any) -> list[InstanceChange]:
    return list(plan_instances([(None, one) for one in declared], existing, "box", **options))


TABLE = {
    "declared, not there": ([SPEC], [], "create"),
    "as declared": ([SPEC], [there()], "unchanged"),
    "another option": ([SPEC], [there(replace(SPEC, options={"model": "n"}))], "update"),
    "of no stack": ([SPEC], [there(replace(SPEC, stack=None))], "conflict"),
    "of another stack": ([SPEC], [there(replace(SPEC, stack="lab"))], "conflict"),
    "no longer declared": ([], [there()], "delete"),
    "of nobody, not declared": ([], [there(replace(SPEC, stack=None))], None),
    "of another stack, not declared": ([], [there(replace(SPEC, stack="lab"))], None),
}


@pytest.mark.parametrize(("declared", "existing", "kind"), TABLE.values(), ids=TABLE)
def test_the_table(declared: list[InstanceSpec], existing: list[Existing], kind: str | None) -> None:
    assert [str(one.kind) for one in changes(declared, existing)] == ([] if kind is None else [kind])


def test_a_conflict_says_how_to_go_on() -> None:
    (mine,) = changes([SPEC], [there(replace(SPEC, stack=None))])
    (theirs,) = changes([SPEC], [there(replace(SPEC, stack="lab"))], adopt=True)
    assert mine.failure is not None
    assert theirs.failure is not None
    assert "--adopt" in (mine.failure.hint or "")
    assert "belongs to stack lab" in theirs.failure.message


def test_adopting_takes_over_what_belongs_to_no_stack() -> None:
    (one,) = changes([SPEC], [there(replace(SPEC, stack=None), State.RUNNING)], adopt=True)
    assert (one.kind, one.adopted, one.changes, one.needs_restart) == (InstanceKind.UPDATE, True, (), False)
    assert one.spec is not None
    assert spec_from_json("qwen", one.spec) == SPEC


def test_a_patch_deletes_nothing() -> None:
    assert changes([], [there()], mode="patch") == []


def test_the_same_name_on_another_node_is_another_instance() -> None:
    made = plan_instances([("gpu-2", SPEC)], [there()], "box")
    assert [(str(one.kind), one.node) for one in made] == [("delete", None), ("create", "gpu-2")]


RESTARTS = {
    "an option, running": ({"options": {"model": "m"}}, State.RUNNING, True),
    "an option, sleeping": ({"options": {"model": "m"}}, State.SLEEPING, True),
    "an option, stopped": ({"options": {"model": "m"}}, State.STOPPED, False),
    "a variable": ({"env": {"A": "1"}}, State.RUNNING, True),
    "a secret": ({"secrets": {"A": Secret("env", "B")}}, State.RUNNING, True),
    "a preset": ({"engine": "llama_cpp", "preset_ini": "[x]"}, State.RUNNING, True),
    "how long it is kept": ({"idle_seconds": 60.0}, State.RUNNING, False),
    "a priority": ({"priority": 3}, State.RUNNING, False),
}


@pytest.mark.parametrize(("fields", "state", "restarts"), RESTARTS.values(), ids=RESTARTS)
def test_what_has_to_restart(fields: dict[str, Any], state: State, restarts: bool) -> None:
    (one,) = changes([replace(SPEC, **fields)], [there(state=state)])
    assert one.needs_restart is restarts
    assert one.state == state


def test_changes_are_named_as_in_a_manifest_and_show_no_secret() -> None:
    old = replace(SPEC, env={"HF_TOKEN": "hf_old", "A": "1"}, idle_seconds=60.0)
    new = replace(SPEC, options={"model": "m"}, env={"HF_TOKEN": "hf_new"}, secrets={"B": Secret("env", "C")})
    (one,) = changes([new], [there(old)])
    assert [(change.field, change.before, change.after) for change in one.changes] == [
        ("options.max_model_len", "4096", None),
        ("env.A", "1", None),
        ("env.HF_TOKEN", "***", "***"),
        ("env.B", None, '{"env": "C"}'),
        ("idle", "1m", None),
    ]


PRESET = "[*]\nc = 512\n[one]\nmodel = /m/1\nhf-token = hf_abcdefgh\n"
PRESETS = {
    "new": (None, [("*", None, "c = 512"), ("one", None, "model = /m/1, hf-token = ***")]),
    "another value": (PRESET.replace("512", "1"), [("*", "c = 1", "c = 512")]),
    "another section": (PRESET + "[two]\n", [("two", "no keys", None)]),
}


@pytest.mark.parametrize(("before", "expected"), PRESETS.values(), ids=PRESETS)
def test_presets_are_compared_by_section(
    before: str | None, expected: list[tuple[str, str | None, str | None]]
) -> None:
    router = InstanceSpec(name="r", engine="llama_cpp", stack="box", preset_ini=PRESET)
    (one,) = changes([router], [there(replace(router, preset_ini=before))])
    assert (one.kind, one.summary) == (InstanceKind.UPDATE, "llama_cpp  router")
    assert [(change.field, change.before, change.after) for change in one.changes] == [
        (f"preset_ini[{name}]", old, new) for name, old, new in expected
    ]


def test_a_preset_that_differs_in_its_comments_is_written_anew() -> None:
    router = InstanceSpec(name="r", engine="llama_cpp", stack="box", preset_ini=PRESET)
    (one,) = changes([router], [there(replace(router, preset_ini="# why\n" + PRESET))])
    assert one.kind is InstanceKind.UPDATE
    assert "hf_abcdefgh" not in str(one.changes)


NAMES = st.sampled_from(["a", "b", "c"])
SPECS = st.dictionaries(NAMES, st.integers(0, 2), max_size=3).map(
    lambda found: [InstanceSpec(name=name, stack="box", priority=number) for name, number in found.items()]
)
OTHERS = st.dictionaries(NAMES, st.tuples(st.sampled_from(["box", "lab", None]), st.sampled_from(State))).map(
    lambda found: [there(InstanceSpec(name=name, stack=stack), state) for name, (stack, state) in found.items()]
)


@given(SPECS, OTHERS)
def test_carrying_a_plan_out_leaves_nothing_to_do_and_others_alone(
    declared: list[InstanceSpec], existing: list[Existing]
) -> None:
    after = {one.spec.name: one for one in existing}
    for change in changes(declared, existing):
        if change.kind is InstanceKind.DELETE:
            assert after.pop(change.name).spec.stack == "box"
        elif change.acts:
            assert change.spec is not None
            assert change.name not in after or after[change.name].spec.stack == "box"
            after[change.name] = there(spec_from_json(change.name, change.spec))
    again = changes(declared, list(after.values()))
    assert {str(one.kind) for one in again} <= {"unchanged", "conflict"}
    kept = [one for one in existing if one.spec.stack != "box"]
    assert all(after[one.spec.name] is one for one in kept)


# --- without a server


def row(store: MemoryStore, name: str, state: str, node: str = "main", **spec: Any) -> None:
    now = FakeClock().now()
    store.create_instance(
        InstanceRow(name=name, node=node, spec=spec, state=state, since=now, reason="", created=now, updated=now)
    )


async def test_the_database_is_enough_for_a_plan() -> None:
    store = MemoryStore()
    row(store, "qwen", "running", stack="box", options={"model": "old"})
    row(store, "gone", "stopped", node="gpu-2", stack="box")
    row(store, "free", "stopped")
    recorded = RecordedInstances(store, Settings(), ThreadPool("test"))
    declared = Declaration(stack="box", instances={"qwen": InstanceDeclaration(name="qwen", model="m", node="main")})
    before = {"gone": InstanceDeclaration(name="gone", model="m", node="gpu-2")}
    made = await recorded.plan(declared, before, mode="reconcile", adopt=False)
    assert [(str(one.kind), one.name, one.node, one.needs_restart) for one in made] == [
        ("delete", "gone", "gpu-2", False),
        ("update", "qwen", None, True),
    ]


async def test_without_a_server_no_instance_has_an_address() -> None:
    store = MemoryStore()
    row(store, "off", "stopped")
    row(store, "on", "running")
    recorded = RecordedInstances(store, Settings(), ThreadPool("test"))
    found = [await recorded.find(InstancePlace(name)) for name in ("off", "on", "none")]
    assert found == [
        NotRunning("instance off is stopped"),
        NotRunning("instance on is running, and no server is here to ask it", known=False),
        NotRunning("instance none does not exist yet"),
    ]
