"""llamactl's calls about llama-server itself, and about the models of one that runs as a router."""

import subprocess
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response
from fastapi.responses import PlainTextResponse

from garrison.api.problems import problems
from garrison.api.services import Services, services
from garrison.base.errors import EngineMissingError, EngineTimeoutError
from garrison.engines import registry
from garrison.engines.executable import locate
from garrison.net.transport import Answer

__all__ = ["of_instances", "router"]

router = APIRouter(prefix="/api/v1/backends/llama-cpp", tags=["backends"], responses=problems(424, 504))
of_instances = APIRouter(prefix="/api/v1/llama-cpp", tags=["instances"], responses=problems(400, 404, 504))

Given = Annotated[Services, Depends(services)]
Name = Annotated[str, Path(max_length=200)]
Model = Annotated[str, Path(max_length=1000)]
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


@of_instances.get("/{name}/models")
async def list_models(given: Given, name: Name) -> Any:
    """Return the models of an instance that is a router, as llama-server lists them. It is not started for that."""
    return _passed_on(await given.routers.list(name))


@of_instances.post("/{name}/models/{model:path}/load")
async def load_model(given: Given, name: Name, model: Model, body: dict[str, Any] | None = None) -> Any:
    """Begin to load a model of a router, and start the router first if necessary. llama-server answers.

    As in llamactl, the model is the one in the body; without one there, the one in the path.
    """
    return _passed_on(await given.routers.send(name, "load", {"model": model} | (body or {})))


@of_instances.post("/{name}/models/{model:path}/unload")
async def unload_model(given: Given, name: Name, model: Model, body: dict[str, Any] | None = None) -> Any:
    """Unload a model of a router. Otherwise as `load`."""
    return _passed_on(await given.routers.send(name, "unload", {"model": model} | (body or {})))


def _passed_on(answer: Answer) -> Response:
    """What an engine answered. Its media type is not passed on: no page may come from this address."""
    return Response(answer.body, answer.status, media_type="application/json")


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
