"""`garrison instance logs`."""

import sys

from garrison.base.errors import UnreachableError
from garrison.cli.server.client import ServerClient
from garrison.cli.server.instance.arguments import Follow, Lines, Name
from garrison.cli.server.instance.calls import path_of
from garrison.cli.server.options import ServerUrl, client
from garrison.cli.signals import code_of

__all__ = ["logs", "print_logs"]


def logs(name: Name, follow: Follow = False, lines: Lines = 100, server: ServerUrl = None) -> int:
    """Print the last lines of an engine's output; with -f, what comes, too."""
    with client(server) as there:
        return print_logs(there, name, lines, follow=follow)


def print_logs(server: ServerClient, name: str, lines: int, *, follow: bool) -> int:
    """Print the log of an instance, and return the exit code.

    Raises:
        NotFoundError: there is no such instance.
        UnreachableError: the server does not answer, or ended while it was followed.
    """
    from garrison.cli.views.log_lines import log_line

    if not follow:
        text = server.call("GET", path_of(name, "logs"), params={"lines": lines}) or ""
        for line in str(text).split("\n")[:-1]:
            print(log_line(line))
        return 0
    try:
        for kind, data in server.events(path_of(name, "logs/stream"), params={"lines": min(lines, 10_000)}):
            if kind == "line":
                print(log_line(str(data.get("text", ""))), flush=True)
            elif kind == "ended":
                how = log_line(f"{data.get('state')}: {data.get('reason')}")
                print(f"the engine of {name} has ended: {how}", file=sys.stderr, flush=True)
                if data.get("state") == "deleted":
                    return 0
    except KeyboardInterrupt as stopped:
        return code_of(stopped)
    raise UnreachableError(
        f"the server at {server.place} ended, and the log with it",
        hint="`garrison up` starts it again; the instance goes on serving.",
    )
