"""What the agent does, in the log; every call reaches the view behind it too."""

import logging
from datetime import UTC, datetime

import pytest

from garrison.base.logs import facts_of
from garrison.fleet.agent.log import AgentLog
from garrison.fleet.values import events
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.plan import Action, ActionKind
from garrison.fleet.values.view import Outcome
from garrison.store.records import ActionState, Event
from garrison.testing.views import RecordingFleetView

ACTION = Action(kind=ActionKind.CREATE, target="edge-1", name="sql", label="sql", reason="it is gone")
AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def view():
    return RecordingFleetView()


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.DEBUG, "garrison")
    return lambda: [(one.levelname, one.getMessage(), dict(facts_of(one))) for one in caplog.records]


def test_an_action(view, logged):
    log = AgentLog(view)
    log.started(ACTION)
    log.step(ACTION, "load")
    log.ended(Outcome(action=ACTION, state=ActionState.DONE, seconds=0.25, notes=("probed",)))
    about = {"action": "create", "target": "edge-1", "adapter": "sql"}
    assert logged() == [
        ("INFO", "action started", about | {"reason": "it is gone"}),
        ("DEBUG", "action step", about | {"step": "load"}),
        ("INFO", "action ended", about | {"state": "done", "seconds": 0.25, "notes": ("probed",)}),
    ]
    assert view.steps == [("edge-1", "sql", "load")]
    assert [one.state for one in view.outcomes] == [ActionState.DONE]


def test_a_failed_action_is_a_warning(view, logged):
    failure = Failure(code=FailureCode.NOT_FOUND, message="no adapter there")
    AgentLog(view).ended(Outcome(action=ACTION, state=ActionState.FAILED, failure=failure))
    ((level, _, facts),) = logged()
    assert (level, facts["code"], facts["error"]) == ("WARNING", "NotFound", "no adapter there")


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        (events.UNREACHABLE, "WARNING"),
        (events.RECOVERED, "INFO"),
        (events.DRIFT, "WARNING"),
        (events.APPLIED, "INFO"),
        (events.INTERRUPTED, "WARNING"),
    ],
)
def test_an_event(view, logged, kind, level):
    passed = []
    event = Event(at=AT, kind=kind, target="edge-1", cause="refused", id=7)
    AgentLog(view, passed.append).event(event)
    assert logged() == [(level, kind, {"target": "edge-1", "cause": "refused", "event_id": 7})]
    assert passed == [event]


@pytest.mark.parametrize("kind", [events.ACTION_DONE, events.ACTION_FAILED, events.RESTORED])
def test_what_was_logged_as_an_action_is_not_logged_as_an_event(view, logged, kind):
    passed = []
    AgentLog(view, passed.append).event(Event(at=AT, kind=kind))
    assert (logged(), len(passed)) == ([], 1)


@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_a_note_has_its_level(view, logged, level):
    AgentLog(view).note("the store works again", level)
    assert logged() == [(level.upper(), "the store works again", {})]
    assert (view.notes, view.levels) == (["the store works again"], [level])


def test_a_note_without_a_level_is_a_warning(view, logged):
    AgentLog(view).note("a hook does not keep up")
    assert logged() == [("WARNING", "a hook does not keep up", {})]
