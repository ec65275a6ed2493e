"""`tokens_per_minute` of a key, on a real server with a simulator behind it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from server_lab import Labs, ServerLab, chat_body, wait_for

pytestmark = pytest.mark.system


@pytest.mark.parametrize("stream", [False, True])
def test_a_key_that_has_used_its_tokens_is_refused_and_others_are_not(
    labs: Labs, tiny_model: Path, stream: bool
) -> None:
    lab = labs(require_inference_auth="1")
    lab.start()
    lab.create("a", tiny_model)
    made = lab.api("POST", "/auth/keys", {"name": "small", "limits": {"tokens_per_minute": 50}})
    other = lab.api("POST", "/auth/keys", {"name": "other"})["key"]
    small = {"Authorization": f"Bearer {made['key']}"}

    def chat(most: int, headers: dict[str, str] = small, **fields: object) -> "tuple[int, str, str]":
        answer = lab.http.post("/v1/chat/completions", json=chat_body("a", most, **fields), headers=headers)
        return answer.status_code, answer.text, answer.headers.get("retry-after", "")

    status, text, _ = chat(200, ignore_eos=True, stream=stream)
    assert status == 200, text
    assert text.endswith("data: [DONE]\n\n") if stream else json.loads(text)["usage"]["completion_tokens"] == 200
    lab.api("POST", "/instances/a/stop")
    status, text, wait = chat(1)
    assert (status, json.loads(text)["error"]["type"]) == (429, "rate_limit_error"), text
    assert int(wait) > 60, "more than a minute's tokens were used"
    assert lab.instance("a")["state"] == "stopped", "it did not reach the engine"
    assert chat(1, {"Authorization": f"Bearer {other}"})[0] == 200
    # A limit that is raised takes effect at once; what was used stays used.
    lab.api("PATCH", f"/auth/keys/{made['id']}", {"limits": {"tokens_per_minute": 10_000}})
    wait_for(lambda: chat(1)[0] == 200, 5, "accepted with a higher limit")


def test_a_key_that_a_command_makes_is_accepted_at_once(labs: Labs, tiny_model: Path) -> None:
    lab = labs(require_inference_auth="1", require_management_auth="1")
    lab.start()
    for number in range(5):
        token = keys(lab, "create", f"k{number}", "--inference", "--read", "-q")
        headers = {"Authorization": f"Bearer {token}"}
        path = "/v1/models" if number % 2 else "/api/v1/instances"
        answer = lab.http.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
    refused = lab.http.get("/v1/models", headers={"Authorization": "Bearer sk-nobodys"})
    assert refused.status_code == 401


def test_a_key_that_a_command_ends_is_refused_at_once(labs: Labs) -> None:
    lab = labs(require_inference_auth="1", require_management_auth="1")
    lab.start()

    def status(path: str, token: str) -> int:
        return lab.http.get(path, headers={"Authorization": f"Bearer {token}"}).status_code

    for number, (ends, path) in enumerate(
        (ends, path) for ends in ("delete", "rotate", "edit") for path in ("/api/v1/instances", "/v1/models")
    ):
        name = f"k{number}"
        token = keys(lab, "create", name, "--inference", "--read", "-q")
        assert status(path, token) == 200
        keys(lab, ends, name, *{"delete": ["-y"], "rotate": ["-q"], "edit": ["--disable"]}[ends])
        assert status(path, token) == 401, ends


def keys(lab: ServerLab, *words: str) -> str:
    argv = [sys.executable, "-m", "garrison.cli.main", "keys", *words]
    return subprocess.run(argv, env=lab.environ, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
