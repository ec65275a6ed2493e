"""llamactl's calls about llama-server itself, and about the models of one that runs as a router."""

import subprocess
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import PlainTextResponse

from garrison.api.problems import problems
from garrison.api.services import Services, services
from garrison.base.errors import EngineMissingError, EngineTimeoutError
from garrison.engines import registry
from garrison.engines.executable import locate

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/backends/llama-cpp", tags=["backends"], responses=problems(424, 504))

Given = Annotated[Services, Depends(services)]
_SECONDS = 20.0
_MOST_BYTES = 1024 * 1024


@router.get("/help", response_class=PlainTextResponse)
async def help_(given: Given) -> str:
    """What `llama-server --help` prints."""
    return await _printed(given, "--help")


@router.get("/version", response_class=PlainTextResponse)
async def version(given: Given) -> str:
    """What `llama-server --version` prints."""
    return await _printed(given, "--version")


@router.get("/devices", response_class=PlainTextResponse)
async def devices(given: Given) -> str:
    """What `llama-server --list-devices` prints."""
    return await _printed(given, "--list-devices")


async def _printed(given: Services, flag: str) -> str:
    return await given.disk.run(lambda: _run(given, flag), f"llama-server {flag}")


def _run(given: Services, flag: str) -> str:
    words = given.settings.llama_executable or (str(_located(given)),)
    try:
        done = subprocess.run(
            [*words, flag], capture_output=True, timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL, cwd="/"
        )
    except subprocess.TimeoutExpired:
        raise EngineTimeoutError(f"{words[0]} {flag} did not end within {_SECONDS:g} s") from None
    except OSError as error:
        raise EngineMissingError(
            f"{words[0]} cannot be run: {error.strerror}", hint="GARRISON_LLAMA_EXECUTABLE"
        ) from None
    return (done.stdout + done.stderr)[:_MOST_BYTES].decode("utf-8", "replace")


def _located(given: Services) -> FilePath:
    return locate(registry.engine("llama_cpp"), data_dir=given.settings.data_dir, environ=given.environ).path
