"""`--lock-timeout`: wait until a stack that another command holds is free, such as while the agent heals it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

import typer

from garrison.base.errors import ConflictError
from garrison.fleet.values.view import FleetView

__all__ = ["LockTimeout", "once_free"]

T = TypeVar("T")

_PAUSE_SECONDS = 0.25

LockTimeout = Annotated[
    float,
    typer.Option(
        "--lock-timeout",
        metavar="SECONDS",
        min=0,
        help="How long to wait for a stack that another command, or the agent, holds.",
    ),
]


async def once_free(work: Callable[[], Coroutine[Any, Any, T]], seconds: float, view: FleetView) -> T:
    """Return what `work` returns; while it finds the stack held, try again for up to `seconds`.

    Raises:
        ConflictError: the stack is still held, or `work` found another conflict.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            return await work()
        except ConflictError as error:
            if "holder" not in error.details or loop.time() >= deadline:
                raise
            view.note(f"waiting: {error.message}", "info")
        await asyncio.sleep(_PAUSE_SECONDS)
