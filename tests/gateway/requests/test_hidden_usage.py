"""The usage that a client did not ask for is taken out of its stream, and nothing else is."""

import pytest

from garrison.gateway.requests.hidden_usage import HiddenUsage

WORD = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
USAGE = b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"


def passed(*pieces: bytes) -> bytes:
    hidden = HiddenUsage()
    return b"".join([*(hidden.feed(one) for one in pieces), hidden.rest()])


@pytest.mark.parametrize("step", range(1, 40))
def test_however_the_stream_is_split(step: int) -> None:
    stream = WORD + WORD + USAGE + DONE
    pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
    assert passed(*pieces) == WORD + WORD + DONE


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(b'data: {"choices":[{"text":"a"}],"usage":{"prompt_tokens":1}}\n\n', id="with text"),
        pytest.param(b'data: {"choices":[{"delta":{"content":"\\"usage\\":{}"}}]}\n\n', id="in the text"),
        pytest.param(b'data: {"choices":[],"usage":null}\n\n', id="null"),
        pytest.param(b'data: {"usage":{"input_tokens":1}}\n\n', id="without choices"),
        pytest.param(b'data: {"choices":[],"usage":{\n\n', id="no JSON"),
        pytest.param(b': "usage"\n\n', id="a comment"),
        pytest.param(b'data: {"choices":[],"usage":{}}', id="cut off"),
    ],
)
def test_everything_else_is_passed_on(event: bytes) -> None:
    assert passed(WORD, event) == WORD + event


@pytest.mark.parametrize("before", [b"id: 7\n", b"event: message\nid: 7\n", b": comment\n"])
@pytest.mark.parametrize("after", [b"", b"\nid: 8"])
def test_an_event_may_have_other_fields_as_well(before: bytes, after: bytes) -> None:
    assert passed(WORD, before + USAGE.rstrip() + after + b"\n\n", DONE) == WORD + DONE


def test_lines_may_end_with_a_carriage_return() -> None:
    stream = (WORD + USAGE + DONE).replace(b"\n", b"\r\n")
    assert passed(stream) == (WORD + DONE).replace(b"\n", b"\r\n")


def test_a_whole_event_is_passed_on_as_it_is() -> None:
    assert HiddenUsage().feed(WORD) is WORD


def test_no_more_is_held_than_the_bound() -> None:
    hidden = HiddenUsage()
    long = b"data: " + b"a" * 20_000
    assert hidden.feed(long) == long
    assert hidden.feed(b"b\n\n" + USAGE) == b"b\n\n"
