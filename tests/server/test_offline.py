"""The state of an instance whose server does not run."""

import pytest

from garrison.instances.values.state import State
from garrison.server.offline import state_without_server


@pytest.mark.parametrize(
    ("stored", "alive", "state"),
    [
        (State.RUNNING, True, State.RUNNING),
        (State.SLEEPING, True, State.SLEEPING),
        (State.STARTING, True, State.STARTING),
        (State.STOPPED, True, State.RUNNING),
        (State.FAILED, True, State.RUNNING),
        (State.RUNNING, False, State.STOPPED),
        (State.DRAINING, False, State.STOPPED),
        (State.RESTARTING, False, State.STOPPED),
        (State.STOPPED, False, State.STOPPED),
        (State.FAILED, False, State.FAILED),
    ],
)
def test_what_lives_counts(stored: State, alive: bool, state: State) -> None:
    found, reason = state_without_server(stored, "as stored", alive=alive)
    assert found is state
    assert reason == "as stored" if found is stored else reason != "as stored"
