"""Sleep, wake and drain as values; the simulator proves the calls, since CPU builds cannot sleep."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from threaded_sims import simulators

from garrison.engines import registry
from garrison.engines.control import Call, is_asleep, is_idle
from garrison.engines.metrics import Reading, read_metrics


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    with simulators() as start:
        yield start


def send(url: str, call: Call) -> tuple[int, bytes]:
    data = call.body.encode() if call.body is not None else (b"" if call.method == "POST" else None)
    request = urllib.request.Request(url + call.target, data, {"Content-Type": "application/json"}, method=call.method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, answer.read()


@pytest.mark.parametrize("name", registry.names())
def test_what_an_engine_can_do_and_how_agree(name: str) -> None:
    engine = registry.engine(name)
    assert engine.capabilities.sleep == (engine.sleep_control(None) is not None)
    assert engine.capabilities.metrics == (engine.metrics_page() is not None)
    page, drain = engine.metrics_page(), engine.drain()
    assert drain.by_metrics == (page is not None and page.running is not None and page.waiting is not None)


@pytest.mark.parametrize("name", registry.names())
def test_what_must_be_given_at_the_start_is_an_option_of_the_engine(name: str) -> None:
    engine = registry.engine(name)
    known = engine.catalogue().by_spelling() if name != "sim" else registry.engine("vllm").catalogue().by_spelling()
    control, page, drain = engine.sleep_control(None), engine.metrics_page(), engine.drain()
    given = [
        *(control.arguments if control else ()),
        *(page.arguments if page else ()),
        *([drain.grace_option] if drain.grace_option else []),
    ]
    assert [option for option in given if option not in known] == []
    assert bool(given) == (name != "mlx_lm")


class TestVllmVersions:
    @pytest.mark.parametrize(
        ("version", "sleeps", "finishes"),
        [
            ("0.33.0", True, True),
            ("0.32.0", True, True),
            ("0.31.1", True, False),
            ("0.17.0", True, False),
            ("0.16.1", False, False),
            ("0.14.0rc1", False, False),
            ("0.13.0", True, False),
            ("1.0.0", True, True),
            ("0.32.0+cpu", False, False),
            ("unknown", True, False),
            (None, True, False),
        ],
    )
    def test_gates(self, version: str | None, sleeps: bool, finishes: bool) -> None:
        control = registry.engine("vllm").sleep_control(version)
        assert (control is not None) is sleeps
        assert (control is not None and control.finishes_requests) is finishes

    def test_a_cpu_build_cannot_sleep(self) -> None:
        assert registry.engine("vllm").sleep_control("0.33.0", "cpu") is None
        assert registry.engine("vllm").sleep_control("0.33.0", "cuda") is not None

    def test_requests_in_progress_are_never_aborted_by_default(self) -> None:
        """Without `mode` vLLM aborts them."""
        control = registry.engine("vllm").sleep_control("0.33.0")
        assert control is not None
        assert [level.level for level in control.levels] == [1, 2]
        for level in control.levels:
            (call,) = level.sleep
            assert call.target == f"/sleep?level={level.level}&mode=wait"
        assert control.environment == {"VLLM_SERVER_DEV_MODE": "1"}
        assert control.arguments == ("--enable-sleep-mode",)
        assert control.loopback_only
        assert control.level(3) is None

    def test_weights_that_were_dropped_are_read_again_before_the_cache_comes_back(self) -> None:
        control = registry.engine("vllm").sleep_control("0.33.0")
        assert control is not None
        deep = control.level(2)
        assert deep is not None
        assert [call.target for call in deep.wake] == [
            "/wake_up?tags=weights",
            "/collective_rpc",
            "/wake_up?tags=kv_cache",
        ]
        assert json.loads(deep.wake[1].body or "") == {"method": "reload_weights"}


class TestOnTheSimulator:
    @pytest.mark.parametrize("number", [1, 2])
    def test_it_sleeps_and_wakes(self, start: Callable[..., Any], number: int) -> None:
        sim = start(enable_sleep_mode=True, dev_mode=True)
        engine = registry.engine("sim")
        control = engine.sleep_control("any")
        assert control is not None
        level = control.level(number)
        assert level is not None

        def asleep() -> bool | None:
            return is_asleep(*send(sim.url, control.state))

        assert asleep() is False
        for call in level.sleep:
            assert send(sim.url, call)[0] == 200
        assert asleep() is True
        for call in level.wake:
            assert send(sim.url, call)[0] == 200
        assert asleep() is False

    def test_its_metrics_mean_what_the_page_says(self, start: Callable[..., Any]) -> None:
        sim = start()
        page = registry.engine("sim").metrics_page()
        assert page is not None
        before = read_metrics(send(sim.url, Call("GET", page.path))[1].decode(), page)
        assert is_idle(before) is True
        assert None not in (before.running, before.waiting, before.kv_cache, before.started_at)
        body = json.dumps({"model": "acme/tiny", "prompt": "able acid acre", "max_tokens": 8})
        assert send(sim.url, Call("POST", "/v1/completions", body=body))[0] == 200
        after = read_metrics(send(sim.url, Call("GET", page.path))[1].decode(), page)
        assert before.generated_tokens is not None
        assert after.generated_tokens == before.generated_tokens + 8
        assert after.prompt_tokens == 3
        assert after.started_at == before.started_at


def test_a_call_keeps_its_query_in_order_and_quoted() -> None:
    assert Call("POST", "/x", (("b", "1"), ("a", "x y&z"))).target == "/x?b=1&a=x+y%26z"
    assert Call("GET", "/x").target == "/x"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b'{"is_sleeping": true}', True),
        (200, b'{"is_sleeping": false}', False),
        (200, b'{"is_sleeping": "yes"}', None),
        (200, b"[]", None),
        (200, b"<html>", None),
        (200, b"[" * 100_000, None),
        (404, b'{"is_sleeping": true}', None),
        (500, b"", None),
    ],
)
def test_whether_it_sleeps_is_known_or_unknown(status: int, body: bytes, expected: bool | None) -> None:
    assert is_asleep(status, body) is expected


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        (Reading(running=0, waiting=0), True),
        (Reading(running=1, waiting=0), False),
        (Reading(running=0, waiting=2), False),
        (Reading(running=0), None),
        (Reading(waiting=0), None),
    ],
)
def test_idle_is_known_or_unknown(reading: Reading, expected: bool | None) -> None:
    assert is_idle(reading) is expected
