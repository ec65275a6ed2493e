"""`garrison sim` at a terminal: flags that nobody has, and a port that is taken."""

import os
import socket
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        ("--prot", "Did you mean --port?"),
        ("--port-number", None),
        ("--por", "Did you mean --port?"),
        ("--ttfs", "Did you mean --ttft?"),
        ("--dtyp", "Did you mean --dtype?"),
        ("--zzz-qqq", "`garrison sim --help` lists the flags; those of vLLM are ignored."),
        ("--prot=8", "Did you mean --port?"),
    ],
)
def test_a_flag_that_nobody_has(cli: Any, flag: str, hint: str | None) -> None:
    done = cli("sim", "acme/tiny", "--dtype", "auto", flag, "8")
    assert (done.code, done.out) == (64, "")
    assert f"neither the simulator nor vLLM has the flag {flag.partition('=')[0]}" in done.err
    assert hint is None or hint in done.err


@pytest.mark.parametrize("argv", [[""], ["--model", ""], ["--served-model-name", " "]], ids=str)
def test_a_model_without_a_name(cli: Any, argv: list[str]) -> None:
    done = cli("sim", *argv)
    assert done.code == 1
    assert "the name of the model is empty" in done.err


@pytest.mark.system
def test_a_port_that_is_taken(cli: Any) -> None:
    """A flag of vLLM that is ignored does not keep it from getting so far."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        done = cli("sim", "--port", str(port), "--enforce-eager", "--hf-overrides.rope_theta", "1", "-tp", "2")
    assert done.code == 2
    assert f"error: port {port} of 127.0.0.1 is taken by pid {os.getpid()}: " in done.err
    assert "choose another --port" in done.err
    assert "ignoring --enforce-eager, --hf-overrides.rope-theta, -tp" in done.out
