"""What an answer used, from its last bytes."""

import json

import pytest

from garrison.gateway.requests.usage_tail import usage_of

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
