import json
import os
import re
import time
from base64 import b64encode, urlsafe_b64encode
from html import escape
from itertools import pairwise
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base import redaction
from garrison.base.redaction import (
    LineRedactor,
    SecretValueError,
    excerpt,
    know_arguments,
    know_environment,
    know_secret,
    redacted,
    redacted_value,
    secret_text,
    shown_command,
    shown_variable,
)

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


S = "Zx9-SECRET-77"
HIDDEN = [
    f"Authorization: Bearer {S}",
    f"{{'authorization': 'Bearer {S}'}}",
    f"authorization=Basic {S}",
    f"Illegal header value b'Bearer {S}\\n'",
    f"non-default args: {{'model': '/m', 'api_key': ['{S}'], 'port': 1}}",
    f'{{"api_key": "{S}", "port": 1}}',
    f"api_key='{S}'",
    f"HF_TOKEN={S}",
    f"AWS_SECRET_ACCESS_KEY={S}/x+y=",
    f"password: {S}",
    f"error: unrecognized arguments: --api-key {S} --port 8",
    f"--api-key={S}",
    f"['vllm', '--api-key', '{S}']",
    f"--hf-token {S}",
    f"Looking in indexes: https://user:{S}@host/simple",
    f"GET https://host/a?X-Amz-Credential={S}&X-Amz-Signature={S}&x=1",
    f"https://host/a?sig={S}",
    f"https://host/a?access_token={S}",
    f"x-goog-api-key={S}",
]


@pytest.mark.parametrize("text", HIDDEN)
def test_hidden_by_its_place(text: str) -> None:
    assert S not in redacted(text)
    assert S not in redacted(redacted(text))


SHAPES = [
    "hf_abcdEFGH1234abcdEFGH1234abcdEFGH12",
    "hf_abcdefghijklmnopqrstuvwxyzabcdefgh",
    "sk-proj-abc_DEF-123456",
    "ghp_abcdefghijklmnop1234",
    "AKIAIOSFODNN7EXAMPLE",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
]


@pytest.mark.parametrize("secret", SHAPES)
def test_hidden_by_its_shape(secret: str) -> None:
    for text in (secret, f"x {secret} y", f"'{secret}'", f"/{secret}?", f"b'{secret}\\n'"):
        assert secret[5:] not in redacted(text)


KEPT = [
    "from huggingface_hub import hf_hub_download; hf_transfer, hf_token",
    "HF_TOKEN is not set",
    "Set HF_TOKEN to a token that may read the model.",
    "max_num_batched_tokens=2048, bos_token='<s>', api_key=None, ssl_keyfile=/x",
    "Avg prompt throughput: 0.0 tokens/s, GPU KV cache usage: 0.0%",
    "api_key: a secret has no place in a manifest",
    "api_key: the file /k cannot be read: no such file or directory",
    "headers.Authorization: the variable X is not set",
    "bearer token is missing; basic configuration",
    "KeyError: 'x'; sort key: a; the secret sauce",
    "GET /v1/models?limit=5&after=x HTTP/1.1",
    "http://127.0.0.1:8000/v1 user@example.org",
    "--api-server-count 2 --max-model-len 32k --tokenizer t",
]


@pytest.mark.parametrize("text", KEPT)
def test_kept(text: str) -> None:
    assert redacted(text) == text


VALUES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=8)


@given(VALUES.map(str.strip).filter(lambda value: len(value) >= 8))
def test_a_known_secret_is_found_in_every_spelling(value: str) -> None:
    know_secret(f" {value}\n")
    for text in (value, repr(value), repr(value + "\n"), json.dumps(value), quote(value, safe=""), quote_plus(value)):
        assert redacted(f"[{text}]").count("***") >= 1
        assert value not in redacted(f"[{text}]")


@pytest.mark.parametrize("value", ["Zq8-vR2+tY7/wN4=kL9", "p\u00e4\"ss'w/+rd<1>&x", "\udcff\udcfe-not-UTF-8"])
def test_a_known_secret_is_found_as_servers_and_libraries_write_it(value: str) -> None:
    raw = value.encode("utf-8", "surrogateescape")
    know_secret(value)
    percent = re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), quote(raw, safe=""))
    for text in (ascii(value), repr(raw), json.dumps(value).replace("/", r"\/"), escape(value), percent):
        assert redacted(f"[{text}]") in ("[***]", "['***']", "[b'***']", '["***"]', '[b"***"]', '["***"]')
    for user in ("", "u:", "us:", "use:"):
        for encode in (b64encode, urlsafe_b64encode):
            basic = encode(user.encode() + raw).decode()
            hidden = redacted(f"auth={basic}")
            assert "***" in hidden
            assert len(hidden) < len("auth=***") + len(user) * 2 + 6


def test_many_secrets_are_known_at_once() -> None:
    begun = time.perf_counter()
    for number in range(256):
        know_secret(f"secret/{number}+of+many")
    assert time.perf_counter() - begun < 5
    assert redacted("x secret/7+of+many y secret/255+of+many") == "x *** y ***"


def test_an_excerpt_does_not_show_half_a_secret() -> None:
    know_secret("s3cr3t-s3cr3t")
    for longest in range(1, 60):
        assert "s3cr" not in excerpt("x" * 20 + "s3cr3t-s3cr3t" * 3 + "y" * 20, longest)
    assert excerpt("x" * 20, 5) == "xxxxx"


def test_a_colour_in_the_middle_does_not_save_a_secret() -> None:
    know_secret("s3cr3t-s3cr3t")
    redactor = LineRedactor()
    assert redactor.feed(b"\x1b[32mkey\x1b[0m s3cr3t-\x1b[1ms3cr3t\x1b[0m end\n") == b"key *** end\n"
    assert redactor.feed(b"\x1b[32mINFO\x1b[0m well\n") == b"\x1b[32mINFO\x1b[0m well\n"


def test_a_secret_that_is_not_utf_8_is_known() -> None:
    """Python decodes such a variable to lone surrogates, which `quote` refuses by default."""
    raw = os.fsdecode(b"\xffsecret-of-mine")
    know_environment({"MY_TOKEN": raw})
    for spelling in (raw, repr(raw), json.dumps(raw), "%FFsecret-of-mine"):
        assert "secret-of-mine" not in redacted(spelling)


def test_a_short_secret_is_hidden_where_it_stands_alone_and_a_shorter_one_not_at_all() -> None:
    know_secret("tune")
    know_secret("abc")
    assert redacted("tune 80, tunes, fortune, abc") == "*** 80, tunes, fortune, abc"
    know_secret("hf_x\n")
    assert redacted("b'Bearer hf_x\\n' hf_x%0A hf_xy") == "b'Bearer ***\\n' ***%0A hf_xy"


@pytest.mark.parametrize("word", ["true", "None", "auto", "EMPTY"])
def test_a_word_that_is_no_secret_is_not_known(word: str) -> None:
    know_secret(word)
    assert redacted(f"it is {word}") == f"it is {word}"


@pytest.mark.parametrize("word", ["model", "server", "Target", "connection", "garrison"])
def test_a_word_of_our_messages_is_hidden_by_its_place_only(word: str) -> None:
    know_secret(word)
    assert redacted(f"the {word} does not answer") == f"the {word} does not answer"
    for place in ("VLLM_API_KEY=", "Authorization: Bearer ", "--api-key ", '"password": "', "postgresql://me:"):
        end = "@host" if "://" in place else ""
        assert word not in redacted(f"{place}{word}{end}"), place
    know_secret(f"{word}-7")
    assert redacted(f"it is {word}-7") == "it is ***"


def test_what_is_known_is_bounded_and_the_newest_counts() -> None:
    for number in range(1000):
        know_secret(f"secret-{number:04}")
    assert redacted("secret-0999 secret-0000") == "*** secret-0000"
    assert len(redaction._KNOWN._values) <= 256


def test_the_environment_and_the_arguments_are_known() -> None:
    know_environment(
        {"MY_TOKEN": "alpha-alpha", "X_KEY_FILE": "/beta/beta", "P": "http://me:gamma-gamma@h", "AUTH": "/etc/delta"}
    )
    know_arguments(["vllm", "--api-key", "epsilon-1", "zeta-zeta", "--port", "8000", "--hf-token=eta-eta-eta"])
    text = "alpha-alpha gamma-gamma epsilon-1 zeta-zeta eta-eta-eta"
    assert redacted(text) == "*** *** *** *** ***"
    assert redacted("/beta/beta /etc/delta 8000") == "/beta/beta /etc/delta 8000"


@pytest.mark.parametrize("raw", ["key", " key", "key\n", "\tkey\r\n", "\x0bkey\x0c"])
def test_a_secret_is_read_without_white_space_at_its_ends(raw: str) -> None:
    assert secret_text(raw) == "key"


@pytest.mark.parametrize("raw", ["", " \n", "one-half\nother-half", "a\x00b", "a\x1b[0mb", "a\u2028b"])
def test_a_secret_that_cannot_be_used_is_not_shown(raw: str) -> None:
    with pytest.raises(SecretValueError) as caught:
        secret_text(raw)
    assert "half" not in str(caught.value)
    assert redacted("one-half") == ("***" if "half" in raw else "one-half")


def test_values_are_redacted_all_the_way_down() -> None:
    know_secret("s3cr3t-s3cr3t")
    value = {"a": ["s3cr3t-s3cr3t", {"b": ("x s3cr3t-s3cr3t", 1, None)}]}
    assert redacted_value(value) == {"a": ["***", {"b": ["x ***", 1, None]}]}


@given(st.lists(st.integers(0, 120), max_size=6))
def test_a_secret_that_is_cut_in_two_is_found(cuts: list[int]) -> None:
    know_secret("s3cr3t-s3cr3t")
    raw = "one s3cr3t-s3cr3t two\r50%\rgr\u00fcn Authorization: Bearer abc.def-9\n\xff rest s3cr3t-s3cr3t".encode(
        "latin-1"
    )
    ends = sorted({0, len(raw), *(min(cut, len(raw)) for cut in cuts)})
    redactor = LineRedactor()
    out = b"".join(redactor.feed(raw[start:end]) for start, end in pairwise(ends)) + redactor.end()
    whole = LineRedactor()
    assert out == whole.feed(raw) + whole.end()
    assert out.startswith(b"one *** two\r50%\rgr\xfcn Authorization: Bearer ***\n\xff rest ***")


def test_a_line_without_an_end_is_cut_at_a_blank() -> None:
    know_secret("s3cr3t-s3cr3t")
    redactor = LineRedactor()
    out = b"".join(redactor.feed(b"x" * 500 + b" s3cr3t-s3cr3t ") for _ in range(1000)) + redactor.end()
    assert b"s3cr3t" not in out
    assert out.count(b"***") == 1000
    assert redactor.feed(b"y" * 100_000) == b"y" * 100_000


PIECES = ["KEY", "key-", "api_key", "--a-", "://", "eyJ", "bearer ", "api_key=", "_", "a.", "hf_", "hf_a", "sk-"]
PIECES += [
    "&sig",
    "token_",
    "authorization: ",
    "api_key'",
    "--a-b-c-key",
    "eyJaaaaaaaaaaaaa.",
    "?key=",
    "password ",
    "basic a",
]


@pytest.mark.timeout(10)
@pytest.mark.parametrize("piece", PIECES)
def test_a_line_that_is_made_to_be_slow_to_read(piece: str) -> None:
    assert redacted((piece * 70_000)[:65_536])
