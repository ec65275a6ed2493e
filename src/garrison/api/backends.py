"""`/api/v1/backends`: command lines that people have, as options."""

from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from garrison.api.problems import problems
from garrison.base.errors import GarrisonError
from garrison.engines.parsed_backend import parse_backend

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/backends", tags=["backends"], responses=problems(400, 404, 424, 502, 504))

_ENGINES = {"vllm": "vllm", "llama-cpp": "llama_cpp", "mlx": "mlx_lm"}


class Command(BaseModel):
    """A command line, as it was pasted."""

    command: Annotated[
        str,
        Field(
            max_length=100_000,
            examples=["vllm serve --model org/name --tensor-parallel-size 2"],
        ),
    ]


def _parse(command: str, backend: str) -> JSONResponse:
    try:
        return JSONResponse(parse_backend(command, _ENGINES[backend]).to_json())
    except GarrisonError as error:  # 400, as the seed has it
        body: dict[str, Any] = {"error": "invalid_command", "details": error.message}
        return JSONResponse(body | ({"hint": error.hint} if error.hint else {}), 400)


@router.post("/vllm/parse-command")
async def parse_vllm(given: Command) -> JSONResponse:
    """Translate a `vllm serve` command line into options of an instance."""
    return _parse(given.command, "vllm")


@router.post("/llama-cpp/parse-command")
async def parse_llama_cpp(given: Command) -> JSONResponse:
    """Translate a `llama-server` command line into options of an instance."""
    return _parse(given.command, "llama-cpp")


@router.post("/mlx/parse-command")
async def parse_mlx(given: Command) -> JSONResponse:
    """Translate an `mlx_lm.server` command line into options of an instance."""
    return _parse(given.command, "mlx")
