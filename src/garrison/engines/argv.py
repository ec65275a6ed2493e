"""Reading an engine's argv without changing it: which flags are in it, and the value that counts.

Values are told from flags as argparse does it: a token that begins with `-` is a flag unless it is a lone `-`, a
negative number, or has white space in its name.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

__all__ = ["Endpoint", "endpoint_of", "flag_of", "gives", "is_flag", "last_value", "normal"]

_NEGATIVE = re.compile(r"-(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?[kKmMgGtT]?\Z")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an engine listens. `host` may be a wildcard address; `uds` is a socket path that replaces both."""

    host: str
    port: int
    uds: str | None = None


def is_flag(token: str) -> bool:
    """`--x`, `-x`, `--x=1`; neither `-`, nor `--`, nor `-1`, nor `-0.5`, nor `-1k`."""
    if not token.startswith("-") or token in ("-", "--") or _NEGATIVE.match(token):
        return False
    return not any(character.isspace() for character in token.split("=", 1)[0])


def flag_of(token: str) -> str:
    """The flag a token gives, without `=value`, in its normal spelling."""
    return normal(token.split("=", 1)[0])


def normal(flag: str) -> str:
    """`--max_model_len` to `--max-model-len`: vLLM takes both. What follows a dot is a key, and keeps its spelling."""
    if not flag.startswith("--"):
        return flag
    head, dot, tail = flag.partition(".")
    return head.replace("_", "-") + dot + tail


def gives(args: Sequence[str], flags: Collection[str]) -> bool:
    """Whether one of `flags` is in `args`, in any of its forms."""
    return any(is_flag(token) and flag_of(token) in flags for token in args)


def last_value(args: Sequence[str], flags: Collection[str]) -> str | None:
    """The value of the last of `flags` in `args`, which is the one that every engine's parser keeps."""
    found: str | None = None
    for position, token in enumerate(args):
        if not is_flag(token) or flag_of(token) not in flags:
            continue
        if "=" in token:
            found = token.split("=", 1)[1]
        elif position + 1 < len(args) and not is_flag(args[position + 1]):
            found = args[position + 1]
    return found


def endpoint_of(argv: Sequence[str], default: Endpoint = Endpoint("127.0.0.1", 8000)) -> Endpoint:
    """Where the engine with this argv will listen: what the argv says, and `default` for what it does not say.

    A port that is no number is left to the engine to refuse: the default is given back for it.
    """
    host = last_value(argv, {"--host"}) or default.host
    port_text = last_value(argv, {"--port"})
    port = int(port_text) if port_text is not None and port_text.isdecimal() else default.port
    uds = last_value(argv, {"--uds"}) or (host if host.endswith(".sock") else None)
    return Endpoint(host, port, uds)
