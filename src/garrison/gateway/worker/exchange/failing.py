"""What happens when a target cannot be asked, fails or is silent: another one is asked, or the request is refused."""

from random import random

from garrison.base.errors import GarrisonError, UnreachableError
from garrison.gateway.choose.failure import Failure, failure_of
from garrison.gateway.choose.retry import Attempt, GiveUp, blames_target, decide
from garrison.gateway.choose.retry_budget import RetryBudget
from garrison.gateway.worker.exchange.state import ExchangeState

__all__ = ["Failing"]

_MOST_ASKED = 8
"""Targets that cannot be asked, after which no further one is looked for."""
_NO_BUDGET = RetryBudget(share=0.0, minimum=0)


class Failing(ExchangeState):
    """An exchange whose target failed."""

    __slots__ = ()

    def _unavailable(self, status: int) -> bool:
        """The target says that it cannot answer. Return whether another one is asked instead."""
        failure, connection = failure_of(status), self._upstream
        assert self.target is not None
        if failure is None or connection is None or self.target.value.hop:  # a node says so of one of its instances
            return False
        attempt = Attempt(number=self._tries, failure=failure, accepted=True)
        self._blame(attempt)
        self._failure = UnreachableError(f"{self._model} answered {status}", hint="Send the request again."), 502
        self._upstream = None
        if self._retry(attempt):
            connection.abort()
            return True
        self._upstream = connection
        return False

    def _asks_another(self) -> bool:
        """The target does not have the response. Return whether another one is asked for it instead."""
        connection, target, route = self._upstream, self.target, self.route
        assert target is not None
        assert route is not None
        failed = (*self._failed, target)
        if connection is None or not route.has_others(failed, self._plane.now()):
            return False
        self._upstream, self._failed = None, failed
        connection.abort()
        self._leave()
        self._choose(route.tried(failed))
        return True

    def _elsewhere(self, error: GarrisonError) -> None:
        """A target was chosen and cannot be asked, which says nothing about its health."""
        target, route = self.target, self.route
        assert target is not None
        assert route is not None
        self._leave()
        self._failed += (target,)
        if len(self._failed) >= _MOST_ASKED:
            self._refuse(error)
            return
        self._failure = error, None
        self._choose(route.tried(self._failed))

    def _lost(self, attempt: Attempt, reason: str) -> None:
        self._blame(attempt)
        error = UnreachableError(f"{self._model} did not answer: {reason}", hint="Send the request again.")
        self._failure = error, 502
        if not self._retry(attempt):
            self._refuse(error, 502)

    def _blame(self, attempt: Attempt) -> None:
        """Tell the breaker, unless the failure is nobody's: then the attempt that follows does."""
        breaker = self._breaker
        if breaker is not None and blames_target(attempt):
            self._breaker = None
            breaker.failed(self._plane.now(), self._generation)

    def _retry(self, attempt: Attempt) -> bool:
        """Ask again, if there is whom to ask, and return whether that is so."""
        target, route = self.target, self.route
        assert target is not None
        assert route is not None
        now = self._plane.now()
        failed = (*self._failed, target)
        if not attempt.stale and not route.has_others(failed, now):
            return False
        decision = decide(attempt, route.budget or _NO_BUDGET, now, draw=random())  # noqa: S311 - evenness, not a secret
        if isinstance(decision, GiveUp):
            return False
        if not decision.other_target:  # the same attempt, over a new connection, which cannot be stale
            self._connect(target)
            return True
        self._leave()
        self._failed = failed
        if decision.delay:
            self._again = self._plane.later(decision.delay, lambda: self._choose(route.tried(failed)))
        else:
            self._choose(route.tried(failed))
        return True

    def expired(self) -> None:
        """It has waited for too long, or the target has been silent for too long."""
        times = self._times
        if self._ends and self._plane.now() >= self._ends and times is not None:
            self._give_up()
            self._late(f"the request took longer than {times.whole:g} s")
        elif self._waiter is not None and self._waiter.is_next:
            self.deadline = 0.0  # another one that expired a moment ago has made way for it
        elif self._waiter is not None and self._waiter.deadline:
            error = self._waiter.overdue()
            if error is None:
                self.deadline = self._waiter.deadline
            else:
                self._give_up()
                self._refuse(error)
        else:
            self._give_up()
            self._blame(Attempt(number=self._tries, failure=Failure.TIMEOUT))
            silent = (None if times is None else times.first_byte) or self._plane.silence_seconds
            self._late(f"{self._model} sent nothing for {silent:g} s")

    def _late(self, text: str) -> None:
        if self._started:
            self._end()
            self._inbound.abort()
        else:
            self._refuse(UnreachableError(text, hint="Send the request again."), status=504)
