"""Secrets as people set them, with the line break of the file they came from, against a hub and a store that refuse."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

pytestmark = pytest.mark.system

FILES = {"config.json": b'{"architectures": ["X"]}', "tokenizer.json": b"{}"}


class Server:
    """Takes one bearer token, and repeats what it was sent in what it refuses. `heard` holds the headers."""

    def __init__(self) -> None:
        server = self
        self.heard: list[str] = []
        self.token = "hf_x"

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                sent = self.headers.get("Authorization") or ""
                server.heard.append(sent)
                if sent != f"Bearer {server.token}":
                    body = f"<Error><Code>AccessDenied</Code><Message>no {sent}</Message></Error>".encode()
                    self.send_response(403 if self.path.startswith("/bucket") else 401, f"refused {sent}")
                else:
                    siblings = [{"rfilename": name, "size": len(content)} for name, content in FILES.items()]
                    body = json.dumps({"id": "gated/t", "sha": "ab" * 20, "siblings": siblings}).encode()
                    self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815 - the name that the base class looks for

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def resolve(run: Any, clean_environ: Any, server: Server) -> Callable[..., Any]:
    """`resolve(HF_TOKEN=…)`: in a process of its own, once plainly and once with `--json`; all that it left behind."""

    def call(**variables: str) -> tuple[int, str]:
        environ = {name: value for name, value in clean_environ.items() if not name.startswith("AWS_")}
        environ |= {"HF_ENDPOINT": server.url, "GARRISON_KEEP_LOGS": "1", **variables}
        said, code = "", 0
        for options in ([], ["--json"]):
            done = run("-m", "garrison.cli.main", "resolve", "gated/t", *options, env=environ)
            said, code = said + done.out + done.err, done.code
        data = Path(clean_environ["GARRISON_DATA_DIR"])
        kept = [
            path.read_text(errors="replace")
            for path in data.rglob("*")
            if path.is_file() and path.suffix in (".log", ".txt")
        ]
        return code, said + "".join(kept)

    return call


TOKENS = [("HF_TOKEN", "hf_x\n"), ("HF_TOKEN", " hf_x\r\n"), ("GARRISON_HF_TOKEN", "hf_x\n")]
TOKENS += [("HUGGING_FACE_HUB_TOKEN", "hf_x\n")]


@pytest.mark.parametrize(("name", "raw"), TOKENS)
def test_a_token_with_a_line_break_is_used_without_it(resolve: Any, server: Server, name: str, raw: str) -> None:
    _, said = resolve(**{name: raw})
    assert set(server.heard) == {"Bearer hf_x"}
    assert "hf_x" not in said
    assert "Illegal header" not in said


def test_a_token_that_is_refused_is_not_shown(resolve: Any, server: Server) -> None:
    server.token = "another"
    code, said = resolve(HF_TOKEN="hf_x\n")
    assert code in (10, 12)
    assert set(server.heard) == {"Bearer hf_x"}
    assert "hf_x" not in said


def test_a_token_of_two_lines_is_named_and_not_shown(resolve: Any, server: Server) -> None:
    code, said = resolve(HF_TOKEN="hf_one\nhf_two")
    assert (code, server.heard) == (1, [])
    assert "HF_TOKEN must be one line of text" in said
    assert "hf_one" not in said
    assert "hf_two" not in said


def test_a_token_from_the_file_of_the_library(resolve: Any, server: Server, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_x\n")
    server.token = "another"
    code, said = resolve(HF_TOKEN_PATH=str(tmp_path / "token"), HF_HOME=str(tmp_path))
    assert code in (10, 12)
    assert set(server.heard) == {"Bearer hf_x"}
    assert "hf_x" not in said


def test_a_password_in_the_address_of_the_hub(resolve: Any, server: Server) -> None:
    server.token = "another"
    _, said = resolve(HF_ENDPOINT=server.url.replace("://", "://me:passw0rd@"))
    assert "passw0rd" not in said
    assert "127.0.0.1" in said


AWS = {"AWS_ACCESS_KEY_ID": "ident-1234567", "AWS_SECRET_ACCESS_KEY": "s3cr3t-key", "AWS_SESSION_TOKEN": "s3ssion-key"}


def r2(server: Server, **variables: str) -> dict[str, str]:
    own = {"R2_BUCKET": "bucket", "R2_MODELS_PREFIX": "m", "R2_ENDPOINT_URL": server.url}
    return own | {"GARRISON_MODEL_SOURCES": "r2"} | variables


def test_keys_of_a_store_with_line_breaks(resolve: Any, server: Server) -> None:
    code, said = resolve(**r2(server, **{name: f"{value}\n" for name, value in AWS.items()}))
    assert code in (10, 12)
    assert server.heard
    assert all("Credential=ident-1234567/" in sent for sent in server.heard)
    for value in AWS.values():
        assert value not in said


@pytest.mark.parametrize("name", AWS)
def test_a_key_of_a_store_of_two_lines(resolve: Any, server: Server, name: str) -> None:
    code, said = resolve(**r2(server, **AWS | {name: "half-one\nhalf-two"}))
    assert (code, server.heard) == (1, [])
    assert name in said
    assert "half-" not in said


def test_a_key_in_the_shared_file(resolve: Any, server: Server, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = ident-1234567 \naws_secret_access_key = s3cr3t-key\n"
    )
    code, said = resolve(**r2(server, AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "credentials")))
    assert code in (10, 12)
    assert server.heard
    assert "s3cr3t-key" not in said
    assert "ident-1234567" not in said
