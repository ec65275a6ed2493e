"""Instances that come back when there is room: those to preload, and those that ran before this server."""

from collections.abc import Iterable

from garrison.base.logs import logger
from garrison.instances.book import Book
from garrison.instances.lifecycle import Lifecycle
from garrison.instances.live import Live
from garrison.instances.room.values import Place
from garrison.instances.values.state import State

__all__ = ["keep_warm", "returning"]

_AGAIN_SECONDS = 30.0

_log = logger(__name__)


def returning(found: Iterable[Live]) -> list[Live]:
    """Those that should run and do not: the highest priority first, then by name. Pure.

    What a command stopped, or what was stopped because nobody used it, is not wanted and stays stopped.
    """
    wanted = [
        one
        for one in found
        if one.record.wanted
        and (one.spec.preload or one.resumes)
        and one.state in (State.STOPPED, State.SLEEPING)
        and one.start is None
        and one.stop is None
    ]
    return sorted(wanted, key=lambda one: (-one.spec.priority, one.name))


async def keep_warm(book: Book, life: Lifecycle) -> None:
    """Start what should come back, whenever it fits without making another instance leave. Runs until cancelled."""
    while True:
        try:
            await _start_what_fits(book, life)
        except Exception as error:  # noqa: BLE001 - the outermost frame of a loop that must go on
            _log.error("what should run was not started", exception=error)
        await book.changed(_AGAIN_SECONDS)


async def _start_what_fits(book: Book, life: Lifecycle) -> None:
    for live in returning(book):
        if isinstance(await life.placer.decide(live), Place):
            life.begin_start(live, gentle=True)
