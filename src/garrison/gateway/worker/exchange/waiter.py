"""How one request waits: in the line of its route for a place, or for a target that does not run yet.

It is made when a request first has to do with a line that has places, or with a target that is cold. What it has
counted it gives back by `done`, whichever way the request ends.
"""

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from garrison.base.errors import GarrisonError
from garrison.base.output.plain_text import plain

if TYPE_CHECKING:
    from garrison.gateway.choose.fair_queue import Place
    from garrison.gateway.worker.plane import Plane
    from garrison.gateway.worker.table.line import Line, Queued
    from garrison.gateway.worker.table.targets import Route

__all__ = ["Waiter"]

_GRACE_SECONDS = 2.0
"""Whoever starts a target gives up first, and knows more about why."""


class Waiter:
    """`Queued`: one request.

    Args:
        holder: whose request it is; those of one holder take turns with those of others.
        priority: of the holder.
        size: bytes of its body.
        go: is called in a later step when it has a place.

    Attributes:
        began: when it first waited; 0 before.
        deadline: until when it waits; 0 while it does not.
        position: how many waited when it came, itself included.
        is_next: it has been given a place, and goes on in the next step.
    """

    __slots__ = ("_at", "_busy", "_go", "_holder", "_line", "_loading", "_place", "_placed_at", "_plane", "_priority",
                 "_route", "_size", "_waits_for", "began", "deadline", "is_next", "position")  # fmt: skip

    def __init__(
        self, plane: "Plane", route: "Route", holder: Hashable, priority: int, size: int, go: Callable[[], None]
    ) -> None:
        self._plane, self._route, self._go = plane, route, go
        self._line: Line = route.line
        self._holder, self._priority, self._size = holder, priority, size
        self._place: Place[Queued] | None = None
        self._placed_at = 0.0
        self._waits_for = ""
        self._at = self._busy = self._loading = 0.0
        self.began = self.deadline = 0.0
        self.is_next = False
        self.position = 0

    def enter(self) -> bool:
        """Take a place, or begin to wait for one; then False. Raises BusyError, or NotReadyError."""
        now = self._plane.now()
        if self._line.take():
            self._placed_at = now
            return True
        self._begin("busy", now)
        self.deadline = now + self._line.settings.busy
        self._place = self._line.join(self, self._holder, self._priority, now)
        return False

    def place_given(self) -> None:
        """As `Queued.place_given`."""
        now = self._plane.now()
        self._place, self._placed_at = None, now
        self._finish(now)
        self.is_next = True
        self._plane.soon(self._begins)

    def _begins(self) -> None:
        self.is_next = False
        self._go()

    def load(self) -> None:
        """Begin to wait for a cold target. Raises NotReadyError."""
        now = self._plane.now()
        self._begin("loading", now)
        self.deadline = self.began + self._longest

    def loaded(self) -> None:
        """The target is there, or will not be."""
        self._finish(self._plane.now())

    def overdue(self) -> GarrisonError | None:
        """The deadline has come: return why the request is refused; None if it may wait on.

        Who waits for a place while no target runs has as long as those that wait for the target.
        """
        now = self._plane.now()
        busy = self._waits_for == "busy" and self._route.warm
        if self._waits_for == "busy" and not busy and now < self.began + self._longest:
            self.deadline = min(now + self._line.settings.busy, self.began + self._longest)
            return None
        why = f"the request has waited for {now - self.began:.0f} s"
        return self._line.refusal(why, None if busy else self._route.loading)

    def done(self) -> None:
        """The request has ended."""
        now = self._plane.now()
        if self._place is not None:
            self._line.quit(self._place)
            self._place = None
        self._finish(now)
        if self._placed_at:
            seconds, self._placed_at = now - self._placed_at, 0.0
            self._line.leave(seconds, now)

    @property
    def loads(self) -> bool:
        """Whether it waits for a model that does not run."""
        return self._waits_for == "loading" or not self._route.warm

    def told(self) -> str:
        """Where it is, in words, for a client that waits."""
        loading = self._route.loading
        what = str(loading.get("phase") or ("loading" if self._waits_for == "loading" else "waiting"))
        found = f"{what}, {self._plane.now() - self.began:.0f} s"
        left = loading.get("remaining")
        return plain(f"{found}, about {left:.0f} s left" if isinstance(left, int | float) else found)

    def line(self) -> bytes:
        """The header as a line; nothing if it did not wait."""
        found = self.header()
        return b"x-garrison-queue: %b\r\n" % found if found else b""

    def header(self) -> bytes:
        """How it waited, as the value of `X-Garrison-Queue`: a dictionary of structured fields; empty if it did not."""
        if not self.began:
            return b""
        now = self._plane.now()
        found = b"position=%d" % self.position
        for name, seconds in ((b"busy", self._busy), (b"loading", self._loading)):
            seconds += now - self._at if self._waits_for == name.decode() else 0.0
            if seconds or self._waits_for == name.decode():
                found += b", %b=%.3f" % (name, seconds)
        return found

    @property
    def patience(self) -> float | None:
        """Seconds for which whoever starts a target is to try; None for as long as the settings say."""
        limit = self._line.settings.loading
        return None if limit is None else max(0.0, self.deadline - self._plane.now())

    @property
    def _longest(self) -> float:
        """Seconds for which it may wait for a target that does not run."""
        limit = self._line.settings.loading
        return limit if limit is not None else self._plane.settings.start_timeout + _GRACE_SECONDS

    def _begin(self, what: str, now: float) -> None:
        most = self._plane.settings.start_queue
        busy = what == "busy" and self._route.warm
        position = self._line.hold(self._size, most, None if busy else self._route.loading)
        self._waits_for, self._at = what, now
        if not self.began:
            self.began, self.position = now, position

    def _finish(self, now: float) -> None:
        """It waits no longer for what it waited for."""
        what, self._waits_for = self._waits_for, ""
        if not what:
            return
        self.deadline = 0.0
        self._line.drop(self._size)
        if what == "busy":
            self._busy += now - self._at
        else:
            self._loading += now - self._at
