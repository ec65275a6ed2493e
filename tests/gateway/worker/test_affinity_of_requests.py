"""What is read from a request to tell with which others it belongs."""

import json

import pytest

from garrison.gateway.link.route_settings import AffinityValue
from garrison.gateway.worker.table.affinity import Affinity, affinity_of, key_of

SAID = [{"role": "user", "content": "hi"}]


def of(policy: str, told: AffinityValue | None = None, **more: float) -> Affinity:
    found = affinity_of(policy, told, **more)
    assert found is not None
    return found


SESSION, PROMPT = of("hash"), of("prefix")


def key(affinity: Affinity = SESSION, *, header: bytes = b"", adapter: str = "", **body: object) -> bytes | None:
    headers = [(b"X-Session-ID", header)] if header else []
    return key_of(affinity, headers, json.dumps(body).encode(), adapter)


def test_the_session_comes_before_the_user_and_the_user_before_the_prompt() -> None:
    assert key(header=b"s1", user="u", messages=SAID) == b"\0s1"
    assert key(prompt_cache_key="k", user="u", messages=SAID) == b'\0"k"'
    assert key(user="u", messages=SAID) == key(user="u", messages=[]) == b'\0"u"'
    assert key(messages=SAID) == b"\0" + json.dumps(SAID).encode()


def test_users_do_not_divide_prompts_for_prefix() -> None:
    assert key(PROMPT, user="u", prompt="abc") == key(PROMPT, user="v", prompt="abc") == b'\0"abc"'


def test_more_of_a_prompt_counts_for_prefix() -> None:
    long = "x" * 20_000
    assert len(key(prompt=long) or b"") == 1 + 512
    assert len(key(PROMPT, prompt=long) or b"") == 1 + 8192


def test_adapters_do_not_share() -> None:
    assert key(adapter="sql", input="a") != key(adapter="", input="a")


@pytest.mark.parametrize("body", [b"", b"--form", b"[]", b'{"user": null, "messages": null}', b'{"prompt": ""}'])
def test_nothing_to_go_by(body: bytes) -> None:
    assert key_of(SESSION, [], body, "") is None


def test_what_a_route_says_goes_over_what_its_policy_asks() -> None:
    told = AffinityValue(header="X-Tenant", by=("user", "session"))
    found = of("sticky", told)
    assert found == Affinity(b"x-tenant", ("user", "session"), 512)
    headers = [(b"x-session-id", b"s"), (b"X-TENANT", b"t")]
    assert key_of(found, headers, b'{"user": "u"}', "") == b'\0"u"'
    assert key_of(found, headers, b"{}", "") == b"\0t"
    assert key_of(found, headers[:1], b'{"prompt": "p"}', "") is None, "the prompt is not asked"
    alone = of("hash", AffinityValue(by=("prompt",), prompt_bytes=3))
    assert key_of(alone, headers, b'{"prompt": "abcdef", "user": "u"}', "") == b'\0"ab'


def test_as_much_of_a_prompt_counts_for_prefix_as_its_blocks_hold() -> None:
    assert of("prefix", block=2048).prompt_bytes == 16 * 2048
    assert of("prefix", AffinityValue(prompt_bytes=100), block=2048).prompt_bytes == 100
    assert affinity_of("round-robin", AffinityValue(header="x")) is None
