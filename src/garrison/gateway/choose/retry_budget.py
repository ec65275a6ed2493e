"""How many retries a route may have: a share of its requests, so that an outage does not multiply its load."""

from garrison.base.errors import InvalidError

__all__ = ["RetryBudget"]


class RetryBudget:
    """Counts requests and retries over a sliding window, which is estimated from this window and the one before."""

    __slots__ = (
        "_begun",
        "_minimum",
        "_requests",
        "_requests_before",
        "_retries",
        "_retries_before",
        "_share",
        "_window",
    )

    def __init__(self, share: float = 0.1, minimum: int = 3, window: float = 10.0) -> None:
        """Set the budget.

        Args:
            share: retries per request.
            minimum: retries in each window however few requests there are.
            window: seconds.
        """
        if not 0 <= share <= 1 or minimum < 0 or not window > 0:
            raise InvalidError(
                f"a retry budget of {share} of the requests and {minimum} in {window} s cannot be used",
                hint="Set a share from 0 to 1, a minimum of 0 or more, and a window above 0.",
            )
        self._share = share
        self._minimum = minimum
        self._window = window
        self._begun = 0.0
        self._requests = self._requests_before = 0
        self._retries = self._retries_before = 0

    def request(self, now: float) -> None:
        """Count a request; its retries are not requests."""
        if now - self._begun >= self._window:
            self._slide(now)
        self._requests += 1

    def take(self, now: float) -> bool:
        """Count a retry if there is room for it, and return whether there is."""
        if now - self._begun >= self._window:
            self._slide(now)
        left = 1 - (now - self._begun) / self._window
        requests = self._requests + self._requests_before * left
        retries = self._retries + self._retries_before * left
        if retries + 1 > self._minimum + self._share * requests:
            return False
        self._retries += 1
        return True

    def _slide(self, now: float) -> None:
        follows = now - self._begun < 2 * self._window
        self._requests_before = self._requests if follows else 0
        self._retries_before = self._retries if follows else 0
        self._requests = self._retries = 0
        self._begun = self._begun + self._window if follows else now
