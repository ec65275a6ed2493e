"""One shape for every error: `{"error": code, "details": message, "hint"?, …facts}`, as llamactl's clients read it."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from garrison.access.credentials import CHALLENGE
from garrison.base.errors import GarrisonError, InvalidError
from garrison.base.invalid_values import in_our_words
from garrison.base.logs import logger

__all__ = ["CODE", "error_response", "install"]

CODE = "garrison.code"
"""In the scope of a request that failed: the code of its error, for the record of the call."""

_log = logger(__name__)
_CODES = {404: "not-found", 405: "method-not-allowed", 413: "too-large", 415: "unsupported-media-type"}


def error_response(error: GarrisonError) -> JSONResponse:
    """Return the answer for a `GarrisonError`. An invalid value is 422 here: the request itself was understood."""
    status = 422 if error.http_status == HTTPStatus.BAD_REQUEST else error.http_status
    headers = {}
    if (seconds := error.details.get("retry_after")) is not None:
        headers["Retry-After"] = str(seconds)
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = CHALLENGE
    body: dict[str, Any] = {"error": error.code, "details": error.message}
    if error.hint:
        body["hint"] = error.hint
    return JSONResponse(
        body | {name: value for name, value in error.details.items() if name not in body}, status, headers
    )


def install(app: FastAPI) -> None:
    """Have `app` answer every error in this shape."""

    async def ours(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, GarrisonError)
        request.scope[CODE] = error.code
        return error_response(error)

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        found = [_problem(one) for one in error.errors()]
        return error_response(InvalidError("; ".join(found[:10]), details={"problems": found[:100]}))

    async def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code = _CODES.get(error.status_code, HTTPStatus(error.status_code).phrase.lower().replace(" ", "-"))
        return JSONResponse({"error": code, "details": str(error.detail)}, error.status_code, error.headers)

    async def bug(request: Request, error: Exception) -> JSONResponse:
        _log.error("a request failed because of a bug", exception=error, path=request.url.path)
        return JSONResponse({"error": "internal", "details": "a bug in Garrison; the log has the details"}, 500)

    app.add_exception_handler(GarrisonError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, bug)


def _problem(found: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in found["loc"] if part != "body")
    said = in_our_words(found["type"], found["msg"], found.get("ctx"))
    return f"{where}: {said}" if where else said
