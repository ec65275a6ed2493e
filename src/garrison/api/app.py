"""The application: every route, and what each request passes before it."""

from fastapi import FastAPI
from starlette.types import ASGIApp

from garrison import __version__
from garrison.access.keys import Keys
from garrison.api import backends, errors, keys, llama_cpp, metrics, nodes, profiles, requests, system, usage
from garrison.api.authentication import Authentication
from garrison.api.fleet import holds
from garrison.api.fleet import routes as fleet
from garrison.api.guard import Guard
from garrison.api.instances import of_stacks
from garrison.api.instances import routes as instances
from garrison.api.models import routes as models
from garrison.api.prefix import WithoutPrefix
from garrison.api.problems import TAGS, complete
from garrison.api.services import Services

__all__ = ["create_app", "guarded"]

_ABOUT = "Manages the instances of one machine. Errors have one shape: error (a code), details, hint."


def create_app(given: Services) -> FastAPI:
    """Return the management API over `given`."""
    app = FastAPI(
        title="Garrison",
        version=__version__,
        description=_ABOUT,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        redirect_slashes=False,
        openapi_tags=list(TAGS),
    )
    app.state.services = given
    errors.install(app)
    app.include_router(system.health)
    for noun in (system, keys, instances, of_stacks, nodes, backends, llama_cpp, models):
        app.include_router(noun.router)
    for noun in (fleet, holds, profiles, usage, requests, metrics):
        app.include_router(noun.router)
    app.include_router(llama_cpp.of_instances)
    complete(app)
    return app


def guarded(app: ASGIApp, given: Services, check: Keys) -> ASGIApp:
    """`app` behind the checks that every request passes: where it comes from, then who makes it."""
    most = given.settings.max_body_mib * 2**20
    authenticated = Authentication(app, check, given.audit, lambda: given.settings)
    return WithoutPrefix(Guard(authenticated, lambda: given.settings, most), given.settings.root_path)
