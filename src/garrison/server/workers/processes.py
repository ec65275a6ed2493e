"""Starting processes of the gateway. Imports little, so that the first one starts while the server still imports."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from garrison.base.children import DIRECTORY, SAFE_PYTHON, child_environment
from garrison.base.settings import Settings
from garrison.server.workers.records import RECORD_NAME, read_workers

__all__ = ["LINK_NAME", "LOG_NAME", "start_early", "start_ollama", "start_worker"]

LINK_NAME = "gateway.sock"
LOG_NAME = "gateway.log"
_MODULE = "garrison.gateway.worker"
_OLLAMA_MODULE = "garrison.gateway.ollama"
_MALLOC = {"MALLOC_TOP_PAD_": str(16 * 2**20)}
"""glibc keeps this much of what is freed: otherwise each large body is mapped in anew, page by page."""


async def start_worker(data_dir: Path) -> asyncio.subprocess.Process:
    """Start a worker, which connects by itself, as soon as somebody listens. It goes on when this process is killed.

    Raises:
        OSError: it cannot be started.
    """
    return await _start(data_dir, _MODULE, str((data_dir / LINK_NAME).absolute()))


async def start_ollama(data_dir: Path, bound: int, told: str) -> asyncio.subprocess.Process:
    """Start the process that serves Ollama's API. It goes on when this process is killed.

    Args:
        bound: the descriptor of its listening socket, which it inherits.
        told: a `Told` of `gateway.ollama`, in JSON.

    Raises:
        OSError: it cannot be started.
    """
    return await _start(data_dir, _OLLAMA_MODULE, str(bound), told, inherited=(bound,))


async def _start(
    data_dir: Path, module: str, *arguments: str, inherited: tuple[int, ...] = ()
) -> asyncio.subprocess.Process:
    log = os.open(data_dir / LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, SAFE_PYTHON, "-m", module, *arguments),
            env=child_environment(os.environ, without=("GARRISON_", "LLAMACTL_")) | _MALLOC,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=DIRECTORY,
            pass_fds=inherited,
        )
    finally:
        os.close(log)


async def start_early(values: Settings) -> asyncio.subprocess.Process | None:
    """Start the first worker ahead; None if some of the server before still run, or it cannot be started yet."""
    if read_workers(values.data_dir / RECORD_NAME):
        return None
    try:
        return await start_worker(values.data_dir)
    except OSError:  # the start of the server says why
        return None
