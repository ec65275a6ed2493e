"""What is sent, and what the answers mean: both shapes of errors, every status, and a server that does not answer."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.observation import Cause
from garrison.fleet.values.target import TargetSpec
from garrison.fleet.vllm.answers import Completion, completion_of, load_failure, unload_failure
from garrison.fleet.vllm.api import VllmApi
from garrison.net.client import HttpDialer
from garrison.net.errors import TransportCause
from garrison.net.transport import Answer, TransportError
from garrison.testing.adapter_reader import MemoryAdapters
from garrison.testing.clock import FakeClock
from garrison.testing.targets import MemoryFault, MemoryTarget, MemoryTargets, json_answer, refusal

NOW = FakeClock().now()
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
EDGE = TargetSpec(name="edge", base_url="http://edge")


def flat(status: int, kind: str, message: str) -> Answer:
    """An error as older versions write it."""
    return json_answer({"object": "error", "message": message, "type": kind, "param": None, "code": status}, status)


def failed(message: str) -> Answer:
    return refusal(500, "InternalServerError", f"Call to add_lora method failed: {message}")


NO_ROUTE = json_answer({"detail": "Not Found"}, 404)
PROXY = Answer(404, b"<html>nothing here</html>", {"content-type": "text/html"})
LOADED = "The lora adapter 'sql' has already been loaded. If you want ..."
RANK = "LoRA rank 64 is greater than max_lora_rank 16."
INVALID, EXISTS = FailureCode.INVALID_REQUEST, FailureCode.ALREADY_EXISTS
INTERNAL = FailureCode.SERVICE_INTERNAL_ERROR

LOADS: list[tuple[str, Answer, FailureCode, bool, str]] = [
    ("already loaded", refusal(400, "InvalidUserInput", LOADED), EXISTS, False, ""),
    ("already loaded, older", flat(400, "InvalidUserInput", LOADED), EXISTS, False, ""),
    ("conflict", Answer(409, b""), EXISTS, False, ""),
    ("bad path", refusal(404, "NotFoundError", "Loading lora sql failed: No adapter found for /m"), INVALID, False,
     "must exist on the server"),
    ("bad path, older", flat(400, "InvalidUserInput", "No adapter found for /m"), INVALID, False,
     "must exist on the server"),
    ("missing route", NO_ROUTE, INVALID, False, "VLLM_ALLOW_RUNTIME_LORA_UPDATING"),
    ("a proxy's 404", PROXY, INVALID, False, "in front of vLLM"),
    ("name of the base", refusal(400, "InvalidUserInput", "'x' conflicts with a served base model."), INVALID, False,
     "another lora_name"),
    ("rank too high", failed(RANK), INVALID, False, "--max-lora-rank"),
    ("truncated", failed("Error while deserializing header: incomplete metadata"), INVALID, False, "cannot load"),
    ("size mismatch", failed("size mismatch for q_proj"), INVALID, False, "cannot load"),
    ("LoRA off", failed("LoRA is not enabled. Use --enable-lora to enable LoRA."), INVALID, False, "--enable-lora"),
    ("engine died", refusal(500, "InternalServerError", "EngineCore encountered an issue."), INTERNAL, True, ""),
    ("out of memory", failed("CUDA out of memory"), INTERNAL, True, ""),
    ("bad gateway", Answer(502, b"<html>"), INTERNAL, True, ""),
    ("gateway timeout", Answer(504, b""), FailureCode.SERVICE_TIMEOUT, True, ""),
    ("key", json_answer({"error": "Unauthorized"}, 401), FailureCode.INVALID_CREDENTIALS, False, "api_key"),
    ("forbidden", Answer(403, b""), FailureCode.ACCESS_DENIED, False, "lacks permission"),
    ("throttled", Answer(429, b"", {"retry-after": "7"}), FailureCode.THROTTLING, True, ""),
    ("redirect", Answer(302, b"", {"location": "http://portal"}), INVALID, False, "redirects are not followed"),
    ("bad request", refusal(400, "Bad Request", "1 validation error"), INVALID, False, ""),
    ("unprocessable", json_answer({"detail": [{"msg": "Field required"}]}, 422), INVALID, False, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "code", "recoverable", "hint"), [row[1:] for row in LOADS], ids=[r[0] for r in LOADS]
)
def test_load(answer: Answer, code: FailureCode, recoverable: bool, hint: str) -> None:
    found = load_failure(answer, path="/m", staged=False, now=NOW)
    assert found is not None
    assert (found.code, found.recoverable) == (code, recoverable)
    assert hint in (found.hint or "")
    assert found.cause is None


def test_what_the_server_asks_for_is_kept() -> None:
    found = load_failure(Answer(429, b"", {"retry-after": "7"}), path="/m", staged=False, now=NOW)
    assert found is not None
    assert found.retry_after == 7


def test_a_staged_path_that_the_server_does_not_see() -> None:
    answer = refusal(404, "NotFoundError", "Loading lora sql failed: No adapter found for <path>")
    found = load_failure(answer, path="/store/abc", staged=True, now=NOW)
    assert found is not None
    assert "/store/abc" in str(found.hint)
    assert "`adapter_store: none`" in str(found.hint)


def test_what_a_server_says_about_a_key_is_not_repeated() -> None:
    for status in (401, 403):
        found = load_failure(refusal(status, "x", "Incorrect key: sk-secret"), path="/m", staged=False, now=NOW)
        assert "sk-secret" not in json.dumps(found.to_json() if found else None)


def test_a_message_is_one_line_of_bounded_length() -> None:
    found = load_failure(refusal(400, "x", "a\x1b[31m\nb" + "c" * 5000), path="/m", staged=False, now=NOW)
    assert found is not None
    assert found.message.isprintable()
    assert len(found.message) < 500


UNLOADS: list[tuple[str, Answer, FailureCode]] = [
    ("not there", refusal(404, "NotFoundError", "The lora adapter 'sql' cannot be found."), FailureCode.NOT_FOUND),
    (
        "not there, older",
        flat(400, "InvalidUserInput", "The lora adapter 'sql' cannot be found."),
        FailureCode.NOT_FOUND,
    ),
    ("missing route", NO_ROUTE, INVALID),
    ("a proxy's 404", PROXY, INVALID),
    ("bad request", refusal(400, "InvalidUserInput", "'lora_name' needs to be provided"), INVALID),
    ("server error", Answer(500, b""), INTERNAL),
]


@pytest.mark.parametrize(("answer", "code"), [row[1:] for row in UNLOADS], ids=[row[0] for row in UNLOADS])
def test_unload(answer: Answer, code: FailureCode) -> None:
    found = unload_failure(answer, now=NOW)
    assert found is not None
    assert found.code is code


@given(
    st.integers(100, 599), st.binary(max_size=40), st.sampled_from([b"", b'{"error": ', b'{"error": {"message": 1}}'])
)
def test_any_answer_has_a_meaning(status: int, body: bytes, head: bytes) -> None:
    answer = Answer(status, head + body)
    for found in (load_failure(answer, path="/m", staged=True, now=NOW), unload_failure(answer, now=NOW)):
        assert (found is None) == (200 <= status < 300)
    assert isinstance(completion_of(answer, now=NOW), Completion | Failure)


def test_a_probability_that_is_no_number_is_none() -> None:
    body = b'{"choices": [{"text": "a", "logprobs": {"token_logprobs": [' + b"9" * 400 + b"]}}]}"
    assert completion_of(Answer(200, body), now=NOW) == Completion("a", None)


@asynccontextmanager
async def api_of(server: MemoryTarget) -> AsyncIterator[tuple[VllmApi, MemoryTargets]]:
    targets = MemoryTargets({"edge": server})
    async with targets.open(EDGE) as connection:
        yield VllmApi(connection, EDGE, FakeClock()), targets


async def test_what_is_sent() -> None:
    async with api_of(MemoryTarget()) as (api, targets):
        assert (await api.load("sql", "/m")).failure is None
        assert (await api.load("moe", "/m", is_3d=True)).failure is None
        assert (await api.unload("sql")).failure is None
    sent: list[Any] = [one.json for one in targets.requests]
    assert sent == [
        {"lora_name": "sql", "lora_path": "/m"},
        {"lora_name": "moe", "lora_path": "/m", "is_3d_lora_weight": True},
        {"lora_name": "sql"},
    ]


async def test_a_list() -> None:
    async with api_of(MemoryTarget(served={"sql": "/m"})) as (api, _):
        seen = await api.list("acme/tiny")
        other = await api.list("acme/other")
    assert (seen.known, seen.base, seen.served["sql"].root) == (True, "acme/tiny", "/m")
    assert other.cause is Cause.WRONG_BASE


@pytest.mark.parametrize(
    ("result", "code", "sent", "uncertain"),
    [
        pytest.param(TransportError(TransportCause.REFUSED, "no"), "NetworkFailure", False, False, id="refused"),
        pytest.param(TransportError(TransportCause.TIMEOUT, "no", sent=True), "ServiceTimeout", True, True, id="hung"),
        pytest.param(TransportError(TransportCause.RESET, "no", sent=True), "NetworkFailure", True, True, id="cut"),
        pytest.param(Answer(500, b""), "ServiceInternalError", True, True, id="500"),
        pytest.param(Answer(429, b""), "Throttling", True, False, id="429"),
        pytest.param(failed(RANK), "InvalidRequest", True, False, id="permanent 500"),
    ],
)
async def test_whether_it_was_done(result: Any, code: str, sent: bool, uncertain: bool) -> None:
    server = MemoryTarget(faults=[MemoryFault(LOAD, result), MemoryFault(UNLOAD, result)])
    async with api_of(server) as (api, _):
        for reply in (await api.load("sql", "/m"), await api.unload("sql")):
            assert reply.failure is not None
            if code != "InvalidRequest":
                assert str(reply.failure.code) == code
            assert reply.sent is sent
            if code != "InvalidRequest":
                assert reply.uncertain is uncertain


async def test_a_token() -> None:
    async with api_of(MemoryTarget()) as (api, targets):
        found = await api.complete("acme/tiny", "hi", seed=7, timeout=5, logprob=True)
        plain = await api.complete("acme/tiny", "hi", seed=7, timeout=5)
    assert isinstance(found, Completion)
    assert found.logprob is not None
    assert isinstance(plain, Completion)
    assert plain.logprob is None
    assert targets.requests[-1].json["max_tokens"] == 1


async def test_a_server_without_log_probabilities_is_asked_without() -> None:
    server = MemoryTarget(
        faults=[MemoryFault("/v1/completions", refusal(400, "BadRequestError", "max_logprobs"), times=1)]
    )
    async with api_of(server) as (api, targets):
        assert isinstance(await api.complete("acme/tiny", "hi", seed=7, timeout=5, logprob=True), Completion)
    assert "logprobs" not in targets.requests[-1].json


@pytest.mark.parametrize("shape", ["nested", "flat"])
async def test_a_simulated_server(start_sim: Any, shape: str) -> None:
    adapters = MemoryAdapters()
    adapters.put("/m", "one")
    adapters.put("/high", "two", rank=64)
    sim = await start_sim(adapters=adapters, error_shape=shape)
    target = TargetSpec(name="edge", base_url=sim.url)
    async with HttpDialer().open(target) as connection:
        api = VllmApi(connection, target, FakeClock())
        assert (await api.load("sql", "/m")).failure is None
        codes = [
            (await api.load("sql", "/m")).failure,
            (await api.load("x", "/nothing")).failure,
            (await api.load("x", "/high")).failure,
            (await api.load("acme/tiny", "/m")).failure,
            (await api.unload("x")).failure,
        ]
        assert [one.code for one in codes if one] == [EXISTS, INVALID, INVALID, INVALID, FailureCode.NOT_FOUND]
        assert isinstance(await api.complete("sql", "hi", seed=7, timeout=5), Completion)
        assert (await api.list(None)).served["sql"].parent == "acme/tiny"
        assert (await api.unload("sql")).failure is None
        assert "sql" not in (await api.list("acme/tiny")).served
