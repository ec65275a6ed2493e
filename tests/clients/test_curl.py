"""curl, and what it can be told to do with HTTP/1.1."""

import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from client_lab import EVERY, PROMPT, SIMULATED, Served, on

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

CHAT = "/v1/chat/completions"
RANK = "/v1/rerank"


@dataclass(frozen=True)
class Told:
    """What came of one call.

    Attributes:
        body: of the last answer.
        wire: the heads that were sent and received, as `-v` shows them.
    """

    body: str
    wire: str

    @property
    def statuses(self) -> list[int]:
        return [int(line.split()[2]) for line in self.wire.splitlines() if line.startswith("< HTTP/")]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def curl(served: Served, path: str, *arguments: str, body: Any = None, key: str | None = None) -> Told:
    """Run curl; the key comes by standard input."""
    argv = ["curl", "-sS", "-v", "--max-time", "300", "--noproxy", "*", "--config", "-", *arguments]
    if body is not None:
        argv += ["-H", "Content-Type: application/json"]
        argv += [] if "-T" in arguments else ["--data-binary", body if isinstance(body, str) else json.dumps(body)]
    config = f'header = "Authorization: Bearer {key or served.key}"\n'
    done = subprocess.run([*argv, served.url + path], input=config, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Told(done.stdout, done.stderr)


def asked(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 3, **fields}


@on(*EVERY)
def test_a_request_and_a_stream(served: Served) -> None:
    assert curl(served, CHAT, body=asked(served.chat)).json["choices"]
    lines = curl(served, CHAT, "-N", body=asked(served.chat, stream=True)).body.splitlines()
    assert [one for one in lines if one][-1] == "data: [DONE]"


@on(*EVERY)
def test_it_waits_for_100_continue(served: Served) -> None:
    told = curl(served, CHAT, "-H", "Expect: 100-continue", "--expect100-timeout", "60", body=asked(served.chat))
    assert told.statuses == [100, 200]
    assert told.json["choices"]


@on(SIMULATED)
def test_a_large_body_is_announced_by_itself(served: Served, tmp_path: Path) -> None:
    text = "ab " * 700_000
    (tmp_path / "body.json").write_text(json.dumps({"model": "recorded", "query": text}))
    told = curl(served, RANK, "--expect100-timeout", "60", body=f"@{tmp_path / 'body.json'}")
    assert told.statuses == [100, 200]
    assert told.json["body"]["query"] == text


@on(*EVERY)
def test_a_chunked_upload(served: Served, tmp_path: Path) -> None:
    (tmp_path / "body.json").write_text(json.dumps(asked(served.chat)))
    told = curl(served, CHAT, "-H", "Transfer-Encoding: chunked", body=f"@{tmp_path / 'body.json'}")
    assert "> Transfer-Encoding: chunked" in told.wire
    assert told.json["choices"]


@on(*EVERY)
def test_http_1_0(served: Served) -> None:
    told = curl(served, CHAT, "-0", body=asked(served.chat))
    assert told.json["choices"]
    streamed = curl(served, CHAT, "-0", "-N", body=asked(served.chat, stream=True))
    assert streamed.body.rstrip().endswith("data: [DONE]")
    assert "chunked" not in (told.wire + streamed.wire).lower()


@on(SIMULATED)
def test_head(served: Served) -> None:
    for path in ("/v1/models", f"/v1/models/{served.chat}", "/models"):
        whole, head = curl(served, path), curl(served, path, "-I")
        assert head.statuses == [200]
        assert f"content-length: {len(whole.body.encode())}" in head.wire.lower()
    assert curl(served, CHAT, "-I").statuses == [404]


@on(*EVERY)
def test_connections_are_kept(served: Served) -> None:
    one = [f"{served.url}/v1/models", "-o", "/dev/null"]
    told = curl(served, "/v1/models", *one, *one, "-o", "/dev/null", "-w", "%{num_connects} ")
    assert told.body.split() == ["1", "0", "0"]
    body = json.dumps(asked(served.chat, stream=True))
    more = ["-o", "/dev/null", "-d", body, "-H", "Content-Type: application/json", served.url + CHAT]
    told = curl(served, CHAT, *more, "-o", "/dev/null", "-w", "%{http_code} %{num_connects} ")
    assert told.body.split() == ["200", "1", "200", "0"]


@on(SIMULATED)
def test_a_compressed_answer(served: Served) -> None:
    asks = {"model": "recorded", "query": "a" * 5000}
    told = curl(served, RANK, "--compressed", body=asks)
    assert "< content-encoding: " in told.wire.lower()
    assert told.json["body"] == asks
    assert "< content-encoding: " not in curl(served, RANK, body=asks).wire.lower()
    counted = served.make_key("counted", limits={"tokens_per_minute": 100_000})
    told = curl(served, RANK, "--compressed", body=asks, key=counted)
    assert "< content-encoding: " not in told.wire.lower(), "what it uses has to be read on the way"
    assert told.json["headers"]["accept-encoding"] == "identity"


@on(SIMULATED)
def test_a_form(served: Served, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4000
    (tmp_path / "a.wav").write_bytes(data)
    for order in (
        ("model=claude-haiku", f"file=@{tmp_path / 'a.wav'}"),
        (f"file=@{tmp_path / 'a.wav'}", "model=recorded"),
    ):
        told = curl(served, "/v1/audio/transcriptions", "-F", order[0], "-F", order[1])
        assert told.json["text"] == f"recorded a.wav {len(data)} {hashlib.sha256(data).hexdigest()}"


@on(SIMULATED)
def test_http2_is_offered_and_not_taken(served: Served) -> None:
    told = curl(served, CHAT, "--http2", body=asked(served.chat))
    assert "> Upgrade: h2c" in told.wire
    assert (told.statuses, bool(told.json["choices"])) == ([200], True)


@on(SIMULATED)
def test_credentials_and_errors(served: Served) -> None:
    told = curl(served, CHAT, body=asked(served.chat), key="none")
    assert (told.statuses, told.json["error"]["type"]) == ([401], "authentication_error")
    assert "< www-authenticate:" in told.wire.lower()
    told = curl(served, CHAT, body=asked("fats"))
    assert (told.statuses, told.json["error"]["code"]) == ([404], "not-found")
    assert "Did you mean fast" in told.json["error"]["message"]
    assert curl(served, CHAT, body="{").statuses == [400]
    assert curl(served, CHAT, "-X", "PUT", body=asked(served.chat)).json["error"]["message"].endswith("Use POST.")
    told = curl(served, "/v1beta/models/fast:generateContent", body={"contents": []})
    assert (told.statuses, told.json["error"]["code"]) == ([404], "not-found")


@on(SIMULATED)
def test_a_stream_that_is_left(served: Served) -> None:
    assert curl(served, CHAT, body=asked(served.slow)).json, "it runs"
    before = served.generated()
    long = asked(served.slow, stream=True, max_tokens=2000, ignore_eos=True)
    argv = ["curl", "-sS", "-N", "--noproxy", "*", "--config", "-", served.url + CHAT]
    argv += ["-H", "Content-Type: application/json", "-d", json.dumps(long)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f'header = "Authorization: Bearer {served.key}"\n'.encode())
    process.stdin.close()
    assert process.stdout.readline().startswith(b"data: ")
    process.kill()
    process.stdout.close()
    process.wait(10)
    served.wait_until_idle()
    assert served.generated() - before < 1000, "the engine has stopped"


@on(SIMULATED)
def test_a_cold_model_is_started(served: Served) -> None:
    served.stop(served.cold)
    assert curl(served, CHAT, body=asked(served.cold)).json["choices"]
