"""Where and how each engine will listen, read from its arguments."""

from collections.abc import Mapping

import pytest

from garrison.base.errors import InvalidError
from garrison.engines.argv import Endpoint, switched_on
from garrison.engines.registry import engine
from garrison.engines.vllm_config import config_args, config_file, read_config

DEFAULT = Endpoint("127.0.0.1", 8000)
TLS = Endpoint("127.0.0.1", 8000, tls=True)
NONE = Endpoint("127.0.0.1", 8000, protocol="none")

VLLM: dict[str, Endpoint] = {
    "": DEFAULT,
    "--host 0.0.0.0 --port 9": Endpoint("0.0.0.0", 9),
    "--host=:: --port=9": Endpoint("::", 9),
    "--host [::1]": Endpoint("::1", 8000),
    "--host node.example": Endpoint("node.example", 8000),
    "--por 9": Endpoint("127.0.0.1", 9),
    "--port 8 --port 9": Endpoint("127.0.0.1", 9),
    "--port 0": Endpoint("127.0.0.1", 0),
    "--port 99999": DEFAULT,
    "--port nine": DEFAULT,
    "--ssl-certfile c.pem --ssl-keyfile k.pem": TLS,
    "--ssl-certfile=c.pem": TLS,
    "--ssl_certfile c.pem --ssl_keyfile=k.pem": TLS,
    "--ssl-certf c.pem --ssl-k k.pem": TLS,
    "--ssl-keyfile k.pem": TLS,
    "--ssl-certfile=": DEFAULT,
    "--enable-ssl-refresh": DEFAULT,
    "--ssl-ca-certs ca.pem": DEFAULT,
    "--ssl-certfile c --ssl-keyfile k --ssl-cert-reqs 2 --ssl-ca-certs ca": Endpoint(
        "127.0.0.1", 8000, tls=True, client_cert=True
    ),
    "--ssl-certfile c --ssl-keyfile k --ssl-cert-reqs=1": TLS,
    "-- --ssl-certfile c.pem": DEFAULT,
    "--chat-template --ssl-certfile": DEFAULT,
    "--root-path /serve": Endpoint("127.0.0.1", 8000, prefix="/serve"),
    "--root-path=/a/b": Endpoint("127.0.0.1", 8000, prefix="/a/b"),
    "--root_path /old --root-path /new": Endpoint("127.0.0.1", 8000, prefix="/new"),
    "--root-path /": DEFAULT,
    "--root-path /serve/": DEFAULT,
    "--root-path serve": DEFAULT,
    "--uds /run/v.sock": Endpoint("127.0.0.1", 8000, uds="/run/v.sock"),
    "--uds=/run/v --port 9": Endpoint("127.0.0.1", 9, uds="/run/v"),
    "--headless": NONE,
    "--headles": NONE,
    "--headless --port 9": Endpoint("127.0.0.1", 9, protocol="none"),
    "--api-server-count 0": NONE,
    "-asc 0": NONE,
    "-asc=0": NONE,
    "-asc 1": DEFAULT,
    "--api-server-count 2": DEFAULT,
    "--data-parallel-rank 1 --data-parallel-size 2": DEFAULT,
    "--grpc": Endpoint("127.0.0.1", 8000, protocol="grpc"),
    "--data-parallel-multi-port-external-lb": Endpoint("127.0.0.1", 8000, health_port=9256),
    "-dpm --data-parallel-supervisor-port 7000": Endpoint("127.0.0.1", 8000, health_port=7000),
    "--served-model-name a b --disable-fastapi-docs --disable-uvicorn-access-log": DEFAULT,
    "--api-key secret": DEFAULT,
}


@pytest.mark.parametrize("name", ["vllm", "sim"])
@pytest.mark.parametrize(("words", "endpoint"), VLLM.items(), ids=[words or "nothing" for words in VLLM])
def test_vllm(name: str, words: str, endpoint: Endpoint) -> None:
    assert engine(name).endpoint(words.split(), DEFAULT) == endpoint


LLAMA: dict[str, tuple[str, Mapping[str, str], Endpoint]] = {
    "nothing": ("", {}, DEFAULT),
    "host and port": ("--host :: --port 9", {}, Endpoint("::", 9)),
    "both files": ("--ssl-key-file k --ssl-cert-file c", {}, TLS),
    "one file": ("--ssl-key-file k", {}, DEFAULT),
    "files by variables": ("", {"LLAMA_ARG_SSL_KEY_FILE": "k", "LLAMA_ARG_SSL_CERT_FILE": "c"}, TLS),
    "one of each": ("--ssl-cert-file c", {"LLAMA_ARG_SSL_KEY_FILE": "k"}, TLS),
    "prefix": ("--api-prefix /llama", {}, Endpoint("127.0.0.1", 8000, prefix="/llama")),
    "prefix by a variable": ("", {"LLAMA_ARG_API_PREFIX": "/v"}, Endpoint("127.0.0.1", 8000, prefix="/v")),
    "the flag wins": ("--api-prefix /f", {"LLAMA_ARG_API_PREFIX": "/v"}, Endpoint("127.0.0.1", 8000, prefix="/f")),
    "socket": ("--host /run/l.sock", {}, Endpoint("/run/l.sock", 8000, uds="/run/l.sock")),
    "several addresses": ("--host 127.0.0.2,::1", {}, Endpoint("127.0.0.2", 8000)),
    "a socket and an address": ("--host /run/l.sock,127.0.0.2", {}, Endpoint("127.0.0.2", 8000)),
    "vLLM's flags are not its own": ("--ssl-certfile c --ssl-keyfile k --root-path /x --headless", {}, DEFAULT),
}


@pytest.mark.parametrize(("words", "environ", "endpoint"), LLAMA.values(), ids=LLAMA)
def test_llama_cpp(words: str, environ: Mapping[str, str], endpoint: Endpoint) -> None:
    assert engine("llama_cpp").endpoint(words.split(), DEFAULT, environ) == endpoint


MLX = {
    "": DEFAULT,
    "--host 0.0.0.0 --port 9": Endpoint("0.0.0.0", 9),
    "--por 9 --hos ::1": Endpoint("::1", 9),
    "--ssl-certfile c": DEFAULT,
}


@pytest.mark.parametrize(("words", "endpoint"), MLX.items(), ids=[words or "nothing" for words in MLX])
def test_mlx_lm(words: str, endpoint: Endpoint) -> None:
    assert engine("mlx_lm").endpoint(words.split(), DEFAULT) == endpoint


def test_llama_cpps_variables_count_where_garrison_gives_no_flag() -> None:
    environ = {"LLAMA_ARG_HOST": "0.0.0.0", "LLAMA_ARG_PORT": "9"}
    llama = engine("llama_cpp")
    assert llama.endpoint([], environ=environ) == Endpoint("0.0.0.0", 9)
    assert llama.endpoint(["--port", "10"], environ=environ) == Endpoint("0.0.0.0", 10)
    assert llama.endpoint([], DEFAULT, environ) == DEFAULT
    assert llama.endpoint([], environ={"LLAMA_ARG_PORT": "none"}) == llama.default_endpoint


@pytest.mark.parametrize("name", ["vllm", "sim", "llama_cpp", "mlx_lm"])
def test_without_a_default_it_is_the_engines_own(name: str) -> None:
    assert engine(name).endpoint([]) == engine(name).default_endpoint


@pytest.mark.parametrize(
    ("words", "on"),
    [("--x", True), ("--no-x", False), ("--x --no-x", False), ("--no-x --x", True), ("", False), ("-- --x", False)],
)
def test_the_last_of_a_switch_and_its_negation_counts(words: str, on: bool) -> None:
    assert switched_on(words.split(), "--x") is on


KNOWN = frozenset(engine("vllm").catalogue().by_spelling())
CONFIG = """
port: 9001
host: 0.0.0.0
ssl-certfile: c.pem
served-model-name: [mine, alias]
headless: true
enable-prefix-caching: false
compilation-config: {mode: 3}
empty: []
"""


def test_a_config_file_becomes_arguments(tmp_path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(CONFIG)
    assert read_config(str(path), KNOWN) == (
        "--port", "9001", "--host", "0.0.0.0", "--ssl-certfile", "c.pem", "--served-model-name", "mine", "alias",
        "--headless", "--no-enable-prefix-caching", "--compilation-config", '{"mode": 3}',
    )  # fmt: skip
    args = ["--config", str(path), "--port", "9002"]
    found = engine("vllm").endpoint((*engine("vllm").file_args(args), *args), DEFAULT)
    assert found == Endpoint("0.0.0.0", 9002, tls=True, protocol="none")


@pytest.mark.parametrize(
    ("args", "path"),
    [([], None), (["--config", "a.yaml"], "a.yaml"), (["--config=a.yaml"], None), (["--config"], None)],
)
def test_vllm_reads_the_file_behind_the_word_alone(args: list[str], path: str | None) -> None:
    assert config_file(args) == path


def test_two_config_files_are_refused_as_vllm_does() -> None:
    with pytest.raises(InvalidError, match="given twice"):
        config_file(["--config", "a.yaml", "--config", "b.yaml"])


def test_config_values_are_words() -> None:
    assert config_args({"a": 1, "b": None, "c": 0.5}, KNOWN) == ("--a", "1", "--b", "None", "--c", "0.5")


@pytest.mark.parametrize("key", ["trust-me", "enable_prefix_caching"])
def test_what_has_no_negation_and_is_off_is_left_out(key: str) -> None:
    """vLLM looks for the negation letter by letter."""
    assert config_args({key: False}, KNOWN) == ()


@pytest.mark.parametrize(
    "content", [None, b"\xff\xfe", b"- a\n- b\n", b"a: [\n", b"x" * (1024 * 1024 + 1)],
    ids=["missing", "not text", "a list", "not YAML", "too large"],
)  # fmt: skip
def test_a_config_file_that_cannot_be_read_is_said(tmp_path, content: bytes | None) -> None:
    path = tmp_path / "x.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidError, match=r"x\.yaml"):
        read_config(str(path), KNOWN)


def test_a_config_file_of_another_kind_is_refused(tmp_path) -> None:
    import os

    os.mkfifo(tmp_path / "x.yaml")
    with pytest.raises(InvalidError, match="not a regular file"):
        read_config(str(tmp_path / "x.yaml"), KNOWN)
    with pytest.raises(InvalidError, match="must end in"):
        read_config(str(tmp_path / "x.json"), KNOWN)
