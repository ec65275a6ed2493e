"""The agent in the log: a view that logs what the agent reports, and passes it on to the view behind it."""

from collections.abc import Callable, Collection

from garrison.base.logs import logger
from garrison.fleet.values import events
from garrison.fleet.values.observation import Sighting
from garrison.fleet.values.plan import Action, Plan
from garrison.fleet.values.view import FleetView, NoteLevel, Outcome
from garrison.store.records import ActionState, Event

__all__ = ["AgentLog"]

_log = logger(__name__)

_BY_ACTIONS = frozenset((events.ACTION_DONE, events.ACTION_FAILED, events.RESTORED))
"""Events of this agent's own actions, which are logged as actions, with their command."""
_BAD = frozenset((events.DRIFT, events.UNREACHABLE, events.INTERRUPTED))


class AgentLog:
    """`FleetView` and `on_event` of an agent. A look is not logged: what it changes makes an event.

    Args:
        view: receives every call, after it was logged.
        on_event: receives every event likewise.
    """

    def __init__(self, view: FleetView, on_event: Callable[[Event], None] = lambda _event: None) -> None:
        self._view = view
        self._on_event = on_event

    def event(self, event: Event) -> None:
        if event.kind not in _BY_ACTIONS:
            write = _log.warning if event.kind in _BAD else _log.info
            facts = {"target": event.target, "adapter": event.name, "stack": event.stack, "cause": event.cause}
            write(event.kind, **{key: one for key, one in facts.items() if one is not None}, event_id=event.id)
        self._on_event(event)

    def note(self, text: str, level: NoteLevel = "warning") -> None:
        {"info": _log.info, "warning": _log.warning, "error": _log.error}[level](text)
        self._view.note(text, level)

    def observing(self, targets: Collection[str]) -> None:
        self._view.observing(targets)

    def observed(self, sighting: Sighting) -> None:
        self._view.observed(sighting)

    def planned(self, plan: Plan) -> None:
        self._view.planned(plan)

    def started(self, action: Action) -> None:
        _log.info("action started", **_of(action), reason=action.reason)
        self._view.started(action)

    def step(self, action: Action, step: str) -> None:
        _log.debug("action step", **_of(action), step=step)
        self._view.step(action, step)

    def ended(self, outcome: Outcome) -> None:
        facts = _of(outcome.action) | {"state": str(outcome.state), "seconds": round(outcome.seconds, 3)}
        if outcome.failure is not None:
            facts |= {"code": str(outcome.failure.code), "error": outcome.failure.message}
        if outcome.notes:
            facts["notes"] = outcome.notes
        write = _log.warning if outcome.state is ActionState.FAILED else _log.info
        write("action ended", **facts)
        self._view.ended(outcome)


def _of(action: Action) -> dict[str, object]:
    return {"action": str(action.kind), "target": action.target, "adapter": action.name}
