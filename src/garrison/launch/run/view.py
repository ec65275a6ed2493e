"""The seam to what a start shows. The terminal's view is in `cli`."""

import contextlib
from collections.abc import Callable
from typing import ParamSpec, Protocol

from garrison.engines.argv import Endpoint

__all__ = ["LastingView", "StartView"]

_P = ParamSpec("_P")


class StartView(Protocol):
    def note(self, text: str) -> None:
        """A sentence for people: a decision, a finding, or what is being waited for."""

    def starting(self, *, seconds: float, memory_bytes: int) -> None:
        """It goes on starting, told from its beginning on, about once a second; arguments as in `phase`."""

    def phase(self, name: str, *, seconds: float, memory_bytes: int) -> None:
        """The engine entered a phase, `seconds` after it was started, with `memory_bytes` resident in its tree."""

    def line(self, text: str) -> None:
        """A line of the engine's output."""

    def ready(self, *, seconds: float, memory_bytes: int) -> None:
        """The endpoint answers."""

    def running(self, why: str, *, seconds: float, memory_bytes: int) -> None:
        """The engine is assumed to be up; `why` says why it is not known to be ready."""

    def reached(self, endpoint: Endpoint) -> None:
        """How clients reach it, after `ready` or `running`."""

    def stopping(self, reason: str) -> None:
        """The engine is being stopped."""

    def stopped(self, *, seconds: float) -> None:
        """Every process of the engine has exited."""

    def end(self) -> None:
        """Nothing more will be shown: stop what is animated."""


class LastingView:
    """A view whose terminal or pipe may close: errors of writing do not reach the run, which would leave its engine."""

    def __init__(self, view: StartView) -> None:
        self.note, self.phase, self.line = _lasting(view.note), _lasting(view.phase), _lasting(view.line)
        self.starting = _lasting(view.starting)
        self.running, self.reached = _lasting(view.running), _lasting(view.reached)
        self.ready, self.stopping, self.stopped = _lasting(view.ready), _lasting(view.stopping), _lasting(view.stopped)
        self.end = _lasting(view.end)


def _lasting(show: Callable[_P, None]) -> Callable[_P, None]:
    def attempt(*args: _P.args, **kwargs: _P.kwargs) -> None:
        with contextlib.suppress(OSError):
            show(*args, **kwargs)

    return attempt
