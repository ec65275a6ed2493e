from dataclasses import replace
from datetime import UTC, datetime

import pytest

from garrison.base.errors import UsageError
from garrison.fleet.manifest.dump import dump_manifest, manifest_body
from garrison.fleet.manifest.load import load_declaration
from garrison.fleet.observe.record_sighting import last_sighting
from garrison.fleet.plan.planner import plan
from garrison.fleet.report.extract import extract
from garrison.fleet.report.inventory import take_stock
from garrison.fleet.values.declaration import ADAPTER_TYPE, AdapterDeclaration, Declaration, Policy
from garrison.fleet.values.plan import ActionKind
from garrison.fleet.values.target import TargetSpec
from garrison.store.records import Key, Operation, Resource, StackRecord, TargetRecord

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def declared_as(world, **changes):
    """Declare the last adapter of stack `s` otherwise than it was applied."""
    *rest, last = world.stacks["s"].adapters
    world.stacks["s"] = replace(world.stacks["s"], adapters=(*rest, replace(last, **changes)))
    return world


class World:
    """Records, as a few applies and other people have left them."""

    def __init__(self):
        self.targets, self.resources, self.stacks = {}, [], {}

    def target(self, name, *adapters, state="reachable"):
        served = [("acme/tiny", "/models/tiny", None), *((a, r, "acme/tiny") for a, r in adapters)]
        self.targets[name] = TargetRecord(
            name=name, spec=TargetSpec(name=name, base_url=f"http://{name}:8000").to_json(), declared_at=NOW,
            state=state, since=NOW, last_seen=NOW, cause="timeout" if state == "unreachable" else None,
            base="acme/tiny", served=tuple({"name": n, "root": r, "parent": p} for n, r, p in served),
        )  # fmt: skip
        return self

    def applied(self, target, name, *, stack="s", path=None, served_path=None, label=None, lost=False, **fields):
        path = path or f"/a/{name}"
        spec = AdapterDeclaration(target=target, label=label or name, lora_name=name, lora_path=path, **fields)
        self.resources.append(
            Resource(
                key=Key(target, ADAPTER_TYPE, name), stack=stack, label=spec.label,
                operation=Operation.LOST if lost else Operation.CREATED, spec=spec.to_json(),
                served_path=served_path or path, parent="acme/tiny", at=NOW,
            )
        )  # fmt: skip
        before = self.stacks.get(stack, Declaration(stack=stack, policy=Policy(on_drift="restore")))
        targets = before.targets | {target: TargetSpec.from_json(target, self.targets[target].spec)}
        self.stacks[stack] = Declaration(
            stack=stack, targets=targets, adapters=(*before.adapters, spec), policy=before.policy
        )
        return self

    def declares(self, target, name, *, stack="s", **fields):
        """An adapter that was never applied."""
        self.applied(target, name, stack=stack, **fields)
        self.resources.pop()
        return self

    def records(self):
        stacks = [StackRecord(name=n, declaration=d.to_json(), at=NOW, version=1) for n, d in self.stacks.items()]
        return stacks, list(self.targets.values()), self.resources

    def extract(self, stack=None, keep=lambda row: True, **options):
        rows = filter(keep, take_stock(*self.records(), NOW).adapters)
        return extract(rows, *self.records(), stack=stack, **options)

    def plan_of(self, declaration, **options):
        """What applying the manifest of `declaration` would do, from text to plan."""
        return plan(
            declaration,
            self.resources,
            {name: last_sighting(record) for name, record in self.targets.items()},
            known_targets=self.targets,
            declared_before=self.stacks.get(declaration.stack, Declaration(stack="")).targets,
            **options,
        )


@pytest.fixture
def read_back(tmp_path):
    def read(declaration):
        (tmp_path / "garrison.yaml").write_text(dump_manifest(declaration))
        return load_declaration([str(tmp_path / "garrison.yaml")], environ={}).declaration

    return read


def test_a_whole_stack_comes_back_and_changes_nothing(read_back):
    world = World().target("a", ("sql", "/store/1"), ("chat", "/a/chat")).target("b", ("sql", "/a/sql"))
    world.applied("a", "sql", served_path="/store/1").applied("a", "chat", base_model_name="acme/tiny")
    world.applied("b", "sql")
    found = world.extract()
    assert found.notes == ()
    declaration = read_back(found.declaration)
    assert (declaration.stack, declaration.policy.on_drift) == ("s", "restore")
    assert world.plan_of(declaration).empty


def test_a_name_invalid_in_a_manifest_is_omitted_with_a_note(read_back):
    world = World().target("a", ("my sql", "/x/sql"), ("acme/chat", "/x/chat"))
    found = world.extract()
    assert found.notes == ("omitted, no manifest can declare it: 'my sql' on a (its name contains white space)",)
    assert [one.lora_name for one in read_back(found.declaration).adapters] == ["acme/chat"]


SCENES = {
    "unmanaged": lambda: World().target("a", ("sql", "/x/sql"), ("odd$name", "/x/$HOME/a b")),
    "on-two-targets": lambda: World().target("a", ("sql", "/x/1")).target("b", ("sql", "/x/2")),
    "beside-managed": lambda: World().target("a", ("sql", "/a/sql"), ("chat", "/x")).applied("a", "sql"),
    "label-taken": lambda: World().target("a", ("sql", "/a/sql"), ("two", "/x")).applied("a", "sql", label="two"),
    "another-path": lambda: World().target("a", ("sql", "/somebody")).applied("a", "sql"),
    "lost": lambda: World().target("a").applied("a", "sql", lost=True),
    "lost-and-loaded-again": lambda: World().target("a", ("sql", "/a/sql")).applied("a", "sql", lost=True),
    "missing": lambda: World().target("a").applied("a", "sql"),
    "away": lambda: World().target("a", ("sql", "/a/sql"), state="unreachable").applied("a", "sql"),
    "3d": lambda: World().target("a", ("sql", "/a/sql")).applied("a", "sql", is_3d_lora_weight=True),
    "probe-off": lambda: World().target("a", ("sql", "/a/sql")).applied("a", "sql", probe=False),
}


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_nothing_is_sent_to_any_target(read_back, scene):
    world = scene()
    declaration = read_back(world.extract().declaration)
    planned = world.plan_of(declaration)
    assert not planned.changes_required, planned.to_json()
    assert not planned.conflicts
    quiet = {ActionKind.KEEP, ActionKind.ADOPT, ActionKind.RELEASE}
    assert {action.kind for action in planned.actions} <= quiet


def test_another_base_is_written_as_it_is(read_back):
    world = World().target("a", ("sql", "/a/sql")).applied("a", "sql")
    record = world.targets["a"]
    moved = [one | {"name": "new"} if one["parent"] is None else one | {"parent": "new"} for one in record.served]
    world.targets["a"] = TargetRecord(
        **{n: getattr(record, n) for n in record.__slots__} | {"base": "new", "served": tuple(moved)}
    )
    planned = world.plan_of(read_back(world.extract().declaration))
    assert not planned.changes_required, planned.to_json()


def test_an_adapter_that_is_not_served_is_omitted_with_a_note():
    found = World().target("a", ("chat", "/a/chat")).applied("a", "sql", lost=True).applied("a", "chat").extract()
    assert [spec.lora_name for spec in found.declaration.adapters] == ["chat"]
    assert "omitted, not served: sql on a" in found.notes[0]


def test_a_label_that_two_would_have_stays_with_the_managed_one(read_back):
    world = World().target("a", ("zed", "/a/zed"), ("two", "/x")).applied("a", "zed", label="two")
    planned = world.plan_of(read_back(world.extract().declaration))
    assert {action.name: action.kind for action in planned.actions} == {
        "zed": ActionKind.KEEP,
        "two": ActionKind.ADOPT,
    }


def test_a_part_keeps_the_policy_of_its_stack():
    world = World().target("a", ("sql", "/a/sql"), ("chat", "/a/chat")).applied("a", "sql").applied("a", "chat")
    assert world.extract(keep=lambda row: row.name == "sql").declaration.policy.on_drift == "restore"


def test_a_part_says_how_it_is_applied(read_back):
    world = World().target("a", ("sql", "/a/sql"), ("chat", "/a/chat")).applied("a", "sql").applied("a", "chat")
    found = world.extract(keep=lambda row: row.name == "sql")
    assert "--mode patch" in found.notes[0]
    assert not world.plan_of(read_back(found.declaration), mode="patch").changes_required
    assert world.plan_of(read_back(found.declaration)).changes_required  # which is why it is said


def test_a_stack_is_chosen_among_several():
    world = World().target("a", ("sql", "/a/sql"), ("chat", "/a/chat"), ("x", "/x"))
    world.applied("a", "sql", stack="one").applied("a", "chat", stack="two")
    with pytest.raises(UsageError) as caught:
        world.extract()
    assert "--stack one" in caught.value.hint
    found = world.extract(stack="two").declaration
    assert (found.stack, [spec.lora_name for spec in found.adapters]) == ("two", ["chat", "x"])
    found = world.extract(stack="new").declaration
    assert (found.stack, [spec.lora_name for spec in found.adapters]) == ("new", ["x"])


def test_only_unmanaged_ones_make_a_new_stack():
    assert World().target("a", ("x", "/x")).extract().declaration.stack == "extracted"


OWED = {
    "never loaded, away": lambda: World().target("a", state="unreachable").declares("a", "sql"),
    "never loaded": lambda: World().target("a").declares("a", "sql"),
    "beside one that is served": lambda: World().target("a", ("x", "/a/x")).applied("a", "x").declares("a", "sql"),
    "another path, away": lambda: declared_as(
        World().target("a", ("sql", "/a/sql"), state="unreachable").applied("a", "sql"), lora_path="/a/v2"
    ),
    "another path": lambda: declared_as(World().target("a", ("sql", "/a/sql")).applied("a", "sql"), lora_path="/a/v2"),
    "on demand": lambda: World().target("a").declares("a", "sql", on_demand=True),
}


@pytest.mark.parametrize("scene", OWED.values(), ids=OWED)
def test_what_is_owed_stays_owed_and_nothing_else_is_planned(read_back, scene):
    world = scene()
    found = world.extract()
    declaration = read_back(found.declaration)
    assert set(declaration.adapters) == set(world.stacks["s"].adapters)
    before, after = world.plan_of(world.stacks["s"]), world.plan_of(declaration)
    assert [(one.kind, one.key, one.changes) for one in after.actions] == [
        (one.kind, one.key, one.changes) for one in before.actions
    ]
    assert found.owed == before.changes_required
    assert any("owed" in note for note in found.notes) == found.owed


def test_an_unload_that_is_owed_is_not_taken_back(read_back):
    world = World().target("a", ("sql", "/a/sql"), ("old", "/a/old"), state="unreachable")
    world.applied("a", "old").applied("a", "sql")
    world.stacks["s"] = replace(world.stacks["s"], adapters=world.stacks["s"].adapters[1:])
    found = world.extract()
    assert [one.lora_name for one in read_back(found.declaration).adapters] == ["sql"]
    assert found.notes == ("omitted, no longer declared and still to be unloaded: old on a",)


def test_what_nobody_owns_is_not_added_unasked():
    world = World().target("a", ("sql", "/a/sql"), ("stranger", "/x")).applied("a", "sql")
    found = world.extract(strangers=False)
    assert [one.lora_name for one in found.declaration.adapters] == ["sql"]
    (note,) = found.notes
    assert "status:unmanaged" in note
    new = world.extract(stack="new", strangers=False)
    assert [one.lora_name for one in new.declaration.adapters] == ["stranger"], "there is nothing else to mean"


def test_a_selection_stays_a_selection(read_back):
    world = World()
    for name in ("a", "b"):
        world.target(name, ("sql", "/a/sql"))
        spec = {**world.targets[name].spec, "labels": {"site": "lab"}}
        world.targets[name] = replace(world.targets[name], spec=spec)
        world.applied(name, "sql", select=(("site", "lab"),))
    body = manifest_body(world.extract().declaration)
    assert body["adapters"] == {"sql": {"select": {"site": "lab"}, "lora_path": "/a/sql"}}
    assert read_back(world.extract().declaration).adapters == world.stacks["s"].adapters
    part = manifest_body(world.extract(keep=lambda row: row.target == "a").declaration)
    assert part["adapters"] == {"sql": {"target": "a", "lora_path": "/a/sql"}}, "the label selects two"


HOSTILE = {
    "line feed": ("a\nb", "/x"),
    "tab": ("a\tb", "/x"),
    "escape": ("a\x1b[2J", "/x"),
    "300 characters": ("x" * 300, "/x"),
    "space before": (" a", "/x"),
    "line separator": ("a\u2028b", "/x"),
    "path with a line feed": ("a", "/x\ny"),
    "relative path": ("a", "./x"),
    "dot": ("a", "."),
    "empty path": ("a", ""),
    "endless path": ("a", "/" * 5000),
}


@pytest.mark.parametrize(("name", "path"), HOSTILE.values(), ids=HOSTILE)
def test_what_the_loader_refuses_is_not_written(read_back, name, path):
    found = World().target("a", (name, path), ("fine", "/y")).extract()
    assert [one.lora_name for one in read_back(found.declaration).adapters] == ["fine"]
    (note,) = found.notes
    assert note.startswith("omitted, no")
    assert note.isprintable()
    assert len(note) < 250


@pytest.mark.parametrize("name", ["true", "~", "a:b", "- x"[2:], "${HOME}", "x" * 200, "'q'", "acme/é"])
def test_what_the_loader_takes_is_written(read_back, name):
    found = World().target("a", (name, "/y")).target("b", (name, "/z")).extract()
    assert [one.lora_name for one in read_back(found.declaration).adapters] == [name, name]


@pytest.mark.parametrize("stack", ["a\nb", "x" * 201, " "])
def test_a_stack_that_no_manifest_can_name(stack):
    with pytest.raises(UsageError, match="name of a stack"):
        World().target("a", ("x", "/x")).extract(stack=stack)
