"""What whoever waits for an instance is told: where its start is, and when to ask again. Nothing here awaits."""

from garrison.base.errors import GarrisonError, NotReadyError
from garrison.instances.live import Live

__all__ = ["hold_off", "loading", "not_ready", "refusal", "retry_after"]

_DEFAULT_RETRY_SECONDS = 5
_MOST_RETRY_SECONDS = 60
_MOST_HOLD_OFF_SECONDS = 300.0
_NEARLY = 0.99


def loading(live: Live, now: float) -> dict[str, object]:
    """Where a start is: state, reason, phase, seconds; progress (0 to 1) and the remaining seconds only where the last
    start, or wake, tells how long one takes.

    Args:
        now: the loop's time.
    """
    found: dict[str, object] = {"state": str(live.state), "reason": live.record.condition.reason}
    if live.restart is not None:
        found["remaining"] = round(max(0.0, live.restart_at - now), 1)
    if live.start is None:
        return found
    waits = live.record.condition.reason.startswith("waiting")
    found |= {"phase": "waiting for room" if waits else "looking for room", "seconds": round(now - live.asked_at, 1)}
    if live.started_at is None:
        return found
    seconds = now - live.started_at
    found |= {"phase": live.progress.phase if live.progress is not None else "starting", "seconds": round(seconds, 1)}
    costs = live.record.costs
    usual = costs.wake_seconds if live.asleep else costs.start_seconds
    if usual:
        found["remaining"] = round(max(0.0, usual - seconds), 1)
        found["progress"] = round(min(_NEARLY, seconds / usual), 2)
    return found


def retry_after(live: Live, now: float) -> int:
    """Seconds after which to ask again."""
    remaining = loading(live, now).get("remaining")
    if not isinstance(remaining, float):
        return _DEFAULT_RETRY_SECONDS
    return max(1, min(_MOST_RETRY_SECONDS, round(remaining)))


def not_ready(live: Live, now: float, text: str) -> NotReadyError:
    """The error for a request that is not served, with what it should know."""
    details: dict[str, object] = {"instance": live.name, "retry_after": retry_after(live, now)}
    if live.start is not None or live.stop is not None or live.restart is not None:
        details["loading"] = loading(live, now)
    return NotReadyError(f"instance {live.name} {text}", hint="Ask again later.", details=details)


def hold_off(live: Live, now: float) -> float:
    """Seconds for which requests do not start a failed instance again: its restart delay, doubled for each further
    start that failed, five minutes at most. A start by command does not wait for it."""
    if live.failure is None:
        return 0.0
    delay = min(_MOST_HOLD_OFF_SECONDS, live.spec.restart_delay * 2.0 ** max(0, live.failures - 1))
    return max(0.0, live.failed_at + delay - now)


def refusal(live: Live, now: float) -> GarrisonError | None:
    """Why a request cannot wait now: the failure of the last start, while that is held against it; None if it can."""
    left = hold_off(live, now)
    if live.failure is None or left <= 0:
        return None
    live.failure.details["retry_after"] = max(1, round(left))
    return live.failure.with_traceback(None)  # it is raised many times, and each would add to its traceback
