"""`llm-comply`, in all its formats: what fails through the gateway fails at the engine alone as well.

The engine does not pass everything: its answers have nulls that the published schemas do not know, and it has no API of
Google's. So the same process is asked twice under the same name, and what fails is compared, check by check.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_model as maker
from client_environments import python_of
from client_lab import MANAGER, PROMPT
from server_lab import ServerLab
from tests_environment import environment

pytestmark = [pytest.mark.engine("vllm"), pytest.mark.timeout(900)]

FORMATS = ("openai-chat", "open-responses", "anthropic", "google-genai", "google-interactions")
NAME = "gpt-5-claude-3-5"
"""By the name, llm-comply decides whether a model can reason."""
OPTIONS = {
    "served_model_name": NAME, "enforce_eager": True, "dtype": "bfloat16", "max_model_len": 1024,
    "enable_auto_tool_choice": True, "tool_call_parser": "hermes",
    "override_generation_config": {"temperature": 0}, "enable_prefix_caching": False,
}  # fmt: skip
_SECONDS = 400
_VALUE = re.compile(r"\{.*\}|\[.*\]", re.DOTALL)
"""What differs from answer to answer in what a check says."""


@dataclass(frozen=True)
class Endpoint:
    url: str
    key: str

    def failures(self, form: str) -> dict[str, set[str]]:
        """Run llm-comply. What fails, by the name of the test; a test that passes or is left out has nothing."""
        argv = [python_of("llm-comply"), "-m", "llm_comply.cli", "--format", form, "--json"]
        argv += ["--base-url", f"{self.url}/v1", "--model", NAME, "--timeout", "100"]
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environ = kept | {"OPENRESPONSES_API_KEY": self.key}
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=_SECONDS, check=False)
        assert done.returncode in (0, 1), done.stderr
        told = json.loads(done.stdout)["results"]
        assert told, done.stderr
        return {one["id"]: _failures(one) for one in told}


def _failures(result: dict[str, Any]) -> set[str]:
    if result["status"] in ("passed", "skipped"):
        return set()
    return {_VALUE.sub("…", text) for text in result["errors"] or [result["status"]]}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, home_with: Callable[[str], dict[str, str]]) -> Iterator[ServerLab]:
    root = tmp_path_factory.mktemp("comply")
    (root / "data" / "engines").mkdir(parents=True)
    place = Path(home_with("vllm")["GARRISON_DATA_DIR"], "engines", "vllm").resolve()
    (root / "data" / "engines" / "vllm").symlink_to(place)
    environ = environment(root / "home") | {"VLLM_CPU_KVCACHE_SPACE": "1"}
    made = ServerLab(
        root, environ, require_inference_auth="1", require_management_auth="1", management_keys=MANAGER,
        on_demand_start_timeout="300",
    )  # fmt: skip
    made.http.headers["Authorization"] = f"Bearer {MANAGER}"
    made.http.timeout = 300
    try:
        made.start()
        made.create(NAME, maker.make_model(root / "ends", ends=True), "vllm", backend_options=OPTIONS)
        answer = made.http.post("/v1/completions", json={"model": NAME, "prompt": PROMPT, "max_tokens": 2})
        assert answer.is_success, answer.text
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def gateway(lab: ServerLab) -> Endpoint:
    return Endpoint(f"http://127.0.0.1:{lab.port}", lab.api("POST", "/auth/keys", {"name": "client"})["key"])


@pytest.fixture(scope="module")
def alone(lab: ServerLab) -> Endpoint:
    """The engine itself, with the key that the server made for it."""
    shown = lab.instance(NAME)
    pairs = Path(f"/proc/{shown['pid']}/environ").read_bytes().split(b"\0")
    (key,) = [one.removeprefix(b"VLLM_API_KEY=") for one in pairs if one.startswith(b"VLLM_API_KEY=")]
    return Endpoint(f"http://127.0.0.1:{shown['port']}", key.decode())


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_fails_that_does_not_fail_alone(alone: Endpoint, gateway: Endpoint, form: str) -> None:
    before, through = alone.failures(form), gateway.failures(form)
    assert through.keys() == before.keys()
    worse = {name: found - before[name] for name, found in through.items() if found - before[name]}
    assert worse == {}
