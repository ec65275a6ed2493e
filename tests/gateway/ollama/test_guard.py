"""Who a web page may pretend to be: nobody."""

import pytest

from garrison.gateway.ollama.guard import may_ask, reaches_us

LOCAL = "127.0.0.1:11434"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (LOCAL, True), ("localhost:11434", True), ("[::1]:11434", True), ("10.0.0.5", True), ("LOCALHOST", True),
        ("garrison:11434", True), ("host.docker.internal:11434", True), ("box.local", True), ("a.localhost", True),
        ("models.example.com:11434", True), ("MODELS.example.com", True),
        ("evil.example", False), ("127.0.0.1.evil.example", False), ("", False), ("[::1", False), ("a b.c", False),
    ],
)  # fmt: skip
def test_hosts(host: str, expected: bool) -> None:
    assert reaches_us(host, ("models.example.com",)) is expected


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://127.0.0.1:11434", True), ("http://localhost:3000", True), ("https://[::1]:8443", True),
        ("vscode-webview://abc", True), ("app://obsidian.md", True), ("tauri://localhost", True),
        ("https://chat.example.com", True),
        ("https://evil.example", False), ("http://localhost.evil.example", False), ("null", False), ("", False),
        ("http://chat.example.com", False), ("http://[", False),
    ],
)  # fmt: skip
def test_origins(origin: str, expected: bool) -> None:
    assert may_ask(origin, LOCAL, ("https://chat.example.com",)) is expected


def test_every_origin_where_that_is_configured_and_our_own_always() -> None:
    assert may_ask("https://evil.example", LOCAL, ("*",))
    assert may_ask("https://models.example.com", "models.example.com", ())
