"""What is read from a request to tell with which others it belongs."""

import json

import pytest

from garrison.gateway.worker.affinity import Affinity, key_of

SAID = [{"role": "user", "content": "hi"}]


def key(
    affinity: Affinity = Affinity.SESSION, *, header: bytes = b"", adapter: str = "", **body: object
) -> bytes | None:
    headers = [(b"X-Session-ID", header)] if header else []
    return key_of(affinity, headers, json.dumps(body).encode(), adapter)


def test_the_session_comes_before_the_user_and_the_user_before_the_prompt() -> None:
    assert key(header=b"s1", user="u", messages=SAID) == b"\0s1"
    assert key(prompt_cache_key="k", user="u", messages=SAID) == b'\0"k"'
    assert key(user="u", messages=SAID) == key(user="u", messages=[]) == b'\0"u"'
    assert key(messages=SAID) == b"\0" + json.dumps(SAID).encode()


def test_users_do_not_divide_prompts_for_prefix() -> None:
    assert key(Affinity.PROMPT, user="u", prompt="abc") == key(Affinity.PROMPT, user="v", prompt="abc") == b'\0"abc"'


def test_more_of_a_prompt_counts_for_prefix() -> None:
    long = "x" * 20_000
    assert len(key(prompt=long) or b"") == 1 + 512
    assert len(key(Affinity.PROMPT, prompt=long) or b"") == 1 + 8192


def test_adapters_do_not_share() -> None:
    assert key(adapter="sql", input="a") != key(adapter="", input="a")


@pytest.mark.parametrize("body", [b"", b"--form", b"[]", b'{"user": null, "messages": null}', b'{"prompt": ""}'])
def test_nothing_to_go_by(body: bytes) -> None:
    assert key_of(Affinity.SESSION, [], body, "") is None
