"""Where a command that runs after a preflight will listen, by its own arguments and config file."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

from garrison.base.errors import InvalidError
from garrison.base.settings import Settings
from garrison.engines.argv import Endpoint
from garrison.engines.parse.command import parse_command
from garrison.engines.registry import engine

__all__ = ["as_the_command_says", "endpoint_of_command"]


def endpoint_of_command(command: Sequence[str], environ: Mapping[str, str]) -> Endpoint | None:
    """Where the engine that `command` starts will listen; None if it starts none that is known, or a container."""
    try:
        parsed = parse_command(shlex.join(command))
    except InvalidError:
        return None
    if parsed.container is not None:
        return None
    kind = engine(parsed.engine)
    try:
        file_args = kind.file_args(parsed.args)
    except InvalidError:  # the engine will report it
        file_args = ()
    return kind.endpoint((*file_args, *parsed.args), environ={**environ, **parsed.env})


def as_the_command_says(settings: Settings, command: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """The settings with the host and the port of `command`, where the user has set none for Garrison."""
    endpoint = endpoint_of_command(command, environ) if command else None
    if endpoint is None or not endpoint.needs_port:
        return settings
    return replace(
        settings,
        engine_host=settings.engine_host if "engine_host" in settings.origins else endpoint.host,
        engine_port=settings.engine_port if "engine_port" in settings.origins else endpoint.port,
    )
