import pytest

from garrison.cli.serve.views.call_line import address_line, call_line
from garrison.engines.argv import Endpoint

BODY = (
    '-H \'Content-Type: application/json\' -d \'{"model": "m", "messages": [{"role": "user", "content": "Hello!"}]}\''
)

CASES = {
    "http": (
        Endpoint("0.0.0.0", 8000),
        "OpenAI endpoint: http://127.0.0.1:8000/v1",
        "curl http://127.0.0.1:8000/v1/chat/completions",
    ),
    "https": (
        Endpoint("::1", 8000, tls=True, prefix="/serve"),
        "OpenAI endpoint: https://[::1]:8000/serve/v1",
        "curl --insecure 'https://[::1]:8000/serve/v1/chat/completions'",
    ),
    "client certificates": (
        Endpoint("node", 8000, tls=True, client_cert=True),
        "OpenAI endpoint: https://node:8000/v1",
        "curl --insecure --cert CLIENT.pem https://node:8000/v1/chat/completions",
    ),
    "socket": (
        Endpoint("x", 8000, "/run/my v.sock"),
        "OpenAI endpoint: unix:/run/my v.sock, http://localhost/v1 on it",
        "curl --unix-socket '/run/my v.sock' http://localhost/v1/chat/completions",
    ),
}


@pytest.mark.parametrize(("endpoint", "address", "call"), CASES.values(), ids=CASES)
def test_lines(endpoint: Endpoint, address: str, call: str) -> None:
    assert address_line(endpoint) == address
    assert call_line(endpoint, "m", None) == f"{call} {BODY}"


def test_a_key_stays_a_variable() -> None:
    line = call_line(Endpoint("127.0.0.1", 8000), "m", "MY_KEY")
    assert line is not None
    assert '-H "Authorization: Bearer $MY_KEY"' in line


def test_what_curl_cannot_call() -> None:
    grpc = Endpoint("0.0.0.0", 8000, protocol="grpc")
    assert (address_line(grpc), call_line(grpc, "m", None)) == ("gRPC endpoint: 127.0.0.1:8000", None)
    nothing = Endpoint("0.0.0.0", 8000, protocol="none")
    assert (address_line(nothing), call_line(nothing, "m", None)) == (None, None)
    anywhere = Endpoint("0.0.0.0", 0)
    assert (address_line(anywhere), call_line(anywhere, "m", None)) == (None, None)
