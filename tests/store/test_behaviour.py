"""What every store does: in memory, on SQLite, on PostgreSQL."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import MappingProxyType

import pytest
from store_samples import (
    START,
    action,
    an_agent,
    at,
    command,
    done,
    event,
    key,
    lease,
    resource,
    save,
    seen,
    stack,
    target,
)

from garrison.base.errors import ConflictError, InternalError
from garrison.store.fleet_store import FleetStore
from garrison.store.instance_store import InstanceRow
from garrison.store.records import ActionResult, ActionState, CommandState, Event, Observation, Operation


def names(found):
    return [one.name for one in found]


def facts(found):
    """Events without their ids."""
    return [replace(one, id=0) for one in found]


class TestStacks:
    def test_declare_stores_the_intention_in_one_step(self, store: FleetStore):
        actions = [action(1), action(0, before={"served_path": "/old"})]
        stored = store.declare(stack(command="c1"), [target("b"), target("a")], command(), actions, [event()])
        assert stored == stack(command="c1", version=1)
        assert store.stack("cabinet") == stored
        assert store.stacks() == [stored]
        assert store.targets() == [target("a"), target("b")]
        assert store.commands() == [command()]
        assert store.actions("c1") == [actions[1], actions[0]]
        assert facts(store.events()) == [event()]

    def test_each_declaration_counts_the_version_up(self, store: FleetStore):
        store.declare(stack(), [], command("c1"), [])
        stored = store.declare(stack(declaration={"targets": []}, ending=True, version=40), [], command("c2"), [])
        assert stored == store.stack("cabinet") == stack(declaration={"targets": []}, ending=True, version=2)

    def test_stacks_come_by_name_in_code_point_order(self, store: FleetStore):
        for number, name in enumerate(["b", "a", "B", "é", "a-b", "a b", "ab"]):
            store.declare(stack(name), [], command(f"c{number}", stack=name), [])
        assert names(store.stacks()) == sorted(["b", "a", "B", "é", "a-b", "a b", "ab"])

    def test_a_command_cannot_begin_twice_and_leaves_nothing(self, store: FleetStore):
        store.begin(command(), [])
        with pytest.raises(InternalError):
            store.declare(stack(), [target()], command(), [], [event()])
        assert (store.stacks(), store.targets(), store.events()) == ([], [], [])

    def test_a_stack_that_owns_something_is_not_dropped(self, store: FleetStore):
        store.declare(stack(), [target()], command(), [])
        store.put([resource(operation=Operation.LOST)])
        with pytest.raises(ConflictError, match="still owns 1"):
            store.drop_stack("cabinet")
        store.put([resource(operation=Operation.DELETED)])
        store.drop_stack("cabinet")
        store.drop_stack("nobody")
        assert store.stack("cabinet") is None
        assert len(store.versions(key())) == 2


def whole(*targets, adapters=(), interval=5, **specs):
    """A declaration of some targets, with their own specs where given."""
    return {
        "targets": {name: specs.get(name, {"base_url": f"http://{name}:8000"}) for name in targets},
        "adapters": [{"target": one, "lora_name": name} for one, name in adapters],
        "models": [{"target": name, "label": "m"} for name in targets],
        "policy": {"interval": interval},
    }


class TestNarrowReads:
    """What is asked of a few targets tells the same as the whole would, of these."""

    def test_a_narrowed_stack_holds_its_head_and_those_targets(self, store: FleetStore):
        body = whole("a", "b", "c", adapters=[("b", "sql"), ("a", "sql"), ("b", "chat")])
        stored = store.declare(stack(declaration=body, command="c1"), [], command(), [])
        narrow = {
            "policy": {"interval": 5},
            "targets": {"b": {"base_url": "http://b:8000"}},
            "adapters": [{"target": "b", "lora_name": "sql"}, {"target": "b", "lora_name": "chat"}],
            "models": [{"target": "b", "label": "m"}],
        }
        assert store.stack("cabinet", at=["b", "nobody"]) == replace(stored, declaration=narrow)
        assert store.stacks(at={"b"}) == [replace(stored, declaration=narrow)]
        head = {"policy": {"interval": 5}, "targets": {}, "adapters": [], "models": []}
        assert store.stack("cabinet", at=()) == replace(stored, declaration=head)
        assert store.stack("nobody", at=()) is None
        assert store.stack("cabinet") == stored

    def test_who_declares_a_target_and_what(self, store: FleetStore):
        store.declare(stack("two", declaration=whole("b", "c")), [], command("c1", stack="two"), [])
        store.declare(stack("one", declaration=whole("a", "b", adapters=[("b", "x")])), [], command("c2"), [])
        found = [(one.target, one.stack, one.spec, len(one.adapters)) for one in store.declared(["b", "c", "nobody"])]
        spec = {"base_url": "http://b:8000"}
        assert found == [("b", "one", spec, 1), ("b", "two", spec, 0), ("c", "two", {"base_url": "http://c:8000"}, 0)]
        store.declare(stack("two", declaration=whole("c")), [], command("c3"), [])
        assert [one.stack for one in store.declared(["b"])] == ["one"]
        store.drop_stack("one")
        assert store.declared(["a", "b"]) == []

    def test_an_adapter_on_a_target_that_is_not_declared_is_still_told(self, store: FleetStore):
        store.declare(stack(declaration=whole("a", adapters=[("ghost", "x")])), [], command(), [])
        (part,) = store.declared(["ghost"])
        assert (part.spec, part.adapters) == (None, ({"target": "ghost", "lora_name": "x"},))
        assert store.stack("cabinet", at=["ghost"]).declaration["targets"] == {}

    def test_targets_are_found_by_their_address(self, store: FleetStore):
        store.declare(stack(), [target("a"), target("b", spec={"base_url": "http://x"})], command(), [])
        assert names(store.targets_at(["http://x", "http://a:8000", "http://nobody"])) == ["a", "b"]
        store.respecify([target("b", spec={"base_url": "http://y"})])
        assert names(store.targets_at(["http://x"])) == []
        assert names(store.targets_at(["http://y"])) == ["b"]
        assert store.targets_at([]) == []

    def test_those_on_record_as_unreachable(self, store: FleetStore):
        store.declare(stack(), [target(name) for name in "abc"], command(), [])
        store.sight([seen("a"), seen("b", state="unreachable", cause="timeout"), seen("c", state="unreachable")])
        assert names(store.unreachable(["a", "b", "nobody"])) == ["b"]
        store.sight([seen("b")])
        assert store.unreachable(["a", "b"]) == []

    def test_resources_at_some_targets(self, store: FleetStore):
        store.put([resource("a", target) for target in ("x", "y", "z")])
        assert [one.key.target for one in store.resources(targets={"z", "x", "nobody"})] == ["x", "z"]
        assert store.resources(targets=[]) == []

    def test_last_times_are_by_target(self, store: FleetStore):
        rows = [("restarted", "a", 1), ("restarted", "a", 5), ("drift", "a", 9), ("restarted", "b", 2)]
        store.add_events(event(kind, target=name, at=at(when)) for kind, name, when in rows)
        assert store.last_times("restarted", ["a", "c"]) == {"a": at(5)}
        assert store.last_times("restarted", []) == {}


class TestChanges:
    """A copy that follows `changes` reads what is different, and nothing else."""

    def told(self, store: FleetStore, since: int):
        changes = store.changes(since)
        assert changes.revision == store.revision()
        return set(changes.stacks), set(changes.targets)

    def test_a_new_apply_changes_the_targets_that_it_declares_differently(self, store: FleetStore):
        targets = [target(name) for name in "abc"]
        store.declare(stack(declaration=whole("a", "b", "c")), targets, command("c1"), [])
        assert self.told(store, -1) == ({"cabinet"}, {"a", "b", "c"})
        before = store.revision()
        assert self.told(store, before) == (set(), set())
        body = whole("a", "b", "c", adapters=[("b", "sql")])
        store.declare(stack(declaration=body), targets, command("c2"), [])
        assert self.told(store, before) == ({"cabinet"}, {"b"})
        before = store.revision()
        store.declare(stack(declaration=body), [target("a"), target("c", spec={"base_url": "x"})], command("c3"), [])
        assert self.told(store, before) == ({"cabinet"}, {"c"})

    def test_what_is_applied_or_dropped_there_counts(self, store: FleetStore):
        store.declare(stack(declaration=whole("a")), [target("a"), target("b"), target("c")], command(), [action()])
        for change, expected in [
            (lambda: store.put([resource("x", "a"), resource("y", "b")]), {"a", "b"}),
            (lambda: save(store, done(action()), [resource("x", "a", operation=Operation.DELETED)]), {"a"}),
            (lambda: store.forget("b", at(1), event()), {"b"}),
            (lambda: store.drop_targets(["a", "c"]), {"c"}),
            (lambda: store.respecify([target("a", spec={"base_url": "x"})]), {"a"}),
            (lambda: store.sight([seen("a", "sql")]), set()),
        ]:
            before = store.revision()
            change()
            assert self.told(store, before) == (set(), expected)
        before = store.revision()
        store.drop_stack("cabinet")
        assert self.told(store, before) == ({"cabinet"}, {"a"})


class TestToTidy:
    def test_a_target_that_a_stack_stops_declaring(self, store: FleetStore):
        targets = [target(name) for name in "abc"]
        store.declare(stack(declaration=whole("a", "b", "c")), targets, command("c1"), [])
        assert store.to_tidy() == []
        store.declare(stack(declaration=whole("a")), targets[:1], command("c2"), [])
        assert store.to_tidy() == ["b", "c"]
        store.tidied(["b", "nobody"])
        store.tidied([])
        assert store.to_tidy() == ["c"]
        store.drop_stack("cabinet")
        assert store.to_tidy() == ["a", "c"]
        store.declare(stack("two", declaration=whole("c")), targets[2:], command("c3"), [])
        assert store.to_tidy() == ["a"]
        store.drop_targets(["a"])
        assert store.to_tidy() == []

    def test_a_forgotten_one_is_not_on_the_list(self, store: FleetStore):
        store.declare(stack(declaration=whole("a", "b")), [target("a"), target("b")], command("c1"), [])
        store.forget("a", at(1), event())
        store.declare(stack(declaration=whole()), [], command("c2"), [])
        assert store.to_tidy() == ["b"]


class TestTargets:
    def test_a_declaration_keeps_how_a_target_was_seen(self, store: FleetStore):
        store.declare(stack(), [target()], command("c1"), [])
        store.sight([seen("edge", "a")])
        store.declare(stack(), [target(spec={"base_url": "http://new"}, declared_at=at(5))], command("c2"), [])
        assert store.targets() == [seen("edge", "a", spec={"base_url": "http://new"}, declared_at=at(5))]

    def test_a_new_target_is_stored_as_it_was_seen(self, store: FleetStore):
        store.declare(stack(), [seen("edge", "a")], command("c1"), [])
        assert store.targets() == [seen("edge", "a")]
        assert len(store.observations()) == 1

    def test_names_choose(self, store: FleetStore):
        store.declare(stack(), [target("a"), target("b"), target("c")], command(), [])
        assert names(store.targets(["c", "a", "nobody"])) == ["a", "c"]
        assert store.targets([]) == []

    def test_a_look_keeps_the_declaration(self, store: FleetStore):
        store.declare(stack(), [target()], command(), [])
        spec = dict(target().spec) | {"timeout": 9}
        store.sight([seen("edge", "a", spec=spec, declared_at=at(-9))], [event("recovered")])
        assert store.targets() == [seen("edge", "a")]
        assert [one.kind for one in store.events()] == ["recovered"]

    def test_a_look_at_the_address_before_says_nothing_about_a_target_that_has_moved(self, store: FleetStore):
        store.declare(stack(), [target("edge"), target("other")], command(), [])
        before = seen("edge", "a", spec={"base_url": "http://old"}, state="unreachable", cause="timeout")
        news = [
            event("unreachable", stack=None, target="edge", name=None),
            event("drift", target="edge", name="a"),
            event("unreachable", stack=None, target="other", name=None),
        ]
        store.sight([before, seen("other", "b")], news)
        assert store.targets() == [target("edge"), seen("other", "b")]
        assert [one.target for one in store.observations()] == ["other"]
        assert {(one.kind, one.target) for one in store.events()} == {("drift", "edge"), ("unreachable", "other")}

    def test_a_look_at_a_forgotten_target_brings_nothing_back(self, store: FleetStore):
        store.declare(stack(), [target()], command(), [])
        store.forget("edge", at(1), event("forgotten"))
        store.sight([seen("edge")])
        store.touch(dict.fromkeys(["edge"], at(2)))
        assert (store.targets(), store.observations()) == ([], [])

    def test_touch_moves_two_times_and_nothing_else(self, store: FleetStore):
        store.declare(stack(), [target("edge"), target("other")], command(), [])
        store.sight([seen("edge", "a"), seen("other")])
        store.touch(dict.fromkeys({"edge", "nobody"}, at(60)))
        store.touch(dict.fromkeys([], at(70)))
        assert store.targets() == [seen("edge", "a", last_seen=at(60), last_checked=at(60)), seen("other")]

    def test_touch_gives_back_what_is_on_record_as_unreachable(self, store: FleetStore):
        store.declare(stack(), [target(name) for name in ("a", "b", "c", "d")], command(), [])
        away = [seen(name, state="unreachable", cause="unauthorized") for name in ("d", "b")]
        store.sight([seen("a"), *away])
        assert store.touch(dict.fromkeys(["a", "b", "c", "d", "nobody"], at(60))) == ["b", "d"]
        assert store.touch(dict.fromkeys([], at(70))) == []
        assert {one.name: one.last_checked for one in store.targets()} == {
            "a": at(60),
            "b": away[1].last_checked,
            "c": at(60),
            "d": away[0].last_checked,
        }

    def test_thousands_of_names_fit(self, store: FleetStore):
        many = [f"t{number:04}" for number in range(2100)]
        store.declare(stack(), [target(name) for name in many], command(), [])
        store.sight([seen(name) for name in many])
        store.touch(dict.fromkeys(many, at(60)))
        assert {one.last_seen for one in store.targets(many)} == {at(60)}
        store.drop_targets(many[1:])
        assert names(store.targets()) == many[:1]

    def test_forgetting_releases_what_is_owned_there(self, store: FleetStore):
        store.declare(stack(), [target("edge"), target("other")], command(), [])
        store.put([resource("a"), resource("b", operation=Operation.LOST), resource("c", "other"), resource("d")])
        store.put([resource("d", operation=Operation.DELETED)])
        gone = event("forgotten", command="c9", cause="asked")
        assert store.forget("edge", at(9), gone) == 2
        assert names(store.targets()) == ["other"]
        assert [one.key.name for one in store.resources()] == ["c"]
        expected = resource("a", operation=Operation.FORGOTTEN, version=2, at=at(9), command="c9", cause="asked")
        assert store.versions(key("a")) == [resource("a", version=1), expected]
        assert facts(store.events()) == [gone]
        assert store.forget("edge", at(10), gone) == 0

    def test_a_target_at_which_something_is_owned_is_not_dropped(self, store: FleetStore):
        store.declare(stack(), [target("a"), target("b")], command(), [])
        store.put([resource("x", "a", operation=Operation.LOST), resource("x", "b")])
        store.put([resource("x", "b", operation=Operation.RELEASED)])
        store.drop_targets(["a", "b", "nobody"])
        store.drop_targets([])
        assert names(store.targets()) == ["a"]

    def test_a_target_that_a_stack_declares_by_now_is_not_dropped(self, store: FleetStore):
        store.declare(stack(), [target("edge"), target("spare")], command(), [])
        store.drop_targets(["edge", "spare"])
        assert names(store.targets()) == ["edge"]

    def test_observations_are_changes(self, store: FleetStore):
        store.declare(stack(), [target()], command(), [])
        first, gone = seen("edge", "a", seconds=1), {"state": "unreachable", "cause": "timeout", "detail": "5 s"}
        store.sight([first])
        store.sight([replace(first, last_checked=at(2), capabilities={}, detail="other words")])
        store.touch(dict.fromkeys(["edge"], at(3)))
        store.sight([replace(first, last_checked=at(4), **gone)])
        store.sight([replace(first, last_checked=at(5), **gone)])
        store.sight([seen("edge", "a", "b", seconds=6)])
        assert [(one.at, one.state, one.cause) for one in store.observations()] == [
            (at(6), "reachable", None),
            (at(4), "unreachable", "timeout"),
            (at(1), "reachable", None),
        ]
        assert store.observations(limit=1)[0] == Observation(
            target="edge", at=at(6), state="reachable", base="acme/tiny", served=seen("edge", "a", "b").served
        )
        assert [one.at for one in store.observations(target="edge", since=at(4))] == [at(6), at(4)]
        assert store.observations(target="nobody") == []


class TestResources:
    def test_versions_are_counted_by_key(self, store: FleetStore):
        store.put([resource("a"), resource("b"), resource("a", served_path="/two", version=77)])
        store.put([resource("a", operation=Operation.UPDATED, served_path="/three", cause="because")])
        assert [(one.version, one.served_path) for one in store.versions(key("a"))] == [
            (1, "/store/ab"),
            (2, "/two"),
            (3, "/three"),
        ]
        assert store.versions(key("b")) == [resource("b", version=1)]
        assert store.versions(key("nobody")) == []

    def test_the_newest_owned_version_is_current(self, store: FleetStore):
        owned = [one for one in Operation if one.owned]
        store.put([resource(str(one)) for one in Operation])
        store.put([resource(str(one), operation=one) for one in Operation])
        assert [(one.key.name, one.version) for one in store.resources()] == sorted((str(one), 2) for one in owned)

    def test_what_was_deleted_can_come_back(self, store: FleetStore):
        store.put([resource()])
        store.put([resource(operation=Operation.DELETED), resource(stack="other")])
        assert store.resources() == [resource(stack="other", version=3)]

    def test_choosing_by_stack_and_target(self, store: FleetStore):
        store.put([resource("a", "x"), resource("a", "y"), resource("b", "x", stack="two")])
        assert [one.key for one in store.resources()] == [key("a", "x"), key("b", "x"), key("a", "y")]
        assert [one.key for one in store.resources(stack="cabinet")] == [key("a", "x"), key("a", "y")]
        assert [one.key for one in store.resources(targets=["x"])] == [key("a", "x"), key("b", "x")]
        assert [one.key for one in store.resources(stack="two", targets=["y"])] == []

    def test_a_resource_may_change_its_stack(self, store: FleetStore):
        store.put([resource()])
        store.put([resource(stack="two", operation=Operation.ADOPTED)])
        assert (store.resources(stack="cabinet"), len(store.resources(stack="two"))) == ([], 1)

    def test_keys_are_ordered_by_code_point(self, store: FleetStore):
        odd = ["b", "B", "a_b", "a-b", "a b", "ab", "é", "z", "ß", "\U0001f600", "\uffee"]
        store.put([resource(name) for name in odd])
        assert [one.key.name for one in store.resources()] == sorted(odd)


class TestCommands:
    def test_newest_first_by_stack(self, store: FleetStore):
        for number in range(4):
            store.begin(command(f"c{number}", stack="ab"[number % 2]), [], [event(command=f"c{number}")])
        assert [one.id for one in store.commands(limit=3)] == ["c3", "c2", "c1"]
        assert [one.id for one in store.commands(stack="a")] == ["c2", "c0"]
        assert [one.command for one in store.events()] == ["c3", "c2", "c1", "c0"]

    def test_an_action_and_what_it_made_are_saved_together(self, store: FleetStore):
        store.begin(command(), [action(0), action(1)])
        ended = done(action(0), error={"code": "NotFound"})
        save(store, ended, [resource(command="c1")], [event("action-done")])
        assert store.actions("c1") == [ended, action(1)]
        assert store.resources() == [resource(command="c1", version=1)]
        assert [one.kind for one in store.events()] == ["action-done"]

    def test_an_action_of_no_command_changes_nothing(self, store: FleetStore):
        with pytest.raises(InternalError, match="command c1 is not on record"):
            save(store, action(), [resource()], [event()])
        with pytest.raises(InternalError, match="command c1 is not on record"):
            store.finish(command(), [event()])
        assert (store.resources(), store.events(), store.actions("c1")) == ([], [], [])

    def test_an_action_can_be_added(self, store: FleetStore):
        store.begin(command(), [action(0)])
        save(store, action(7, state=ActionState.STARTED))
        assert [one.seq for one in store.actions("c1")] == [0, 7]

    def test_many_results_are_one_step(self, store: FleetStore):
        store.begin(command(), [action(seq) for seq in range(3)])
        results = [
            ActionResult(action=done(action(0)), resources=(resource("a"), resource("b")), events=(event("one"),)),
            ActionResult(action=action(1, state=ActionState.STARTED)),
            ActionResult(
                action=done(action(1)), resources=(resource("a", served_path="/two"),), events=(event("two"),)
            ),
            ActionResult(action=action(9)),
        ]
        store.save_actions(results)
        store.save_actions([])
        assert store.actions("c1") == [done(action(0)), done(action(1)), action(2), action(9)]
        assert [(one.version, one.served_path) for one in store.versions(key("a"))] == [(1, "/store/ab"), (2, "/two")]
        assert [one.version for one in store.resources()] == [2, 1]
        assert [one.kind for one in store.events()] == ["two", "one"]

    def test_one_result_of_no_command_undoes_the_whole_step(self, store: FleetStore):
        store.begin(command(), [action(0)])
        good = ActionResult(action=done(action(0)), resources=(resource(),), events=(event(),))
        with pytest.raises(InternalError, match="command c7 is not on record"):
            store.save_actions([good, ActionResult(action=action(0, "c7"))])
        assert (store.actions("c1"), store.resources(), store.events()) == ([action(0)], [], [])

    def test_what_runs_is_told_for_all_stacks_at_once(self, store: FleetStore):
        store.begin(command("c1"), [action(0, "c1", key=key(target="a")), action(1, "c1", key=key(target="b"))])
        store.begin(command("c2", stack="two"), [action(0, "c2")])
        store.begin(command("c3", stack="three"), [action(0, "c3")])
        started = ActionState.STARTED
        save(store, action(0, "c1", key=key(target="a"), state=started))
        save(store, action(0, "c3", state=started))
        store.finish(command("c3", stack="three", state=CommandState.FAILED, ended_at=at(1)))
        assert store.begun() == {"cabinet": {"a"}, "two": set()}
        assert [one.id for one, _ in store.unfinished()] == ["c1", "c2"]
        assert [one.id for one, _ in store.unfinished("cabinet", besides={"c1"})] == []
        assert [one.id for one, _ in store.unfinished(besides=["c1"])] == ["c2"]

    def test_finish_sets_state_end_and_summary(self, store: FleetStore):
        store.begin(command(), [])
        ended = command(by="?", mode="?", state=CommandState.FAILED, ended_at=at(3), summary={"failed": 1})
        store.finish(ended, [event()])
        assert store.commands() == [replace(ended, by=command().by, mode=command().mode)]
        assert facts(store.events()) == [event()]

    def test_unfinished_are_those_that_run_oldest_first(self, store: FleetStore):
        store.begin(command("c1"), [action(1, "c1"), action(0, "c1")])
        store.begin(command("c2"), [])
        store.begin(command("c3", stack="other"), [action(0, "c3")])
        store.begin(command("c4"), [action(0, "c4")])
        store.finish(command("c2", state=CommandState.INTERRUPTED, ended_at=at(1)))
        assert store.unfinished("cabinet") == [
            (command("c1"), [action(0, "c1"), action(1, "c1")]),
            (command("c4"), [action(0, "c4")]),
        ]
        assert store.unfinished("nobody") == []


class TestAgents:
    def test_the_last_sign_of_life_counts(self, store: FleetStore):
        store.beat(an_agent(stacks=("cabinet",)))
        store.beat(an_agent("a2", alive=1, since=at(1), looked_at=at(1)))
        store.beat(an_agent(alive=15, looked_at=at(14)))
        assert store.agents() == [
            an_agent(stacks=("cabinet",), alive=15, looked_at=at(14)),
            an_agent("a2", alive=1, since=at(1), looked_at=at(1)),
        ]

    def test_one_that_ended_is_dropped(self, store: FleetStore):
        store.beat(an_agent())
        store.beat(an_agent("a2"))
        store.drop_agents(["a1", "nobody"])
        store.drop_agents([])
        assert [one.token for one in store.agents()] == ["a2"]


def terms(found):
    """Leases without their times, which a database server gives by its own clock, but with how long they last."""
    return [(one.stack, one.token, one.expires_at - one.acquired_at) for one in found]


class TestLeases:
    def test_one_holder_a_stack(self, store: FleetStore):
        assert store.acquire(lease("t1"), at(0)) is None
        assert terms([store.acquire(lease("t2"), at(0))]) == terms([lease("t1")])
        assert store.acquire(lease("t3", "other"), at(0)) is None
        assert terms(store.leases()) == terms([lease("t1"), lease("t3", "other")])
        assert store.leases()[0].holder == lease().holder

    @pytest.mark.parametrize(("until", "taken"), [(30, False), (0, True), (-1, True)])
    def test_an_expired_one_can_be_taken(self, store: FleetStore, until: float, taken: bool):
        store.acquire(lease("t1", until=until), at(0))
        assert len(store.leases(now=at(0))) is not taken
        found = store.acquire(lease("t2", until=90), at(0))
        assert (found is None) is taken
        assert store.renew("t1", at(99), at(0)) is not taken

    @pytest.mark.parametrize("store", ["memory", "sqlite"], indirect=True)
    @pytest.mark.parametrize(("now", "taken"), [(29.9, False), (30, True), (31, True)])
    def test_on_one_machine_the_callers_clock_decides(self, store: FleetStore, now: float, taken: bool):
        store.acquire(lease("t1", until=30), at(0))
        assert store.leases(now=at(now)) == ([] if taken else [lease("t1", until=30)])
        found = store.acquire(lease("t2", until=90), at(now))
        assert found == (None if taken else lease("t1", until=30))

    @pytest.mark.parametrize("store", [pytest.param("postgresql", marks=pytest.mark.service)], indirect=True)
    @pytest.mark.parametrize("ahead", [40, -40])
    def test_on_a_server_its_clock_decides_whatever_the_callers_say(self, store: FleetStore, ahead: float):
        here, there = at(0), at(ahead)
        assert store.acquire(lease("t1", acquired_at=here, until=30), here) is None
        skewed = replace(lease("t2"), acquired_at=there, expires_at=there + timedelta(seconds=30))
        assert store.acquire(skewed, there).token == "t1"
        assert [one.token for one in store.leases(now=there)] == ["t1"]
        assert store.renew("t1", at(30), here) is True
        assert store.acquire(skewed, there).token == "t1"
        store.release("t1")
        assert store.acquire(skewed, there) is None
        assert store.acquire(lease("t1"), here).token == "t2"

    def test_that_of_a_dead_holder_can_be_taken(self, store: FleetStore):
        store.acquire(lease("t1"), at(0))
        assert store.acquire(lease("t2"), at(0), instead_of="another").token == "t1"
        assert store.acquire(lease("t2"), at(0), instead_of="t1") is None
        assert terms(store.leases()) == terms([lease("t2")])

    def test_asking_again_with_the_same_token_is_harmless(self, store: FleetStore):
        store.acquire(lease("t1"), at(0))
        assert store.acquire(lease("t1", until=50), at(0)) is None
        assert terms(store.leases()) == terms([lease("t1", until=50)])

    def test_renew_and_release(self, store: FleetStore):
        store.acquire(lease("t1"), at(0))
        first = store.leases()[0]
        assert store.renew("t1", at(60), at(0)) is True
        assert store.leases()[0].expires_at - first.expires_at >= timedelta(seconds=30)
        assert store.renew("nobody", at(60), at(0)) is False
        store.release("nobody")
        assert len(store.leases()) == 1
        store.release("t1")
        assert store.leases() == []
        assert store.renew("t1", at(60), at(0)) is False


class TestEvents:
    def test_every_field_comes_back(self, store: FleetStore):
        full, bare = (
            event(after={"x": [1]}),
            event("restarted", stack=None, target=None, name=None, cause=None, before=None, command=None),
        )
        store.add_events(iter([full, bare]))
        store.add_events([])
        assert facts(store.events()) == [bare, full]

    def test_filters(self, store: FleetStore):
        rows = [("drift", "s", "a", "x", 0), ("drift", "s", "b", "y", 1), ("restored", "t", "a", "x", 2)]
        store.add_events(event(kind, stack=s, target=t, name=n, at=at(when)) for kind, s, t, n, when in rows)

        def found(**wanted):
            return [(one.at - START).seconds for one in store.events(**wanted)]

        assert found() == [2, 1, 0]
        assert found(limit=2) == [2, 1]
        assert found(stack="s") == [1, 0]
        assert found(target="a") == [2, 0]
        assert found(name="y") == [1]
        assert found(kinds=["restored", "applied"]) == [2]
        assert found(kinds=[]) == []
        assert found(since=at(1)) == [2, 1]
        assert found(stack="s", target="a", name="x", kinds={"drift"}, since=at(0)) == [0]

    def test_the_subject_is_stored_and_can_be_asked_for(self, store: FleetStore):
        nowhere = {"stack": None, "target": None, "name": None}
        store.add_events(
            [
                event(),
                event(name=None),
                event(target=None, name=None),
                event(**nowhere),
                event(**nowhere, subject_kind="instance", subject_name="qwen"),
                event(stack="other", name="chat"),
            ]
        )
        subjects = [(one.subject_kind, one.subject_name) for one in reversed(store.events())]
        assert subjects == [
            ("adapter", "edge/sql"), ("target", "edge"), ("stack", "cabinet"), ("fleet", ""), ("instance", "qwen"),
            ("adapter", "edge/chat"),
        ]  # fmt: skip
        for number, subject in enumerate(subjects, 1):
            assert [one.id for one in store.events(subject=subject)] == [number]
        assert store.events(subject=("target", "edge/sql")) == []

    def test_a_follower_reads_on_from_where_it_was(self, store: FleetStore):
        store.add_events(event(name=str(number)) for number in range(5))
        first = store.events(after_id=0, limit=2)
        rest = store.events(after_id=first[-1].id)
        assert [one.name for one in first + rest] == list("01234")
        assert store.events(after_id=rest[-1].id) == []
        store.prune(at(1))
        store.add_events([event(name="later")])
        assert [one.name for one in store.events(after_id=rest[-1].id)] == ["later"]


class TestUpkeep:
    @pytest.mark.parametrize(
        ("change", "counts"),
        [
            pytest.param(lambda s: s.declare(stack(), [], command("c9"), []), True, id="declare"),
            pytest.param(lambda s: s.put([resource()]), True, id="put"),
            pytest.param(lambda s: save(s, action(), [resource()]), True, id="save_actions with a resource"),
            pytest.param(lambda s: s.forget("edge", at(1), event()), True, id="forget"),
            pytest.param(lambda s: s.drop_targets(["spare"]), True, id="drop_targets"),
            pytest.param(lambda s: s.drop_stack("cabinet"), True, id="drop_stack"),
            pytest.param(lambda s: s.sight([seen("edge", "a")]), False, id="sight"),
            pytest.param(lambda s: s.touch({"edge": at(1)}), False, id="touch"),
            pytest.param(lambda s: save(s, done(action())), False, id="save_actions"),
            pytest.param(lambda s: s.add_events([event()]), False, id="add_events"),
            pytest.param(lambda s: s.acquire(lease(), at(0)), False, id="acquire"),
            pytest.param(lambda s: s.drop_targets(["nobody"]), False, id="drop_targets of none"),
            pytest.param(lambda s: s.drop_stack("nobody"), False, id="drop_stack of none"),
        ],
    )
    def test_the_revision_grows_with_what_is_declared_or_applied(self, store: FleetStore, change, counts: bool):
        store.declare(stack(), [target("edge"), target("spare")], command(), [action()])
        before = store.revision()
        change(store)
        assert (store.revision() > before) is counts

    def test_the_identity_stays(self, store: FleetStore):
        assert store.identity() == store.identity()
        assert len(store.identity()) == 32

    def test_a_digest_holds_for_its_stamp(self, store: FleetStore):
        store.put_content("/a", "stamp 1", "d1")
        assert store.content("/a", "stamp 1") == "d1"
        assert store.content("/a", "stamp 2") is None
        assert store.content("/b", "stamp 1") is None
        store.put_content("/a", "stamp 2", "d2")
        assert (store.content("/a", "stamp 1"), store.content("/a", "stamp 2")) == (None, "d2")

    def test_times_keep_their_microseconds_and_any_zone(self, store: FleetStore):
        odd = datetime(2026, 3, 1, 23, 30, 0, 1, tzinfo=timezone(timedelta(hours=-7)))
        store.add_events([event(at=odd)])
        assert store.events(since=odd)[0].at == odd
        assert store.events(since=odd + timedelta(microseconds=1)) == []

    @pytest.mark.parametrize("odd", ["nul \0", "half \ud800", "smile \U0001f600", "quote ' \" \\", "line\nbreak"])
    def test_what_a_strange_server_says_can_be_stored(self, store: FleetStore, odd: str):
        served = ({"name": odd, "root": None, "parent": None},)
        store.declare(stack(), [target()], command(), [])
        store.sight([seen("edge", detail=odd, served=served, capabilities=MappingProxyType({"version": odd}))])
        (found,) = store.targets()
        assert found.served == served
        assert found.capabilities["version"] == odd
        assert found.detail[:4] == odd[:4]


class TestRetention:
    """Day 0 is old, day 10 is kept; the border is day 5."""

    def test_old_history_goes(self, store: FleetStore):
        store.declare(stack(), [target()], command(), [])
        store.add_events([event(at=at(days=0)), event(at=at(days=5)), event(at=at(days=10))])
        for day in (0, 1, 10):
            store.sight([seen("edge", f"a{day}", seconds=day * 86400)])
        assert store.prune(at(days=5)) == 1 + 2
        assert [one.at for one in store.events()] == [at(days=10), at(days=5)]
        assert [one.at for one in store.observations()] == [at(days=10)]
        assert store.prune(at(days=5)) == 0

    def test_the_last_observation_of_a_target_stays_and_of_a_forgotten_one_goes(self, store: FleetStore):
        store.declare(stack(), [target("edge"), target("gone")], command(), [])
        store.sight([seen("edge"), seen("gone")])
        store.forget("gone", at(days=0), event(at=at(days=10)))
        store.prune(at(days=5))
        assert [one.target for one in store.observations()] == ["edge"]

    def test_commands_that_ended_long_ago_go_with_their_actions(self, store: FleetStore):
        for name, state, ended in [
            ("old", CommandState.SUCCEEDED, at(days=0)),
            ("fresh", CommandState.SUCCEEDED, at(days=10)),
            ("runs", CommandState.RUNNING, None),
            ("made", CommandState.OWED, at(days=0)),
            ("stack", CommandState.FAILED, at(days=0)),
        ]:
            store.begin(command(name), [action(0, name), action(1, name)])
            if ended:
                store.finish(command(name, state=state, ended_at=ended))
        store.put([resource(command="made")])
        store.declare(stack(command="stack"), [], command("d"), [])
        assert store.prune(at(days=5)) == 3
        assert [one.id for one in store.commands()] == ["d", "stack", "made", "runs", "fresh"]
        assert store.actions("old") == []
        assert len(store.actions("runs")) == 2

    def test_what_is_owned_stays_however_old(self, store: FleetStore):
        store.put([resource(), resource(operation=Operation.UPDATED), resource("lost", operation=Operation.LOST)])
        assert store.prune(at(days=5)) == 1
        assert [one.version for one in store.versions(key())] == [2]
        assert [one.key.name for one in store.resources()] == ["lost", "sql"]
        store.put([resource(operation=Operation.DELETED, at=at(days=10))])
        assert [one.version for one in store.versions(key())] == [2, 3]

    def test_what_is_owned_no_more_goes_whole(self, store: FleetStore):
        store.put([resource(), resource(operation=Operation.DELETED)])
        assert store.prune(at(days=5)) == 2
        assert (store.versions(key()), store.resources()) == ([], [])
        store.put([resource()])
        assert [one.version for one in store.versions(key())] == [1]

    def test_versions_of_a_running_command_stay_with_all_after_them(self, store: FleetStore):
        store.begin(command("runs"), [])
        store.put([resource(), resource(command="runs"), resource(operation=Operation.DELETED)])
        assert store.prune(at(days=5)) == 1
        assert [one.version for one in store.versions(key())] == [2, 3]
        assert store.resources() == []

    def test_many_rows_go_in_batches_and_all_of_them(self, store: FleetStore):
        store.begin(command("old"), [action(seq, "old") for seq in range(1203)])
        store.finish(command("old", state=CommandState.SUCCEEDED, ended_at=at(days=0)))
        store.put([resource(number) for number in "ab" for _ in range(1101)])
        store.add_events(event() for _ in range(1001))
        store.declare(stack(), [target()], command(), [])
        store.sight([seen("edge", "first")])
        assert store.prune(at(days=5)) == 1 + 1203 + 2 * 1100 + 1001
        assert [one.version for one in store.versions(key("a"))] == [1101]
        assert (store.actions("old"), store.events(), len(store.observations())) == ([], [], 1)

    def test_leases_digests_and_declarations_stay(self, store: FleetStore):
        store.declare(stack(), [target()], command(state=CommandState.SUCCEEDED, ended_at=at(0)), [])
        store.acquire(lease(), at(0))
        store.put_content("/a", "s", "d")
        store.prune(at(days=5))
        assert (len(store.stacks()), len(store.targets()), len(store.leases())) == (1, 1, 1)
        assert store.content("/a", "s") == "d"


def an_instance(name="qwen", node="box", **fields) -> InstanceRow:
    made = InstanceRow(
        name=name, node=node, spec={"options": {"model": "m"}}, state="stopped", since=at(1), reason="created",
        created=at(1), updated=at(1),
    )  # fmt: skip
    return replace(made, **fields)


class TestInstances:
    def test_an_instance_is_stored_changed_and_deleted_with_its_events(self, store: FleetStore):
        told = Event(at=at(1), kind="instance_created", subject_kind="instance", subject_name="qwen")
        made = store.create_instance(an_instance(), [told])
        assert made == an_instance(id=made.id)
        assert store.instances("box") == [made]
        changed = replace(
            made, spec={"options": {"a": [1, None]}}, state="running", since=at(2), reason="ready", updated=at(2),
            wanted=True, port=8001, revision=2, costs={"start_seconds": 1.5},
        )  # fmt: skip
        store.save_instances([changed], [told])
        assert store.instances("box") == [changed]
        store.delete_instance(made.id, [told])
        store.delete_instance(made.id)
        store.save_instances([changed])
        assert store.instances("box") == []
        assert facts(store.events(subject=("instance", "qwen"))) == [told] * 3

    def test_a_name_is_unique_on_a_machine_and_an_id_is_used_once(self, store: FleetStore):
        first = store.create_instance(an_instance())
        with pytest.raises(ConflictError, match="'qwen' exists already"):
            store.create_instance(an_instance())
        other = store.create_instance(an_instance(node="other"))
        assert store.instances("other") == [other]
        store.delete_instance(other.id)
        assert store.create_instance(an_instance("b")).id > max(first.id, other.id)
        assert names(store.instances("box")) == ["b", "qwen"]
