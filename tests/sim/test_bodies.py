import pytest

from garrison.sim.api.bodies import error_body
from garrison.sim.engine import Refusal


@pytest.mark.timeout(10)
def test_a_long_path_in_a_message() -> None:
    body = error_body(Refusal(404, "NotFoundError", "/a" * 500_000, None), "nested")
    assert len(body) < 10_000
