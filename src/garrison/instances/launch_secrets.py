"""Reads the secrets of an instance at its start. Only references to them are stored."""

from dataclasses import replace

from garrison.base.errors import InvalidError
from garrison.instances.runner import Launch
from garrison.net.secrets import SecretError, Secrets

__all__ = ["with_secrets"]


async def with_secrets(launch: Launch, secrets: Secrets) -> Launch:
    """Return `launch` with its secrets as variables of the engine.

    Raises:
        InvalidError: one of them cannot be read; the message names the reference, not the value.
    """
    spec = launch.spec
    if not spec.secrets:
        return launch
    found: dict[str, str] = {}
    for name, reference in spec.secrets.items():
        try:
            found[name] = await secrets.text(reference)
        except SecretError as error:
            raise InvalidError(
                f"instance {spec.name} cannot have its variable {name}: {error}",
                hint="Make it readable for the server, or declare it differently.",
                details={"instance": spec.name, "variable": name},
            ) from None
    return replace(launch, spec=replace(spec, env={**spec.env, **found}, secrets={}))
