"""How a request waits for a place of its route, and what its client is told meanwhile."""

from garrison.base.errors import GarrisonError
from garrison.gateway.worker.exchange.early_stream import Comments, EarlyStream
from garrison.gateway.worker.exchange.failing import Failing
from garrison.gateway.worker.exchange.waiter import Waiter

__all__ = ["Waiting"]


class Waiting(Failing):
    """An exchange that waits."""

    __slots__ = ()

    def _take_place(self) -> None:
        """Take one of the places of the route, or wait for one."""
        try:
            if self._waits().enter():
                self._choose()
            else:
                self.account.waits()
                self._begin_to_wait()
        except GarrisonError as error:
            self._refuse(error)

    def _waits(self) -> "Waiter":
        if self._waiter is None:
            assert self.route is not None
            holder, priority = self._plane.callers.holder_of(self._who, self._inbound.peer)
            self._waiter = Waiter(self._plane, self.route, holder, priority, len(self._data), self._has_place)
        return self._waiter

    def _has_place(self) -> None:
        if self._is_current:
            self.account.goes_on()
            self._end_wait()
            self._choose()

    def _begin_to_wait(self) -> None:
        assert self._waiter is not None
        self.deadline = min(self._waiter.deadline, self._ends) if self._ends else self._waiter.deadline
        self._plane.timed(self)
        seconds = self._plane.settings.loading_comments
        if seconds and self._comments is None and self._takes_comments():
            self._comments = Comments(self._plane, seconds, self._comment)

    def _takes_comments(self) -> bool:
        named = self._named
        filtered = self._filter is not None and "stream" in self._filter.names
        return named is not None and named.stream and not filtered and not self._request.http10

    def _comment(self) -> None:
        """Tell a client that waits for a stream where the start of its model is."""
        waiter = self._waiter
        assert waiter is not None
        if self._early is None and not waiter.loads:
            return  # it waits for other requests
        if self._early is None:
            keep = self._request.keep_alive and not self._plane.draining
            lines = b"x-request-id: %b\r\nx-garrison-queue: %b\r\n" % (self._id, waiter.header())
            self._early = EarlyStream(self._inbound, self._request, lines, keep=keep)
        self._early.comment(waiter.told())
