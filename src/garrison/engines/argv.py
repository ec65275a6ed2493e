"""Read an engine's argv without changing it: which flags it has, and which value counts.

Flags and values are told apart as in argparse: a token that begins with `-` is a flag unless it is a lone `-`, a
negative number, or has white space in its name.
"""

import itertools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

__all__ = [
    "Endpoint",
    "endpoint_of",
    "flag_of",
    "gives",
    "is_flag",
    "last_value",
    "last_values",
    "normal",
    "port_of",
    "spelled_out",
    "switched_on",
]

_NEGATIVE = re.compile(r"-(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?[kKmMgGtT]?\Z")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an engine listens, and which protocol it speaks.

    Attributes:
        host: an address or a name; possibly a wildcard address.
        port: 0 leaves the choice to the system.
        uds: a socket path, instead of host and port.
        tls: whether it speaks HTTPS.
        client_cert: whether it requires a client certificate.
        prefix: the path in front of every route, `""` or `/serve`.
        protocol: `http`, `grpc`, or `none` for an engine that is not a server (vLLM's `--headless`).
        health_port: the port of `/health`, if it is not `port`.
    """

    host: str
    port: int
    uds: str | None = None
    tls: bool = False
    client_cert: bool = False
    prefix: str = ""
    protocol: str = "http"
    health_port: int | None = None

    @property
    def needs_port(self) -> bool:
        """Whether it needs a TCP port that is known beforehand."""
        return self.uds is None and self.protocol != "none" and self.port != 0

    @property
    def can_be_asked(self) -> bool:
        """Whether there is a server at a known place."""
        return self.needs_port or (self.uds is not None and self.protocol != "none")


def is_flag(token: str) -> bool:
    """`--x`, `-x`, `--x=1`; neither `-`, nor `--`, nor `-1`, nor `-0.5`, nor `-1k`."""
    if not token.startswith("-") or token in ("-", "--") or _NEGATIVE.match(token):
        return False
    return not any(character.isspace() for character in token.split("=", 1)[0])


def flag_of(token: str) -> str:
    """The flag in a token, without `=value`, in its normal spelling."""
    return normal(token.split("=", 1)[0])


def normal(flag: str) -> str:
    """`--max_model_len` to `--max-model-len`: vLLM accepts both. A key after a dot keeps its spelling."""
    if not flag.startswith("--"):
        return flag
    head, dot, tail = flag.partition(".")
    return head.replace("_", "-") + dot + tail


def gives(args: Sequence[str], flags: Collection[str], known: Collection[str] = ()) -> bool:
    """Whether one of `flags` is in `args`, in any of its forms; `known` as in `last_value`."""
    return any(spelled_out(token, known) in flags for token in _options(args) if is_flag(token))


def last_value(args: Sequence[str], flags: Collection[str], known: Collection[str] = ()) -> str | None:
    """The value of the last of `flags` in `args`, which is the one that all engines use.

    Args:
        known: every spelling that the engine's parser knows, if it accepts unambiguous abbreviations, as argparse does:
            `--ssl-certf` for `--ssl-certfile`.
    """
    found = last_values(args, flags, known)
    return found[0] if found else None


def last_values(args: Sequence[str], flags: Collection[str], known: Collection[str] = ()) -> tuple[str, ...]:
    """Every value of the last of `flags` in `args` that has one: the words up to the next flag. `known` as in
    `last_value`."""
    args = _options(args)
    found: tuple[str, ...] = ()
    for position, token in enumerate(args):
        if not is_flag(token) or spelled_out(token, known) not in flags:
            continue
        if "=" in token:
            found = (token.split("=", 1)[1],)
            continue
        values = tuple(itertools.takewhile(lambda word: not is_flag(word), args[position + 1 :]))
        found = values or found
    return found


def switched_on(args: Sequence[str], flag: str, known: Collection[str] = ()) -> bool:
    """Whether the switch `flag` is on: the last of `--x` and `--no-x` counts."""
    off = flag.replace("--", "--no-", 1)
    spelled = [spelled_out(token, known) for token in _options(args) if is_flag(token)]
    return next((found == flag for found in reversed(spelled) if found in (flag, off)), False)


def endpoint_of(
    argv: Sequence[str], default: Endpoint = Endpoint("127.0.0.1", 8000), known: Collection[str] = ()
) -> Endpoint:
    """Where the engine with this argv will listen; `default` for what the argv does not say.

    A port that is not a number is replaced by the default, and left to the engine to reject.
    """
    host = last_value(argv, {"--host"}, known) or default.host
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    uds = last_value(argv, {"--uds"}, known) or (host if host.endswith(".sock") else None)
    port = port_of(argv, "--port", known)
    return Endpoint(host, default.port if port is None else port, uds)


def port_of(argv: Sequence[str], flag: str, known: Collection[str] = ()) -> int | None:
    """The port that `flag` gives; None if it is missing or invalid."""
    text = last_value(argv, {flag}, known)
    try:
        port = int(text or "")  # as in argparse: `+9000` and ` 9000` are ports too
    except ValueError:
        return None
    return port if 0 <= port < 65536 else None


def _options(args: Sequence[str]) -> Sequence[str]:
    """The words before a lone `--`: after it argparse sees no flags."""
    return args[: args.index("--")] if "--" in args else args


def spelled_out(token: str, known: Collection[str]) -> str:
    """The flag in a token, unabbreviated, where `known` are the spellings that the engine's parser knows."""
    flag = flag_of(token)
    if flag in known or not flag.startswith("--") or "." in flag:
        return flag
    longer = [spelling for spelling in known if spelling.startswith(flag)]
    return longer[0] if len(longer) == 1 else flag
