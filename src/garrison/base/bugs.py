"""Describes unexpected exceptions by type and location, since their messages may contain request data."""

import asyncio
import traceback
from pathlib import Path

__all__ = ["bug_of", "bug_words"]


def bug_of(task: asyncio.Task[None]) -> BaseException | None:
    """Retrieve the exception that ended a finished task; None if the task succeeded or was cancelled."""
    return None if task.cancelled() else task.exception()


def bug_words(error: BaseException) -> str:
    """Return, for example, `KeyError in agent.py, line 7 (_judge)`; for a group, its first exception is described."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno} ({frames[-1].name})" if frames else ""
    return f"{type(error).__name__}{place}"
