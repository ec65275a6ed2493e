"""Answers for failures, as the clients of each API read them."""

import json

import pytest

from garrison.base.errors import (
    DeniedError,
    EngineDiedError,
    EngineTimeoutError,
    GarrisonError,
    InternalError,
    InvalidError,
    NotFoundError,
    NotReadyError,
    RateLimitedError,
    UnauthenticatedError,
    all_errors,
)
from garrison.gateway.requests.errors import TooLargeError, error_answer, speaks_anthropic


@pytest.mark.parametrize(
    ("error", "status", "openai", "anthropic"),
    [
        (InvalidError("x"), 400, "invalid_request_error", "invalid_request_error"),
        (UnauthenticatedError("x"), 401, "authentication_error", "authentication_error"),
        (DeniedError("x"), 403, "permission_error", "permission_error"),
        (NotFoundError("x"), 404, "invalid_request_error", "not_found_error"),
        (TooLargeError("x"), 413, "invalid_request_error", "request_too_large"),
        (RateLimitedError("x"), 429, "rate_limit_error", "rate_limit_error"),
        (InternalError("x"), 500, "internal_error", "api_error"),
        (EngineDiedError("x"), 502, "server_error", "api_error"),
        (NotReadyError("x"), 503, "service_unavailable_error", "overloaded_error"),
        (EngineTimeoutError("x"), 504, "timeout_error", "timeout_error"),
    ],
)
def test_types(error: GarrisonError, status: int, openai: str, anthropic: str) -> None:
    found, _, body = error_answer(error)
    assert (found, json.loads(body)["error"]["type"]) == (status, openai)
    found, _, body = error_answer(error, anthropic=True)
    assert (found, json.loads(body)["error"]["type"]) == (status, anthropic)


def test_shapes() -> None:
    error = NotFoundError("there is no model 'x'", hint="Did you mean y?")
    text = "there is no model 'x'. Did you mean y?"
    _, headers, body = error_answer(error)
    assert json.loads(body) == {
        "error": {"message": text, "type": "invalid_request_error", "param": None, "code": "not-found"}
    }
    assert headers == [(b"content-type", b"application/json")]
    _, _, body = error_answer(error, anthropic=True)
    assert json.loads(body) == {"type": "error", "error": {"type": "not_found_error", "message": text}}


@pytest.mark.parametrize("anthropic", [False, True])
def test_headers(anthropic: bool) -> None:
    def headers(error: GarrisonError) -> dict[bytes, bytes]:
        return dict(error_answer(error, anthropic=anthropic)[1])

    assert headers(NotReadyError("x", details={"retry_after": 5}))[b"retry-after"] == b"5"
    assert headers(RateLimitedError("x", details={"retry_after": 0.2}))[b"retry-after"] == b"1"
    assert headers(RateLimitedError("x", details={"retry_after": 6.1}))[b"retry-after"] == b"7"
    assert headers(NotReadyError("x"))[b"retry-after"] == b"1"
    assert headers(EngineDiedError("x", details={"retry_after": 30}))[b"retry-after"] == b"30"
    assert b"retry-after" not in headers(NotFoundError("x"))
    assert headers(UnauthenticatedError("x"))[b"www-authenticate"] == b'Bearer realm="garrison"'
    assert b"www-authenticate" not in headers(DeniedError("x"))


@pytest.mark.parametrize("anthropic", [False, True])
def test_a_start_under_way_is_told(anthropic: bool) -> None:
    loading = {"state": "starting", "progress": 0.5, "phase": "a\x1b[31m\nb", "steps": ["\x9b", 1, None]}
    error = NotReadyError("x", details={"loading": loading, "secret": "y"})
    body = json.loads(error_answer(error, anthropic=anthropic)[2])
    assert body["loading"] == {"state": "starting", "progress": 0.5, "phase": "a�[31m b", "steps": ["�", 1, None]}
    assert b"secret" not in error_answer(error, anthropic=anthropic)[2]


@pytest.mark.parametrize("anthropic", [False, True])
def test_names_of_strangers_are_harmless_and_short(anthropic: bool) -> None:
    error = NotFoundError("no model \x1b]0;x\x07\r\n\ud800 “ü”" + "z" * 5000, hint="\x00")
    message = json.loads(error_answer(error, anthropic=anthropic)[2])["error"]["message"]
    assert message.startswith("no model �]0;x�  � “ü”zzz")
    assert message.isprintable()
    assert len(message) <= 2001


def test_every_error_has_an_answer() -> None:
    for kind in all_errors():
        for anthropic in (False, True):
            status, _, body = error_answer(kind("x"), anthropic=anthropic)
            assert status >= 400
            assert json.loads(body)["error"]["message"] == "x"


def test_whose_clients() -> None:
    assert speaks_anthropic(b"/v1/messages")
    assert speaks_anthropic(b"/v1/messages/count_tokens?beta=true")
    assert speaks_anthropic(b"/v1/messages/unknown")
    assert not speaks_anthropic(b"/v1/chat/completions")
    assert not speaks_anthropic(b"/")
