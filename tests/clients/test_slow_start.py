"""A model that takes longer to start than requests are held: what the clients of each API do about it by themselves."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI
from server_lab import ServerLab
from tests_environment import environment

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[ServerLab]:
    made = ServerLab(tmp_path, environment(tmp_path / "home"), on_demand_start_timeout="1")
    made.start()
    yield made
    made.close()


def test_openai_asks_again_until_the_model_is_there(lab: ServerLab, tiny_model: Path) -> None:
    lab.create("late", tiny_model, backend_options={"startup_delay": 4})
    client = OpenAI(base_url=f"http://127.0.0.1:{lab.port}/v1", api_key="any")
    options = {"model": "late", "prompt": "a b", "max_tokens": 2}
    with pytest.raises(openai.InternalServerError) as raised:
        client.with_options(max_retries=0).completions.create(**options)
    response = raised.value.response
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert response.json()["loading"]["state"] == "starting"
    assert client.with_options(max_retries=10).completions.create(**options).choices


def test_anthropic_asks_again_until_the_model_is_there(lab: ServerLab) -> None:
    server = Path(__file__).with_name("recorded_server.py")
    argv = ["sh", "-c", f"sleep 3; exec python -P {server} {{port}}"]
    custom = {"backend_type": "custom", "custom": {"argv": argv, "ready_path": "/health"}, "backend_options": {}}
    lab.api("POST", "/instances/late", custom)
    client = Anthropic(base_url=f"http://127.0.0.1:{lab.port}", api_key="any", max_retries=10)
    answer = client.messages.create(model="late", max_tokens=8, messages=[{"role": "user", "content": "hi"}])
    assert answer.content
