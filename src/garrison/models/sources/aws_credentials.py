"""AWS credentials from the shared credentials file, by profile, as the aws command reads them; and where they may go.

obstore reads the `AWS_*` variables, web identities and instance metadata, but not `~/.aws/credentials`.
Format: docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html.
"""

import configparser
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from garrison.base.errors import InvalidError
from garrison.base.redaction import know_secret
from garrison.models.sources.plain_http import is_exposed

__all__ = ["given_by_environment", "refuse_exposed_credentials", "shared_credentials"]

_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}
_CONTAINER_URI = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
_METADATA_HOSTS = ("169.254.170.2", "169.254.170.23", "fd00:ec2::23")
"""Link-local addresses of the credential services of ECS and EKS, which speak plain HTTP."""


def given_by_environment(environ: Mapping[str, str]) -> bool:
    """Whether obstore finds credentials by itself, without a metadata service."""
    return any(environ.get(name) for name in _ENVIRONMENT)


def shared_credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """The profile's keys, under obstore's names; empty if there are none."""
    path = Path(environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path(environ.get("HOME", "/")) / ".aws" / "credentials")
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
        section = parser[environ.get("AWS_PROFILE") or "default"]
    except (configparser.Error, UnicodeDecodeError, OSError, KeyError):
        return {}
    found = {ours: section[theirs].strip() for theirs, ours in _KEYS.items() if theirs in section}
    for value in found.values():
        know_secret(value)
    return found if "access_key_id" in found and "secret_access_key" in found else {}


def refuse_exposed_credentials(environ: Mapping[str, str]) -> None:
    """Raise InvalidError if obstore would send the container's token, and get keys, over plain HTTP on a network.

    The rule of AWS's own programs: https, a loopback address, or the credential service of ECS or EKS.
    """
    uri = environ.get(_CONTAINER_URI)
    if not uri or environ.get("AWS_ACCESS_KEY_ID"):
        return
    try:
        known = urlsplit(uri).hostname in _METADATA_HOSTS
    except ValueError:
        raise InvalidError(f"{_CONTAINER_URI} must be a URL, not {uri!r}", hint="Unset it, or set it again.") from None
    if not known and is_exposed(uri):
        raise InvalidError(
            f"{_CONTAINER_URI} is plain HTTP to another machine: {uri}",
            hint="Use https, or the address of the credential service of ECS or EKS.",
        )
