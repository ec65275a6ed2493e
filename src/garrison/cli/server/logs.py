"""`garrison logs`."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from garrison.base.errors import InvalidError
from garrison.cli.options import app as make_app
from garrison.cli.options import settings
from garrison.cli.server.instance.arguments import Follow, Lines, Name
from garrison.cli.server.options import ServerUrl
from garrison.cli.signals import code_of

app = make_app("Print the log of an engine that runs.")

_POLL_SECONDS = 0.25


@app.command()
def logs(name: Name, follow: Follow = False, lines: Lines = 100, server: ServerUrl = None) -> int:
    """Print the last lines of an engine's output, of an instance or of a `garrison serve`; with -f, what comes, too.

    A name is one of `garrison ps`; what `serve` runs is also found by its port or pid.
    """
    from garrison.cli.server.client import ServerClient
    from garrison.cli.server.instance.logs import print_logs
    from garrison.cli.server.running import chosen, instances_here, this_machine
    from garrison.preflight.reclaim import living
    from garrison.server.offline import log_of, main_of

    values = settings("server", server_url=server)
    instances, told = instances_here(values)
    processes = this_machine()
    kind, found = chosen(name, instances, values, processes)
    if kind == "instance" and told:
        with ServerClient(values) as there:
            return print_logs(there, name, lines, follow=follow)
    path = log_of(values, name) if isinstance(found, str) else found.log
    main = main_of(values, name) if isinstance(found, str) else found.main
    if path is None:
        raise InvalidError(
            f"{name} has no log that can be read", hint="`serve --exec` writes to the terminal it was started from."
        )
    return _print_file(path, lines, follow=follow, alive=lambda: main is not None and bool(living([main], processes)))


def _print_file(path: Path, lines: int, *, follow: bool, alive: Callable[[], bool]) -> int:
    """Print a log of this machine; with `follow`, until its engine has ended. Another process writes and rotates it."""
    from garrison.base.redaction import redacted
    from garrison.cli.views.log_lines import log_line
    from garrison.launch.log_follower import LogFollower, last_lines

    follower = LogFollower(path, from_end=True)
    try:
        for line in last_lines(path, lines):
            print(log_line(redacted(line)))
        rest, ended = b"", False
        while follow:
            data = follower.read_new()
            *whole, rest = (rest + data).split(b"\n")
            for raw in whole:
                print(log_line(redacted(raw.decode("utf-8", "replace"))), flush=True)
            if data:
                continue
            if ended:
                print("the engine has ended, and its log with it", file=sys.stderr)
                break
            ended = not alive()  # what it wrote before its end is still to be read
            time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt as stopped:
        return code_of(stopped)
    finally:
        follower.close()
    return 0
