import pytest

from garrison.preflight.classify import BUILT_IN, signature_of

PYTHON = "/usr/bin/python3.12"
VLLM = [
    ("seed-openai-api-server", PYTHON, ["python", "-m", "vllm.entrypoints.openai.api_server", "--model", "x"]),
    ("seed-api-server", PYTHON, ["python3", "-m", "vllm.entrypoints.api_server"]),
    ("seed-run-server", PYTHON, ["python3", "-m", "vllm.entrypoints.openai.run_server"]),
    ("seed-vllm-serve", PYTHON, ["/opt/v/bin/python3", "/opt/v/bin/vllm", "serve", "x", "--port", "8000"]),
    ("seed-entrypoints", PYTHON, ["python", "-m", "vllm.entrypoints.cli.main", "serve", "x"]),
    ("module-attached", PYTHON, ["python", "-mvllm.entrypoints.api_server"]),
    (
        "options-before-module",
        PYTHON,
        ["python", "-X", "dev", "-W", "ignore", "-u", "-m", "vllm.entrypoints.api_server"],
    ),
    ("options-run-together", PYTHON, ["python", "-Ium", "vllm.entrypoints.api_server"]),
    ("option-with-attached-value", PYTHON, ["python", "-Xdev", "/v/bin/vllm", "serve"]),
    ("package-as-module", PYTHON, ["python", "-m", "vllm", "serve", "x"]),
    ("script-by-path", PYTHON, ["python", "/site-packages/vllm/entrypoints/openai/api_server.py"]),
    ("free-threaded", "/opt/python3.14t", ["python3.14t", "/v/bin/vllm", "serve"]),
    (
        "nix-wrapper",
        "/nix/store/h/bin/python3.12",
        ["/nix/store/h/bin/python3.12", "/nix/v/bin/.vllm-wrapped", "serve"],
    ),
    ("own-launcher", "/opt/vllm/bin/vllm", ["vllm", "serve", "x"]),
    ("rust-server", "/v/vllm/vllm-rs", ["/v/vllm/vllm-rs", "serve", "x"]),
    ("rust-front-end", "/v/vllm/vllm-rs", ["/v/vllm/vllm-rs", "frontend", "--listen-fd", "9"]),
    ("simulator", PYTHON, ["python", "-P", "-m", "garrison.sim", "--model", "x"]),
    ("simulator-by-command", PYTHON, ["python", "/v/bin/garrison", "sim", "x"]),
    ("worker-title", PYTHON, ["VLLM::EngineCore"]),
    ("worker-title-numbered", PYTHON, ["VLLM::Worker_TP0"]),
]
FOREIGN = [
    ("shell-mentions-it", "/bin/bash", ["bash", "-c", "echo vllm serve; python -m http.server"]),
    ("python-code-mentions-it", PYTHON, ["python", "-c", "import this  # vllm serve", "vllm", "serve"]),
    ("python-code-is-called-so", PYTHON, ["python", "-c", "vllm", "serve"]),
    ("python-code-attached", PYTHON, ["python", "-cvllm", "/v/bin/vllm", "serve"]),
    ("argument-mentions-it", PYTHON, ["python", "app.py", "--note", "vllm serve"]),
    ("argument-is-a-module", PYTHON, ["python", "app.py", "-m", "vllm.entrypoints.api_server"]),
    ("other-subcommand", PYTHON, ["python", "/v/bin/vllm", "bench"]),
    ("serve-is-not-next", PYTHON, ["python", "/v/bin/vllm", "--verbose", "serve"]),
    ("name-only-begins-so", PYTHON, ["python", "/v/bin/vllm-proxy", "serve"]),
    ("module-only-begins-so", PYTHON, ["python", "-m", "vllm.entrypoints_of_mine"]),
    ("rust-benchmark", "/v/vllm/vllm-rs", ["/v/vllm/vllm-rs", "bench", "serve"]),
    ("rust-in-name-only", "/usr/bin/nc", ["vllm-rs", "serve", "x"]),
    ("renamed-netcat", "/usr/bin/nc", ["vllm", "serve", "x"]),
    ("netcat-as-worker", "/usr/bin/nc", ["VLLM::EngineCore"]),
    ("title-and-more", PYTHON, ["VLLM::EngineCore", "x"]),
    ("editor-of-the-script", "/usr/bin/vim", ["vim", "/site-packages/vllm/entrypoints/api_server.py"]),
    ("another-command", PYTHON, ["python", "/v/bin/garrison", "serve", "-e", "sim"]),
    ("module-of-the-simulator-only-begins-so", PYTHON, ["python", "-m", "garrison.simulation"]),
    ("simulator-in-netcat", "/usr/bin/nc", ["garrison", "sim"]),
    ("llama-server", "/usr/bin/llama-server", ["llama-server", "-m", "x.gguf"]),
    ("no-arguments", PYTHON, []),
    ("bare-python", PYTHON, ["python"]),
    ("module-missing", PYTHON, ["python", "-m"]),
]


@pytest.mark.parametrize(("exe", "argv"), [row[1:] for row in VLLM], ids=[row[0] for row in VLLM])
def test_vllm(exe: str, argv: list[str]) -> None:
    assert signature_of(exe, argv) is not None


@pytest.mark.parametrize(("exe", "argv"), [row[1:] for row in FOREIGN], ids=[row[0] for row in FOREIGN])
def test_foreign(exe: str, argv: list[str]) -> None:
    assert signature_of(exe, argv) is None


def test_an_executable_that_cannot_be_read_is_never_guessed() -> None:
    assert signature_of(None, ["python", "/v/bin/vllm", "serve"]) is None


@pytest.mark.parametrize("signature", BUILT_IN)
def test_every_built_in_signature_is_named_by_itself(signature: str) -> None:
    argv = ["python", "/v/bin/vllm", "serve"] if " " in signature else ["python", "-m", signature]
    assert signature_of(PYTHON, argv) == signature


CUSTOM = [
    ("module", "my.custom.launcher", PYTHON, ["python", "-m", "my.custom.launcher", "--port", "1"], True),
    ("module-below", "my.custom", PYTHON, ["python", "-m", "my.custom.launcher"], True),
    ("module-other", "my.custom", PYTHON, ["python", "-m", "my.customer"], False),
    ("script-name", "another_entrypoint", PYTHON, ["python", "/srv/another_entrypoint.py"], True),
    ("script-file", "another_entrypoint.py", PYTHON, ["python", "/srv/another_entrypoint.py"], True),
    ("script-path", "/srv/start.py", PYTHON, ["python", "/srv/start.py"], True),
    ("program", "tgi-server", "/opt/tgi-server", ["/opt/tgi-server", "--port", "1"], True),
    ("words", "my-llm serve", PYTHON, ["python", "/opt/my-llm", "serve", "x"], True),
    ("words-apart", "my-llm serve", PYTHON, ["python", "/opt/my-llm", "x", "serve"], False),
    ("title", "llm: worker", PYTHON, ["llm: worker"], True),
    ("part-of-an-argument", "launch", PYTHON, ["python", "/srv/launcher.py"], False),
    ("code-mentions-it", "my.custom.launcher", PYTHON, ["python", "-c", "import my.custom.launcher"], False),
]


@pytest.mark.parametrize(
    ("signature", "exe", "argv", "expected"), [row[1:] for row in CUSTOM], ids=[row[0] for row in CUSTOM]
)
def test_custom_signatures(signature: str, exe: str, argv: list[str], expected: bool) -> None:
    assert signature_of(exe, argv, ["unrelated", signature]) == (signature if expected else None)
