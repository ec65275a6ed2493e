"""What an answer used, from its last bytes."""

import json

import pytest

from garrison.gateway.requests.usage_tail import AnswerEnds, usage_of

OPENAI = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": 4}}


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (json.dumps({"choices": [], "usage": OPENAI, "metrics": None}).encode(), (7, 5, 4)),
        (json.dumps({"usage": OPENAI}, separators=(",", ":")).encode(), (7, 5, 4)),
        (json.dumps({"usage": OPENAI}).encode()[1:], (7, 5, 4)),
        (b'data: {"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\ndata: [DONE]\n\n', (1, 2, 0)),
        (b'data: {"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\ndata: {"usage":null}\n\n', (1, 2, 0)),
        (b'data: {"usage":{"prompt_tokens":1}}\n\ndata: {"usage":{"completion_tokens":9}}', (0, 9, 0)),
        (b'data: {"usage":{"output_tokens":3,"input_tokens":2,"cache_read_input_tokens":1}}', (2, 3, 1)),
        (b'{"usage":{"input_tokens":3,"input_tokens_details":{"cached_tokens":2},"output_tokens":4}}', (3, 4, 2)),
        (b'{"usage":  {"prompt_tokens":1}}', (1, 0, 0)),
        (b'{"timings":{"cache_n":4,"prompt_n":3,"predicted_n":5,"predicted_ms":1.5}}', (7, 5, 4)),
        (b'{"timings":{"prompt_n":3,"predicted_n":5}}\n\ndata: [DONE]', (3, 5, 0)),
        (b'{"usage":{"prompt_tokens":1},"timings":{"prompt_n":3,"predicted_n":5}}', (1, 0, 0)),
        (b'{"usage":null,"timings":{"prompt_n":3,"predicted_n":5}}', (3, 5, 0)),
        (b'{"timings":{"prompt_n":"x","predicted_n":5}}', None),
        (b'{"timings":', None),
        (b"", None),
        (b'{"usage":', None),
        (b'{"usage":{"prompt_tokens":1', None),
        (b'{"usage":{}}', None),
        (b'{"usage":"many"}', None),
        (b'{"usage":{"prompt_tokens":"many"}}', None),
        (b'{"usage":{"prompt_tokens":null,"completion_tokens":null}}', None),
        (b'{"usage":{"prompt_tokens":-5,"completion_tokens":1}}', None),
        (b'{"usage":{"prompt_tokens":5,"completion_tokens":-1}}', None),
        (b'{"usage":{"prompt_tokens":18446744073709551615,"completion_tokens":1}}', None),
        (b'{"usage":{"prompt_tokens":1,"completion_tokens":%d}}' % (2**40 + 1), None),
        (b'{"usage":{"prompt_tokens":1,"completion_tokens":%d}}' % 2**40, (1, 2**40, 0)),
        (b'{"usage":{"prompt_tokens":1,"prompt_tokens_details":{"cached_tokens":-1}}}', None),
        (b'{"usage":{"input_tokens":-1,"output_tokens":1}}', None),
        (b'{"timings":{"cache_n":-9,"prompt_n":3,"predicted_n":5}}', None),
        (b'"usage":' * 500, None),
        (b'"usage":{' * 500, None),
    ],
)  # fmt: skip
def test_usage(tail: bytes, expected: tuple[int, int, int] | None) -> None:
    assert usage_of(tail) == expected


STARTED = b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","content":[],"usage":%b}}\n\n'
DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"word"}}\n\n'
ENDED = b'event: message_delta\ndata: {"type":"message_delta","delta":{},"usage":%b}\n\nevent: message_stop\n\n'


@pytest.mark.parametrize("words", [0, 2000])
@pytest.mark.parametrize(
    ("started", "ended", "expected"),
    [
        (b'{"input_tokens":5000,"output_tokens":0}', b'{"output_tokens":8}', (5000, 8, 0)),
        (
            b'{"input_tokens":10,"cache_creation_input_tokens":70,"cache_read_input_tokens":500,"output_tokens":1}',
            b'{"output_tokens":8}',
            (580, 8, 500),
        ),
        (b'{"input_tokens":10,"output_tokens":1}', b'{"input_tokens":10,"output_tokens":8}', (10, 8, 0)),
        (b'{"input_tokens":0,"output_tokens":0}', b'{"input_tokens":10,"output_tokens":8}', (10, 8, 0)),
        (b'{"input_tokens":%d}' % 2**41, b'{"output_tokens":8}', (0, 8, 0)),
    ],
)
def test_usage_of_a_stream_of_messages(
    started: bytes, ended: bytes, expected: tuple[int, int, int], words: int
) -> None:
    assert usage_in(STARTED % started + DELTA * words + ENDED % ended, 100, messages=True) == expected


def test_usage_of_a_message() -> None:
    body = (
        b'{"usage":{"input_tokens":10,"cache_creation_input_tokens":70,"cache_read_input_tokens":5,"output_tokens":8}}'
    )
    assert usage_of(body, messages=True) == (85, 8, 5)
    assert usage_of(b'{"usage":{"prompt_tokens":7,"completion_tokens":5}}', messages=True) == (7, 5, 0)


def usage_in(answer: bytes, size: int, *, messages: bool = False) -> tuple[int, int, int] | None:
    """What is found in an answer that arrives in pieces of a size."""
    ends, whole = AnswerEnds(messages=messages), 0
    for at in range(0, len(answer), size):
        piece = answer[at : at + size]
        whole += len(piece)
        ends.pieces.append(piece)
        if whole > ends.full_at:
            assert sum(map(len, ends.pieces)) <= 12 * 1024 + size, "it is bounded"
            ends.cut(whole)
    assert sum(map(len, ends.pieces)) <= 12 * 1024 + size
    return ends.usage()


@pytest.mark.parametrize("size", [1, 16, 1000, 9000, 70_000])
def test_usage_is_found_before_the_data_and_after_it_however_it_arrives(size: int) -> None:
    data = b",".join([b"0.123456"] * 8000)
    first = b'{"model":"m","object":"list","usage":{"prompt_tokens":7,"total_tokens":7},"data":[%b]}' % data
    last = b'{"data":[%b],"usage":{"prompt_tokens":7,"completion_tokens":3},"metrics":"%b"}' % (
        data,
        b"x" * 999,
    )
    assert usage_in(first, size) == (7, 0, 0)
    assert usage_in(last, size) == (7, 3, 0)
    assert usage_in(b'{"data":[%b]}' % data, size) is None
    assert usage_in(b'{"usage":{"prompt_tokens":7,"completion_tokens":3}}', size) == (7, 3, 0)
    assert usage_in(b"", size) is None
