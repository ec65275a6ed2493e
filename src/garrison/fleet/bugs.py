"""An exception that nobody expected, as the history of a task has it: named by its kind and place, since its words may
hold what was sent."""

import asyncio
import traceback
from pathlib import Path

__all__ = ["bug_of", "bug_words"]


def bug_of(task: asyncio.Task[None]) -> BaseException | None:
    """What ended a task that is done, retrieved; None where it ended as it should, or was cancelled."""
    return None if task.cancelled() else task.exception()


def bug_words(error: BaseException) -> str:
    """`KeyError in agent.py, line 7 (_judge)`; of a group, its first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno} ({frames[-1].name})" if frames else ""
    return f"{type(error).__name__}{place}"
