"""The twins, side by side: whatever is asked of them, they answer the same."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import store_samples as samples
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from store_samples import (
    action,
    an_api_key,
    an_audited_call,
    at,
    command,
    done,
    event,
    lease,
    resource,
    seen,
    stack,
    target,
)

from garrison.base.errors import ConflictError, GarrisonError
from garrison.store.records import ActionResult, ActionState, CommandState, Operation
from garrison.store.sql.store import open_store
from garrison.testing.store import MemoryStore

TARGETS = st.sampled_from(["edge", "lab", "Zoë"])
STACKS = st.sampled_from(["cabinet", "other"])
COMMANDS = st.sampled_from(["c1", "c2", "c3", "c4"])
NAMES = st.sampled_from(["sql", "chat"])
TIMES = st.integers(0, 9).map(lambda day: at(days=day))
EVENTS = st.lists(
    st.builds(event, st.sampled_from(["drift", "applied"]), target=TARGETS, stack=STACKS, name=NAMES, at=TIMES),
    max_size=2,
)
RESOURCES = st.lists(
    st.builds(
        lambda name, place, **rest: resource(name, place, **rest),
        NAMES,
        TARGETS,
        stack=STACKS,
        operation=st.sampled_from(Operation),
        at=TIMES,
        command=st.none() | COMMANDS,
    ),
    max_size=3,
)
ACTIONS = st.lists(st.integers(0, 3), max_size=3, unique=True)
SEEN = st.builds(
    lambda name, adapters, when, state: replace(seen(name, *adapters), last_checked=when, state=state),
    TARGETS,
    st.lists(NAMES, unique=True),
    TIMES,
    st.sampled_from(["reachable", "unreachable"]),
)


class Twins(RuleBasedStateMachine):
    template: Path

    @initialize()
    def open(self) -> None:
        self.home = Path(tempfile.mkdtemp(dir=self.template.parent))
        self.real = open_store(shutil.copy(self.template, self.home / "garrison.db"))
        self.twin = MemoryStore()

    def teardown(self) -> None:
        if hasattr(self, "real"):
            self.real.close()
            shutil.rmtree(self.home)

    def both(self, verb: str, *arguments, **options):
        answers = []
        for store in (self.twin, self.real):
            before = store.revision()
            try:
                answer = getattr(store, verb)(*arguments, **options)
            except GarrisonError as error:
                answer = type(error), error.message if isinstance(error, ConflictError) else None
            grew = store.revision() > before
            changes = store.changes(before) if grew else None
            answers.append((answer, grew, changes and (changes.stacks, changes.targets)))
        assert answers[0] == answers[1], verb
        return answers[0][0]

    @rule(
        name=STACKS,
        places=st.lists(TARGETS, unique=True),
        id=COMMANDS,
        seqs=ACTIONS,
        events=EVENTS,
        ends=st.booleans(),
        timeout=st.integers(1, 3),
    )
    def declare(self, name, places, id, seqs, events, ends, timeout):
        specs = {one: {"base_url": f"http://{one}:8000", "timeout": timeout} for one in places}
        adapters = [{"target": one, "lora_name": "sql"} for one in places if timeout > 1]
        body = {"targets": specs, "adapters": adapters, "models": [], "policy": {"interval": timeout}}
        declared = stack(name, ending=ends, command=id, declaration=body)
        actions = [action(seq, id) for seq in seqs]
        self.both(
            "declare",
            declared,
            [target(one, spec=specs[one]) for one in places],
            command(id, stack=name),
            actions,
            events,
        )

    @rule(name=STACKS)
    def drop_stack(self, name):
        self.both("drop_stack", name)

    @rule(looks=st.lists(SEEN, max_size=3, unique_by=lambda one: one.name), events=EVENTS)
    def sight(self, looks, events):
        self.both("sight", looks, events)

    @rule(places=st.sets(TARGETS), when=TIMES)
    def touch(self, places, when):
        self.both("touch", dict.fromkeys(places, when))

    @rule(place=TARGETS, when=TIMES)
    def forget(self, place, when):
        self.both("forget", place, when, event("forgotten", target=place, at=when))

    @rule(places=st.sets(TARGETS))
    def tidied(self, places):
        self.both("tidied", places)

    @rule(places=st.sets(TARGETS), timeout=st.integers(1, 3))
    def respecify(self, places, timeout):
        specs = [target(one, spec={"base_url": "http://edge:8000", "timeout": timeout}) for one in sorted(places)]
        self.both("respecify", specs)

    @rule(places=st.sets(TARGETS))
    def drop_targets(self, places):
        self.both("drop_targets", places)

    @rule(resources=RESOURCES, events=EVENTS)
    def put(self, resources, events):
        self.both("put", resources, events)

    @rule(id=COMMANDS, name=STACKS, seqs=ACTIONS)
    def begin(self, id, name, seqs):
        self.both("begin", command(id, stack=name), [action(seq, id) for seq in seqs])

    @rule(id=COMMANDS, seq=st.integers(0, 3), state=st.sampled_from(ActionState), resources=RESOURCES, events=EVENTS)
    def save_actions(self, id, seq, state, resources, events):
        result = ActionResult(
            action=done(action(seq, id), state=state), resources=tuple(resources), events=tuple(events)
        )
        self.both("save_actions", [result])

    @rule(id=COMMANDS, state=st.sampled_from(CommandState), when=TIMES)
    def finish(self, id, state, when):
        ended = None if state is CommandState.RUNNING else when
        self.both("finish", command(id, state=state, ended_at=ended, summary={"n": 1}))

    @rule(token=st.sampled_from("abc"), name=STACKS, until=TIMES, now=TIMES, instead=st.sampled_from([None, *"abc"]))
    def acquire(self, token, name, until, now, instead):
        self.both(
            "acquire", replace(lease(token + name, name), expires_at=until), now, instead_of=instead and instead + name
        )

    @rule(token=st.sampled_from("abc"), name=STACKS, until=TIMES, now=TIMES)
    def renew(self, token, name, until, now):
        self.both("renew", token + name, until, now)

    @rule(token=st.sampled_from("abc"), name=STACKS)
    def release(self, token, name):
        self.both("release", token + name)

    @rule(events=EVENTS)
    def add_events(self, events):
        self.both("add_events", events)

    @rule(digest=st.sampled_from("abc"), events=EVENTS)
    def create_key(self, digest, events):
        self.both("create_key", an_api_key(digest=digest), events)

    @rule(id=st.integers(1, 4), revision=st.integers(2, 3), digest=st.sampled_from("def"), events=EVENTS)
    def save_key(self, id, revision, digest, events):
        # A digest of its own, as the hash of a random token is: a repeated one would be refused by SQLite alone.
        self.both("save_key", an_api_key(id=id, revision=revision, digest=f"{digest}{id}{revision}"), events)

    @rule(id=st.integers(1, 4), events=EVENTS)
    def delete_key(self, id, events):
        self.both("delete_key", id, events)

    @rule(id=st.integers(1, 4), when=TIMES)
    def touch_keys(self, id, when):
        self.both("touch_keys", {id: when})

    @rule(when=TIMES, key_id=st.none() | st.integers(1, 2))
    def add_audit(self, when, key_id):
        self.both("add_audit", [an_audited_call(at=when, key_id=key_id)])
        self.both("audit", key_id=1, since=when, before_id=3, limit=2)

    @rule(path=st.sampled_from(["/a", "/b"]), stamp=st.sampled_from("12"), digest=st.sampled_from("xy"))
    def put_content(self, path, stamp, digest):
        self.both("put_content", path, stamp, digest)
        self.both("content", path, "1")

    @rule(before=TIMES)
    def prune(self, before):
        self.both("prune", before)

    @rule(
        name=st.none() | STACKS,
        place=st.none() | TARGETS,
        since=st.none() | TIMES,
        after=st.none() | st.integers(0, 20),
    )
    def ask(self, name, place, since, after):
        self.both("events", stack=name, target=place, since=since, after_id=after, limit=3)
        here = ["lab"] if place is None else [place]
        self.both("resources", stack=name, targets=None if place is None else here)
        self.both("stacks", at=here)
        self.both("unreachable", here)
        self.both("last_times", "drift", [*here, "edge"])
        self.both("observations", target=place, since=since, limit=2)
        self.both("commands", stack=name, limit=2)

    @invariant()
    def they_agree(self):
        if not hasattr(self, "real"):
            return
        for verb in (
            "stacks",
            "targets",
            "resources",
            "observations",
            "commands",
            "leases",
            "events",
            "begun",
            "to_tidy",
            "keys",
            "keys_revision",
            "audit",
        ):
            self.both(verb)

    @rule()
    def they_agree_in_detail(self):
        for name in ("cabinet", "other"):
            self.both("stack", name)
            self.both("unfinished", name)
            self.both("stack", name, at=["edge", "Zoë"])
        self.both("declared", ["edge", "lab", "Zoë"])
        self.both("targets_at", ["http://edge:8000", "http://Zoë:8000"])
        self.both("unfinished", besides=["c2"])
        for one in ("c1", "c2", "c3", "c4"):
            self.both("actions", one)
        for place in ("edge", "lab", "Zoë"):
            for name in ("sql", "chat"):
                self.both("versions", samples.key(name, place))


def test_memory_and_sqlite_agree_step_by_step(empty_file: Path):
    Twins.template = empty_file
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        Twins,
        settings=settings(
            max_examples=12, stateful_step_count=40, deadline=None, suppress_health_check=slow, database=None
        ),
    )
