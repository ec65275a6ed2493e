"""The parent of exactly one engine: `python -P -m garrison.launch.shim FD`.

A process of its own, since what it does is a property of a process: it leads a session, reaps every descendant of its
engine, and collects exit statuses without taking those of other children. It stays single-threaded, so that it may run
code between fork and exec, and so that the signal for a parent's death follows the process and not a thread.

`FD` is one end of a socket pair. The first line on it says what to run; after that it takes the requests that the
control socket takes, and events are sent on it. When its other end closes, the engine is stopped, unless it was started
detached. Stopping Garrison by SIGKILL therefore stops the engine, all its workers included.

The protocol is one JSON object a line, with `"v": 1` in each:

- requests: `{"v": 1, "do": "ping" | "status" | "stop" | "kill"}`, `stop` with an optional `timeout` in seconds;
- answers: `"ok": true` and fields, or `"ok": false` and `error`;
- events, to the starter only: `"event": "started" | "failed" | "ended"`.

Standard library only, and of Garrison the reader of processes and, for a detached engine, its log. What an engine is,
and when it is ready, is not known here.
"""

from collections.abc import Sequence

VERSION = 1
"""Of the protocol and of the status file."""

MODULE = "garrison.launch.shim"


def is_shim(argv: Sequence[str]) -> bool:
    """Whether a process with these arguments is a shim, as far as they tell."""
    return tuple(argv[1:4]) == ("-P", "-m", MODULE)
