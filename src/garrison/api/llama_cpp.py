"""llamactl's calls about llama-server itself, and about the models of one that runs as a router."""

import subprocess
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field

from garrison.api.problems import problems
from garrison.api.services import Services, services
from garrison.base.errors import EngineMissingError, EngineTimeoutError
from garrison.engines import registry
from garrison.engines.executable import locate

__all__ = ["of_instances", "router"]

router = APIRouter(prefix="/api/v1/backends/llama-cpp", tags=["backends"], responses=problems(424, 504))
of_instances = APIRouter(prefix="/api/v1/llama-cpp", tags=["instances"], responses=problems(400, 404, 502, 504))

Given = Annotated[Services, Depends(services)]
Name = Annotated[str, Path(max_length=200)]
Model = Annotated[str, Path(max_length=1000)]
_SECONDS = 20.0
_MOST_BYTES = 1024 * 1024


class Asked(BaseModel):
    """A model, as llamactl's clients name it."""

    model: str | None = Field(None, min_length=1, max_length=1000)


class Done(BaseModel):
    """As llama-server says it."""

    success: bool = True


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


@of_instances.get("/{name}/models")
async def list_models(given: Given, name: Name) -> dict[str, Any]:
    """Return the models of an instance that is a router, as llama-server lists them; `status.error` says why a load
    failed. It is not started for that: while it does not run, they are those of its preset."""
    return await given.routers.list(name)


@of_instances.post("/{name}/models/{model:path}/load")
async def load_model(given: Given, name: Name, model: Model, body: Asked | None = None) -> Done:
    """Begin to load a model of a router, and start the router first if necessary. One that is loaded stays so.

    As in llamactl, the model is the one in the body; without one there, the one in the path.
    """
    await given.routers.load(name, _asked(model, body))
    return Done()


@of_instances.post("/{name}/models/{model:path}/unload")
async def unload_model(given: Given, name: Name, model: Model, body: Asked | None = None) -> Done:
    """Unload a model of a router, if it is loaded. Otherwise as `load`, but nothing is started."""
    await given.routers.unload(name, _asked(model, body))
    return Done()


def _asked(model: str, body: Asked | None) -> str:
    return model if body is None or body.model is None else body.model


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
