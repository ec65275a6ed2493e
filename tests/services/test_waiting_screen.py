"""What a person sees while a download waits for another try: a running clock, the try, the cause and when it comes."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hub import Fault, Hub
from screens import Screen

pytestmark = [pytest.mark.service, pytest.mark.system]
SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def environ(clean_environ: Mapping[str, str], hub: Hub) -> dict[str, str]:
    return {**clean_environ, "HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1"}


FAULTS = {
    "listing refused": (Fault("/api/models/", "503", times=3), r"try 4 of 5 in 2 s: HTTP 503"),
    "listing limited": (
        Fault("/api/models/", "429", headers={"Retry-After": "3"}), r"next try in [12] s: http://\S+ limits requests"
    ),
    "file refused": (Fault(SHARD, "502", times=3), rf"try 4 of 5 in 2 s: {SHARD[:20]}"),
    "file limited": (Fault(SHARD, "429", headers={"Retry-After": "3"}), r"next try in [12] s: http://\S+ limits req"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_a_wait_has_a_clock_the_try_the_cause_and_its_end(environ: Any, hub: Hub, kind: str) -> None:
    fault, expected = FAULTS[kind]
    hub.faults.append(fault)
    with Screen(environ, "resolve", "acme/tiny", "--source", "hf-hub") as screen:
        assert screen.end() == 0, screen.text()
    waits = [line for line in screen.lines() if "waiting … " in line]
    assert any(re.search(expected, line) for line in waits), screen.text()
    assert len({re.findall(r"waiting … (\d+) s", line)[0] for line in waits}) >= 3, "the clock runs"
    assert all(len(line) <= 80 for line in screen.lines() if " … " in line or line.startswith("downloading"))
    assert screen.gives_the_cursor_back
    assert screen.lines()[-1].endswith("/models/tiny")


def test_the_search_itself_has_a_clock(environ: Any, hub: Hub) -> None:
    hub.faults.append(Fault("/api/models/", "slow", seconds=1.5))
    with Screen(environ, "resolve", "acme/tiny") as screen:
        assert screen.end() == 0, screen.text()
    assert any("looking in hf-hub … 1 s" in line for line in screen.lines())


def test_serve_shows_it_too_and_a_failure_gives_the_terminal_back(environ: Any, hub: Hub, tmp_path: Path) -> None:
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\necho 0.32.0\n")
    program.chmod(0o755)
    hub.faults.append(Fault("/api/models/", "503", times=99))
    words = ("serve", "acme/tiny", "--executable", program, "--port", "21872", "--dry-run")
    with Screen(environ, *words) as screen:
        assert screen.end() == 12, screen.text()
    assert any(re.search(r"waiting … \d s +try \d of 5", line) for line in screen.lines())
    assert screen.gives_the_cursor_back
    assert "error: " in screen.text()


def test_a_pipe_has_a_line_for_each_wait(environ: Any, hub: Hub) -> None:
    hub.faults.append(Fault("/api/models/", "503", times=2))
    done = subprocess.run(
        [sys.executable, "-m", "garrison.cli.main", "resolve", "acme/tiny", "--source", "hf-hub"],
        env=environ, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    waits = [line for line in done.stderr.splitlines() if "; try " in line]
    assert waits == [
        f"{hub.url}: HTTP 503; try 2 of 5 in 0.5 s",
        f"{hub.url}: HTTP 503; try 3 of 5 in 1 s",
    ]
