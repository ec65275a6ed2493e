"""The errors in the OpenAPI document: one schema, and the statuses that each route may answer with."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["TAGS", "Problem", "complete", "problems"]


class Problem(BaseModel):
    """Every error. Beside these fields there are facts, whose names depend on the code."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "error": "not-found",
                    "details": "there is no instance 'qwen'",
                    "hint": "`garrison instance list` shows those that exist.",
                    "instance": "qwen",
                }
            ]
        },
    )

    error: str = Field(description="A code that stays the same; docs/reference/errors.md lists them.")
    details: str = Field(description="What happened, in words.")
    hint: str | None = Field(None, description="What to do next.")


TAGS = (
    {"name": "health", "description": "Whether the server lives and is ready. Without a key."},
    {"name": "metrics", "description": "For Prometheus."},
    {"name": "system", "description": "Version, settings, events, and the end of the server."},
    {"name": "instances", "description": "Engines that this server runs: llamactl's calls, and more."},
    {"name": "models", "description": "Models on disk, and downloads as jobs: llamactl's calls."},
    {"name": "fleet", "description": "Declared stacks: plan, apply, drift, history."},
    {"name": "profiles", "description": "Model names that go elsewhere while a profile is active."},
    {"name": "traffic", "description": "What the gateway carries: usage, requests that have ended or are in progress."},
    {"name": "keys", "description": "Keys, their scopes and limits, and the audit log: llamactl's calls, and more."},
    {"name": "backends", "description": "Command lines to options, and what engines say of themselves."},
    {"name": "nodes", "description": "Other servers, which this one lists and passes requests on to."},
)

_TEXTS = {
    400: "The request cannot be read.",
    401: "A key is needed, or it is not one of this server.",
    403: "The caller may not do this.",
    404: "There is none of that name.",
    409: "It is in use, was changed by somebody else, or exists already.",
    412: "It was changed since the entity tag of `If-Match`.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "A value cannot be used; the error says which.",
    502: "What is behind the server failed.",
    503: "Not now; `Retry-After` says when to ask again.",
    504: "What is behind the server did not answer.",
}
_ALWAYS = (401, 403, 413, 415, 422, 503)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that answers with errors of these statuses, beside those that all have."""
    return {
        status: {
            "description": _TEXTS.get(status, HTTPStatus(status).phrase),
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}},
        }
        for status in sorted({*_ALWAYS, *statuses})
    }


def complete(app: FastAPI) -> None:
    """Add the schema that `problems` refers to to the document of `app`.

    Given as a `model`, FastAPI would document it with the media type of the route's own answer, such as plain text.
    """
    document = app.openapi

    def openapi() -> dict[str, Any]:
        made = document()
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        schemas.setdefault(Problem.__name__, Problem.model_json_schema())
        return made

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it
