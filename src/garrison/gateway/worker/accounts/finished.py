"""Requests that have ended, until they are reported. What is kept of each is its account; it becomes a value later."""

from collections import deque
from typing import TYPE_CHECKING

from garrison.base.output.plain_text import plain
from garrison.gateway.link.reports import CaptureValue, FinishedValue
from garrison.gateway.requests.paths import Asked, Kind

if TYPE_CHECKING:
    from garrison.gateway.worker.accounts.account import Account

__all__ = ["FinishedRequests", "finished_value", "path_of", "shown"]

_MOST = 2000
"""Between two reports. What is too much is counted only."""
_MOST_TEXT = 200
_PREFIXES = {Kind.LLAMA_CPP: "/llama-cpp/", Kind.UPSTREAM: "/upstream/"}


class FinishedRequests:
    """Those since the last report.

    Attributes:
        wanted: they are reported at all.
        captured: the latest of those of which a capture is kept.
        lost: those that were too many.
    """

    __slots__ = ("_accounts", "captured", "lost", "wanted")

    def __init__(self) -> None:
        self._accounts: list[Account] = []
        self.captured: deque[Account] = deque(maxlen=0)
        self.wanted = False
        self.lost = 0

    def add(self, account: "Account") -> None:
        """Keep a request that has ended."""
        if account.capture is not None:
            self.captured.append(account)
        if self.wanted and account.asked_for.kind is not Kind.PROXY:  # a call of the management API
            if len(self._accounts) < _MOST:
                self._accounts.append(account)
            else:
                self.lost += 1

    def give_back(self, accounts: "list[Account]", lost: int) -> None:
        """Keep what could not be reported, within the bound: the latest."""
        every = accounts + self._accounts
        self._accounts = every[-_MOST:] if _MOST else []
        self.lost += lost + len(every) - len(self._accounts)

    def capture(self, most: int) -> None:
        """Keep at most so many captures between two reports."""
        if self.captured.maxlen != most:
            self.captured = deque(self.captured, maxlen=most)

    def take_captures(self) -> "list[CaptureValue]":
        """Return the captures, and begin anew."""
        found = [one.capture.value(one.id.decode()) for one in self.captured if one.capture is not None]
        self.captured.clear()
        return found

    def take(self) -> "tuple[list[Account], int]":
        """Return them and the number of those that were lost, and begin anew."""
        found, lost = self._accounts, self.lost
        self._accounts, self.lost = [], 0
        return found, lost


def finished_value(account: "Account", offset: float) -> FinishedValue:
    """Return what is reported.

    Args:
        offset: of Unix time to the loop's.
    """
    own = account.id.decode()
    found = FinishedValue(
        id=own,
        at=account.at + offset,
        model=account.model if account.model == account.route else shown(account.model),
        path=path_of(account.asked_for),
        route=account.route,
        target=account.target,
        key_id=account.key,
        request_id=own if account.request_id is account.id else shown(account.request_id.decode("latin-1")),
        peer=account.peer,
        status=account.status,
        outcome=account.outcome,
        stream=account.stream,
        seconds=account.seconds,
        queue=account.waited - account.woken,
        wake=account.woken,
        overhead=account.overhead,
        first_byte=account.first_byte,
        first_token=account.first_token,
        tokens=account.tokens,
        bytes_in=account.bytes_in,
        bytes_out=account.bytes_out,
        retries=account.tries - 1 if account.tries > 1 else 0,
    )
    trace = account.trace
    if trace is not None and trace.sampled:
        found.trace_id, found.span_id, found.parent_id = (one.decode() for one in (trace.id, trace.span, trace.parent))
    return found


def path_of(asked: Asked) -> str:
    """Return the path of a request, without the query."""
    path = asked.path.decode("latin-1") or f"{_PREFIXES.get(asked.kind, '')}{asked.name}{asked.rest.decode('latin-1')}"
    return shown(path)


def shown(text: str) -> str:
    """Return what a stranger has written as it can be shown: within a limit, without control characters."""
    return plain(text[:_MOST_TEXT])
