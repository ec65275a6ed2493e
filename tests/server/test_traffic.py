"""What a real server says about the requests that it carries, and what is left of that when it is killed."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from server_lab import Labs, ServerLab, chat_body, lines_of, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


def total(lab: ServerLab) -> tuple[int, int]:
    found = lab.api("GET", "/usage")["total"]
    return found["requests"], found["tokens_out"]


def test_usage_outlives_a_server_that_is_killed_and_counts_once(lab: ServerLab, tiny_model: Path) -> None:
    lab.create("a", tiny_model, backend_options={"tokens_per_second": 20})
    assert lab.chat("a", most=4).is_success
    wait_for(lambda: total(lab) == (1, 4), 20, "stored")
    with lab.http.stream("POST", "/v1/chat/completions", json=chat_body("a", 30, stream=True)) as answer:
        lines = lines_of(answer)
        assert next(lines)
        lab.kill()
        events = [json.loads(one.removeprefix("data: ")) for one in lines if one != "data: [DONE]"]
    assert all(one["choices"] for one in events), "the usage that the client did not ask for is hidden"
    lab.start()
    wait_for(lambda: total(lab) == (2, 34), 20, "the worker had counted it meanwhile")
    (row,) = lab.api("GET", "/usage?group_by=route")["rows"]
    assert (row["route"], row["uncounted"], row["failed"]) == ("a", 0, 0)


def test_a_request_in_progress_is_listed_and_ended_and_is_in_the_activity(lab: ServerLab, tiny_model: Path) -> None:
    lab.create("a", tiny_model, backend_options={"tokens_per_second": 20})
    body = chat_body("a", 1000, stream=True, ignore_eos=True)
    with lab.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.headers["server-timing"].startswith("queue;dur=")
        lines = lines_of(answer)
        assert next(lines)
        found = lab.api("GET", "/requests")
        (one,) = found["requests"]
        assert (one["phase"], one["model"], one["stream"]) == ("answering", "a", True)
        lab.api("DELETE", f"/requests/{one['id']}", status=204)
        with pytest.raises(httpx2.RemoteProtocolError):
            list(lines)
    wait_for(lambda: lab.instance("a")["requests"] == 0, 5, "the engine is told")
    assert lab.api("GET", "/requests") == {"requests": [], "more": 0, "silent": 0}

    def ended() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = lab.api("GET", "/activity")
        return rows

    wait_for(ended, 5, "reported")
    (row,) = ended()
    assert (row["id"], row["outcome"], row["status"]) == (one["id"], "stopped", 200)
    assert row["wake"] > 0, "it waited for the engine"


def test_a_worker_that_does_not_answer_is_not_one_without_requests(lab: ServerLab, tiny_model: Path) -> None:
    lab.create("a", tiny_model, backend_options={"tokens_per_second": 20})
    body = chat_body("a", 1000, stream=True, ignore_eos=True)
    with lab.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert next(lines_of(answer))
        (worker,) = lab.workers()
        os.kill(worker, signal.SIGSTOP)
        try:
            listed, stopped = garrison(lab, "list"), garrison(lab, "stop", "some-id")
        finally:
            os.kill(worker, signal.SIGCONT)
    assert (listed["requests"], listed["silent"]) == ([], 1)
    assert stopped["code"] == "not-ready"


def garrison(lab: ServerLab, *words: str) -> dict[str, Any]:
    argv = [sys.executable, "-m", "garrison.cli.main", "requests", *words, "--json"]
    ended = subprocess.run(argv, env=lab.environ, stdout=subprocess.PIPE, timeout=60, check=False)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_the_access_log_has_a_line_for_each_request_and_a_capture_is_kept(
    labs: Labs, tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "access.jsonl"
    lab = labs(gateway_access_log=str(path), gateway_captures="5")
    lab.start()
    lab.create("a", tiny_model)
    assert lab.chat("a").is_success
    assert lab.chat("nobody").status_code == 404
    wait_for(lambda: path.exists() and len(path.read_text().splitlines()) == 2, 10, "written")
    good, bad = (json.loads(one) for one in path.read_text().splitlines())
    assert (good["status"], good["route"], good["outcome"], good["tokens"][1]) == (200, "a", "ok", 8)
    assert (bad["status"], bad["model"], bad["outcome"]) == (404, "nobody", "not-found")
    assert path.stat().st_mode & 0o777 == 0o600
    capture = lab.api("GET", f"/captures/{good['id']}")
    assert json.loads(capture["request"]["body"])["model"] == "a"
    assert json.loads(capture["answer"]["body"])["usage"]["completion_tokens"] == 8
    assert "capture" not in good, "the log has no bodies"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """A collector of spans: its URL, and what it got."""
    got: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", got
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_span_of_a_request_is_in_the_trace_of_its_client(
    labs: Labs, tiny_model: Path, collector: tuple[str, list[bytes]]
) -> None:
    trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    url, got = collector
    lab = labs(gateway_traces=url)
    lab.start()
    lab.create("a", tiny_model)
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    lab.http.headers["traceparent"] = f"00-{trace}-{parent}-01"
    assert lab.chat("a", most=4).is_success
    wait_for(lambda: got, 20, "sent")
    found = trace_service.ExportTraceServiceRequest.FromString(got[0])
    (span,) = found.resource_spans[0].scope_spans[0].spans
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (trace, parent)
    assert span.name == "/v1/chat/completions"
