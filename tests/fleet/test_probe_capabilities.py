"""What a server tells about itself: the simulator, a real vLLM, and pages that are neither."""

import pytest
from served import StartSim

from garrison.fleet.observe.observer import Look, Observer
from garrison.fleet.values.observation import Capabilities
from garrison.fleet.values.target import TargetSpec
from garrison.fleet.vllm.capabilities import capabilities_from
from garrison.net.client import HttpDialer
from garrison.net.transport import Answer
from garrison.sim.faults import Faults, Rule

METRICS = """\
# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.76360011e+09
vllm:lora_requests_info{max_lora="4",running_lora_adapters="a\\"} ,b",waiting_lora_adapters=""} 1.7e+09
vllm:cache_config_info{block_size="16",enable_prefix_caching="True",engine="0"} 1.0
process_start_time_seconds 1.76360011e+09
"""


def page(text: str, status: int = 200) -> Answer:
    return Answer(status, text.encode())


def test_everything_is_told() -> None:
    found = capabilities_from(page(""), page('{"version": "0.32.0"}'), page("", 405), page(METRICS))
    assert found == Capabilities(
        version="0.32.0",
        healthy=True,
        lora_routes=True,
        max_loras=4,
        prefix_caching=True,
        started_at=1763600110.0,
    )


NOTHING = Capabilities()
PAGES: dict[str, tuple[tuple[Answer | None, ...], Capabilities]] = {
    "nobody-answers": ((None, None, None, None), NOTHING),
    "not-found": ((page("", 404),) * 4, Capabilities(healthy=False)),
    "unauthorized": ((page("", 401),) * 4, Capabilities(healthy=False)),
    "sick": ((page("", 503), None, None, None), Capabilities(healthy=False)),
    "html": ((page("<html>"),) * 4, Capabilities(healthy=True)),
    "not-utf-8": ((Answer(200, b"\xff"),) * 4, Capabilities(healthy=True)),
    "deep": ((page("[" * 100_000),) * 4, Capabilities(healthy=True)),
    "version-is-a-number": ((None, page('{"version": 1}'), None, None), NOTHING),
    "version-is-a-list": ((None, page("[]"), None, None), NOTHING),
    "version-with-escapes": ((None, page('{"version": "\\u001b[2J"}'), None, None), NOTHING),
    "start-is-no-number": ((None, None, None, page("process_start_time_seconds x")), NOTHING),
    "start-is-nan": ((None, None, None, page("process_start_time_seconds nan")), NOTHING),
    "start-is-infinite": ((None, None, None, page("process_start_time_seconds 1e999")), NOTHING),
    "start-of-another": ((None, None, None, page("x_process_start_time_seconds 5")), NOTHING),
    "caching-off": (
        (None, None, None, page('vllm:cache_config_info{enable_prefix_caching="False"} 1.0')),
        Capabilities(prefix_caching=False),
    ),
    "caching-unset": ((None, None, None, page('vllm:cache_config_info{enable_prefix_caching="None"} 1.0')), NOTHING),
    "slots-without-end": ((None, None, None, page(f'vllm:lora_requests_info{{max_lora="{"9" * 99}"}} 1.0')), NOTHING),
}


@pytest.mark.parametrize(("answers", "expected"), PAGES.values(), ids=PAGES.keys())
def test_what_is_not_told_is_none(answers: tuple[Answer | None, ...], expected: Capabilities) -> None:
    assert capabilities_from(*answers) == expected


async def probe(url: str) -> Capabilities:
    look = Look(target=TargetSpec(name="edge", base_url=url), probe=True)
    found = (await Observer(HttpDialer()).look(look)).capabilities
    assert found is not None
    return found


@pytest.mark.system
async def test_of_the_simulator(start_sim: StartSim) -> None:
    sim = await start_sim(max_loras=3, prefix_caching=False)
    assert await probe(sim.url) == Capabilities(
        version="0.32.0",
        healthy=True,
        lora_routes=True,
        max_loras=3,
        prefix_caching=False,
        started_at=sim.state.engine.started_at,
    )
    closed = await start_sim(runtime_lora=False)
    assert (await probe(closed.url)).lora_routes is False


HOSTILE = {
    "braces that stay open": "process_start_time_seconds{\n" * 140_000,
    "one long label": "vllm:cache_config_info{" + "a" * 4_000_000 + "} 1",
    "many labels": "vllm:cache_config_info{" + 'a="' * 1_000_000 + "} 1",
    "many names": "vllm:cache_config_info{" * 180_000,
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_page_that_is_made_to_be_slow_to_read(text: str) -> None:
    assert capabilities_from(None, None, None, page(text)) == NOTHING


POSTED = {
    "vllm refuses the body": (400, True),
    "fastapi refuses the body": (422, True),
    "there is no route": (404, False),
    "nobody may post": (405, False),
    "a key is missing": (401, None),
    "a proxy is at its limit": (502, None),
    "anything goes": (200, None),
}


@pytest.mark.parametrize(("status", "expected"), POSTED.values(), ids=POSTED)
def test_where_a_get_is_not_found_a_post_decides(status: int, expected: bool | None) -> None:
    found = capabilities_from(None, None, page("", 404), None, posted=page("", status))
    assert found.lora_routes is expected
    assert capabilities_from(None, None, page("", 405), None, posted=page("", status)).lora_routes is True


@pytest.mark.system
@pytest.mark.parametrize("runtime_lora", [True, False])
async def test_behind_a_proxy_that_passes_post_alone(start_sim: StartSim, runtime_lora: bool) -> None:
    rule = Rule(path="/v1/load_lora_adapter", method="GET", action="status", status=404)
    sim = await start_sim(runtime_lora=runtime_lora, faults=Faults(script=(rule,)))
    assert (await probe(sim.url)).lora_routes is runtime_lora
    look = await Observer(HttpDialer()).look(Look(target=TargetSpec(name="edge", base_url=sim.url)))
    assert not look.adapters, "the empty POST loads nothing"
