"""A command line that may be shown: the values of secrets are gone from it."""

import re
from collections.abc import Sequence

__all__ = ["shown_command", "shown_variable"]

_HIDDEN = "***"
# argparse takes any unambiguous beginning of an option, and `_` for `-`.
_BEGINNINGS = ("--api-k", "--hf-t")
_ENDINGS = ("key", "token", "secret", "password", "passwd", "credential", "credentials", "auth")
_ASSIGNED = re.compile(r"(\b\w*(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD)\w*=)\S+", re.IGNORECASE)
_IN_URL = re.compile(r"(://)[^/@\s]+@")
_BY_SHAPE = re.compile(r"\b(hf_|sk-)[A-Za-z0-9_-]{6,}")
_BEARER = re.compile(r"(\b(?:bearer|basic)\s+)\S+", re.IGNORECASE)


def shown_command(argv: Sequence[str]) -> str:
    """`argv` as one shell-quoted line without its secrets.

    `--api-key V`, `--api-key=V` and their like lose every value up to the next option: vLLM takes several keys.
    """
    import shlex  # messages only

    shown: list[str] = []
    hiding = False
    for argument in argv:
        option, equals, _ = argument.partition("=")
        if argument.startswith("-"):
            secret = _names_a_secret(option)
            hiding = secret and not equals
            shown.append(f"{option}={_HIDDEN}" if secret and equals else _scrub(argument))
        else:
            shown.append(_HIDDEN if hiding else _scrub(argument))
    return shlex.join(shown).replace(f"'{_HIDDEN}'", _HIDDEN)


def shown_variable(name: str, value: str) -> str:
    """`NAME=value` as a shell takes it, without the value when the name is one of a secret."""
    import shlex

    if name.replace("_", "-").lower().split("-")[-1] in _ENDINGS:
        return f"{name}={_HIDDEN}"
    return f"{name}={shlex.quote(_scrub(value))}"


def _names_a_secret(option: str) -> bool:
    name = option.replace("_", "-").lower()
    return name.startswith(_BEGINNINGS) or name.split("-")[-1] in _ENDINGS


def _scrub(argument: str) -> str:
    argument = _ASSIGNED.sub(rf"\g<1>{_HIDDEN}", argument)
    argument = _IN_URL.sub(rf"\g<1>{_HIDDEN}@", argument)
    argument = _BEARER.sub(rf"\g<1>{_HIDDEN}", argument)
    return _BY_SHAPE.sub(rf"\g<1>{_HIDDEN}", argument)
