"""`garrison serve` finds out that an engine is ready as the engine's own flags demand; a healthy one is not killed
because it is asked wrongly."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from garrison_serve import Garrison, Start

pytestmark = pytest.mark.system

SHORT = {"GARRISON_PROGRESS_WINDOW": "1"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    cert, key = (str(tmp_path_factory.mktemp("tls") / name) for name in ("c.pem", "k.pem"))
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=node.example"
    subprocess.run([*make.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


def up(garrison: Garrison, words: str) -> str:
    """What was said, once `words` were."""
    garrison.until(lambda: words in garrison.text or garrison.process.poll() is not None, what=words)
    assert garrison.process.poll() is None, garrison.text
    return garrison.text


def waited(environ: Mapping[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "garrison.cli.main", *words]
    return subprocess.run(command, env=dict(environ), capture_output=True, text=True, timeout=60, check=False)


def test_tls(start: Start, files: tuple[str, str], clean_environ: Mapping[str, str]) -> None:
    garrison = start(
        {}, "--engine", "sim", "--", "--ssl-certfile", files[0], f"--ssl_keyfile={files[1]}", variables=SHORT
    )
    url = f"https://127.0.0.1:{garrison.port}"
    said = up(garrison, "try it: curl --insecure")
    assert "garrison: ready after" in said
    assert f"OpenAI endpoint: {url}/v1" in said
    distrusting = waited(clean_environ, "wait", url, "--timeout", "5")
    assert distrusting.returncode == 22
    assert "certificate is not trusted: self-signed certificate" in distrusting.stderr
    assert "--insecure" in distrusting.stderr
    trusting = waited(clean_environ, "wait", url, "--insecure", "--timeout", "10", "--json")
    assert json.loads(trusting.stdout)["url"] == url
    smoked = waited(clean_environ, "smoke", f"{url}/v1", "-k", "--json")
    assert smoked.returncode == 0, smoked.stdout
    refused = json.loads(waited(clean_environ, "smoke", url, "--json").stdout)
    assert "--insecure" in refused["steps"][0]["detail"]
    assert garrison.process.poll() is None


def test_tls_that_a_wrapper_adds(start: Start, files: tuple[str, str], tmp_path: Path) -> None:
    """Nothing in the argv shows it."""
    wrapper = tmp_path / "wrapped"
    wrapper.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo 0.32.0 && exit\n'
        f'exec {sys.executable} -m garrison.sim "$@" --ssl-certfile {files[0]} --ssl-keyfile {files[1]}\n'
    )
    wrapper.chmod(0o755)
    garrison = start({}, "--executable", str(wrapper), variables=SHORT)
    assert f"OpenAI endpoint: https://127.0.0.1:{garrison.port}/v1" in up(garrison, "try it")


def test_client_certificates(start: Start, files: tuple[str, str]) -> None:
    flags = ["--ssl-certfile", files[0], "--ssl-keyfile", files[1], "--ssl-ca-certs", files[0], "--ssl-cert-reqs", "2"]
    garrison = start({}, "--engine", "sim", "--", *flags, variables=SHORT)
    said = up(garrison, "try it")
    assert "garrison: running after" in said
    assert "it requires a client certificate" in said


@pytest.mark.parametrize("root", ["/serve", "/v1"])
def test_root_path(start: Start, root: str, clean_environ: Mapping[str, str]) -> None:
    garrison = start({}, "--engine", "sim", "--", "--root-path", root, variables=SHORT)
    url = f"http://127.0.0.1:{garrison.port}{root}"
    assert f"OpenAI endpoint: {url}/v1" in up(garrison, "try it")
    assert waited(clean_environ, "wait", f"{url}/v1", "--timeout", "10").returncode == 0


def test_a_socket_file(start: Start, tmp_path: Path, clean_environ: Mapping[str, str]) -> None:
    path = tmp_path / "v.sock"
    garrison = start({}, "--engine", "sim", "--", "--uds", str(path), variables=SHORT)
    up(garrison, "try it")
    (log,) = (garrison.home / "logs").iterdir()
    assert re.fullmatch(r"sim-v-[0-9a-f]{8}\.log", log.name)
    assert waited(clean_environ, "wait", f"unix:{path}", "--timeout", "10").returncode == 0
    assert waited(clean_environ, "smoke", f"unix:{path}", "--json").returncode == 0


def test_a_socket_file_that_a_server_left_behind(start: Start, tmp_path: Path) -> None:
    """No engine binds a file that exists."""
    path = tmp_path / "v.sock"
    with socket.socket(socket.AF_UNIX) as former:
        former.bind(str(path))
    garrison = start({}, "--engine", "sim", "--", "--uds", str(path))
    assert f"removed {path}, which a server that has ended left behind" in up(garrison, "try it")


def test_no_start_for_a_socket_file_that_cannot_be_made(start: Start, tmp_path: Path) -> None:
    (tmp_path / "v.sock").write_text("mine")
    garrison = start({}, "--engine", "sim", "--", "--uds", str(tmp_path / "v.sock"))
    assert garrison.end() == 1
    assert "exists and is no socket" in garrison.text
    assert (tmp_path / "v.sock").read_text() == "mine"


def test_the_names_that_the_engine_is_given_are_those_of_the_call(start: Start) -> None:
    flags = ["--served-model-name", "mine", "alias"]
    garrison = start({}, "--engine", "sim", "--served-model-name", "ours", "--", *flags)
    said = up(garrison, "try it")
    assert '"mine"' in said
    assert "ours" not in said


@pytest.mark.parametrize("status", [401, 404, 307, 400])
def test_an_engine_that_answers_is_not_killed(start: Start, status: int) -> None:
    """What it answers tells nothing; that it listens does."""
    garrison = start({"status": status}, variables=SHORT)
    said = up(garrison, "try it")
    assert "does not tell whether it is ready" in said or status == 401
    garrison.process.terminate()
    assert garrison.end() == 0


@pytest.mark.parametrize("status", [500, 503])
def test_one_that_says_it_is_not_ready_is_believed(start: Start, status: int) -> None:
    garrison = start({"status": status}, variables=SHORT)
    assert garrison.end() == 22
    assert f"vLLM wrote nothing and used no CPU for 1 s: /health answers {status}" in garrison.text


def test_the_config_file_of_the_engine_counts(start: Start, tmp_path: Path) -> None:
    """vLLM reads it before the arguments: what it says is not said again by Garrison, which would win."""
    config = tmp_path / "c.yaml"
    config.write_text("headless: true\nport: 18999\nserved-model-name: [mine, alias]\n")
    garrison = start({"waits": True}, "--", "--config", str(config), variables=SHORT)
    up(garrison, "garrison: running after")
    argv = json.loads(garrison.noted("argv"))
    assert "--port" not in argv
    assert "--served-model-name" not in argv
    assert argv[-2:] == ["--config", str(config)]
