import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.redaction import shown_command, shown_variable

ROWS = [
    (["vllm", "serve", "--api-key", "SECRET", "--port", "1"], "vllm serve --api-key *** --port 1"),
    (["vllm", "--api-key", "SECRET", "SECRET", "--port", "1"], "vllm --api-key *** *** --port 1"),
    (["vllm", "--api-key=SECRET", "x"], "vllm '--api-key=***' x"),
    (["vllm", "--api_key", "SECRET"], "vllm --api_key ***"),
    (["vllm", "--api-k", "SECRET"], "vllm --api-k ***"),
    (["vllm", "--hf-token", "SECRET"], "vllm --hf-token ***"),
    (["mysqld", "--admin-password=SECRET"], "mysqld '--admin-password=***'"),
    (["sh", "-c", "HF_TOKEN=SECRET vllm serve"], "sh -c 'HF_TOKEN=*** vllm serve'"),
    (["curl", "https://user:SECRET@host/"], "curl 'https://***@host/'"),
    (["curl", "-H", "Authorization: Bearer SECRET"], "curl -H 'Authorization: Bearer ***'"),
    (["x", "hf_SECRETSECRET"], "x 'hf_***'"),
    (["vllm", "--api-server-count", "2", "--tokenizer", "t", "--max-num-batched-tokens", "9"],
     "vllm --api-server-count 2 --tokenizer t --max-num-batched-tokens 9"),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "shown"), ROWS, ids=[row[1] for row in ROWS])
def test_shown(argv: list[str], shown: str) -> None:
    assert shown_command(argv) == shown


@given(
    st.sampled_from(["--api-key", "--hf-token", "--auth-secret"]), st.from_regex(r"[A-Za-z0-9/+]{12,}", fullmatch=True)
)
def test_no_secret_survives_either_spelling(option: str, secret: str) -> None:
    assert secret not in shown_command(["vllm", option, secret, "--port", "1"])
    assert secret not in shown_command(["vllm", f"{option}={secret}"])


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("HF_TOKEN", "SECRET SECRET", "HF_TOKEN=***"),
        ("VLLM_API_KEY", "SECRET", "VLLM_API_KEY=***"),
        ("HTTPS_PROXY", "http://me:SECRET@proxy:1", "HTTPS_PROXY='http://***@proxy:1'"),
        ("VLLM_CPU_KVCACHE_SPACE", "1", "VLLM_CPU_KVCACHE_SPACE=1"),
        ("A", "two words", "A='two words'"),
    ],
)
def test_shown_variable(name: str, value: str, shown: str) -> None:
    assert shown_variable(name, value) == shown
