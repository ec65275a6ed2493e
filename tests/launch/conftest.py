import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from canned import canned
from garrison_serve import ENGINE, Garrison, Start, alive
from served import certify, refusing_port, start_raw

__all__ = ["canned", "certify", "refusing_port", "start", "start_raw"]


@pytest.fixture
def start(tmp_path: Path, tiny_model: Path, clean_environ: Mapping[str, str], until: Any) -> Iterator[Start]:
    """`start({"exit": 3}, "--port", "1")`: the plan of the engine, and further arguments."""
    program = tmp_path / "vllm"
    program.write_text(f"#!{sys.executable} -I\n{ENGINE}")
    program.chmod(0o755)
    started: list[Garrison] = []

    def begin(
        plan: Mapping[str, Any] | None = None,
        *arguments: str,
        variables: Mapping[str, str] | None = None,
        wrapper: str | None = None,
        model: bool = True,
    ) -> Garrison:
        record = tmp_path / f"record{len(started)}"
        record.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        environ = {
            **clean_environ,
            "GARRISON_SKIP_GPU_CHECK": "1",
            "GARRISON_STOP_TIMEOUT": "3",
            "GARRISON_PREFLIGHT_LOCKFILE": str(tmp_path / "{port}.lock"),
            "GARRISON_PROCESS_SIGNATURES": str(program),
            "FAKE": json.dumps({"record": str(record), **(plan or {})}),
            **(variables or {}),
        }
        out = tmp_path / f"out{len(started)}"
        command = [sys.executable, "-m", "garrison.cli.main", "serve", *([str(tiny_model)] if model else [])]
        if "--engine" not in arguments and "--executable" not in arguments:
            command += ["--executable", str(program)]
        command += ["--port", str(port), *arguments]
        if wrapper is not None:
            command = ["sh", "-c", wrapper, str(record / "wrapper.pid"), *command]
        with out.open("wb") as stream:
            process = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, cwd=tmp_path
            )
        home = Path(environ["GARRISON_DATA_DIR"])
        started.append(Garrison(process, out, record, home, port, until))
        return started[-1]

    yield begin
    for garrison in started:
        for pid in [*garrison.pids(), garrison.process.pid]:
            if alive(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        garrison.process.wait(10)
