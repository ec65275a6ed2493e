import pytest

from garrison.engines.argv import Endpoint, endpoint_of, flag_of, gives, is_flag, last_value


@pytest.mark.parametrize(
    ("token", "flag"),
    [
        ("--port", True), ("-tp", True), ("--a=b", True), ("--no-x", True), ("-O3", True), ("--a.b.c", True),
        ("-nkvo", True), ("--chat-template=a b", True),
        ("-", False), ("--", False), ("-1", False), ("-0.5", False), ("-1e-3", False), ("-.5", False), ("-1k", False),
        ("model", False), ("", False), ("- a list item", False), ("-x with words", False), ("32k", False),
    ],
)  # fmt: skip
def test_flags_and_values_are_told_apart_as_argparse_does(token: str, flag: bool) -> None:
    assert is_flag(token) is flag


@pytest.mark.parametrize(
    ("token", "normal"),
    [
        ("--max_model_len=5", "--max-model-len"),
        ("--hf-overrides.rope_theta", "--hf-overrides.rope_theta"),
        ("--hf_overrides.rope_theta=1", "--hf-overrides.rope_theta"),
        ("-tp", "-tp"),
    ],
)
def test_underscores_are_dashes_up_to_the_first_dot(token: str, normal: str) -> None:
    assert flag_of(token) == normal


def test_a_value_that_looks_like_a_flag_name_is_not_taken_for_one() -> None:
    assert not gives(["--chat-template", "port"], {"--port"})
    assert gives(["--max_lora_rank=16"], {"--max-lora-rank"})


def test_the_last_value_counts() -> None:
    assert last_value(["--port", "1", "--port=2"], {"--port"}) == "2"
    assert last_value(["--port", "1", "--port"], {"--port"}) == "1"
    assert last_value(["--seed", "-1"], {"--seed"}) == "-1"
    assert last_value(["--x="], {"--x"}) == ""
    assert last_value([], {"--x"}) is None


@pytest.mark.parametrize(
    ("argv", "endpoint"),
    [
        ((), Endpoint("127.0.0.1", 8000)),
        (("--host", "::1", "--port", "9"), Endpoint("::1", 9)),
        (("--port=9", "--host=0.0.0.0"), Endpoint("0.0.0.0", 9)),
        (("--port", "8", "--port", "9"), Endpoint("127.0.0.1", 9)),
        (("--port", "nine"), Endpoint("127.0.0.1", 8000)),
        (("--port=+9000",), Endpoint("127.0.0.1", 9000)),
        (("--port", " 9000 "), Endpoint("127.0.0.1", 9000)),
        (("--port=9_000",), Endpoint("127.0.0.1", 9000)),
        (("--port", "-1"), Endpoint("127.0.0.1", 8000)),
        (("--port", "99999"), Endpoint("127.0.0.1", 8000)),
        (("--port", "9" * 9999), Endpoint("127.0.0.1", 8000)),
        (("--uds", "/run/v.sock"), Endpoint("127.0.0.1", 8000, "/run/v.sock")),
        (("--host", "/run/l.sock"), Endpoint("/run/l.sock", 8000, "/run/l.sock")),
    ],
)
def test_the_endpoint_is_read_back_from_the_argv(argv: tuple[str, ...], endpoint: Endpoint) -> None:
    assert endpoint_of(argv) == endpoint
