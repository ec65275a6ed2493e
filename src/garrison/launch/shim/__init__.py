"""The parent of exactly one engine: `python -P -m garrison.launch.shim FD`.

It is a process of its own because its duties belong to a process: it leads a session, reaps every descendant of its
engine, and collects exit statuses without those of other children. It stays single-threaded, so that it can run code
between fork and exec, and so that the parent-death signal depends on the process and not on a thread.

`FD` is one end of a socket pair. The first line on it says what to run. After that it accepts the same requests as the
control socket, and events are sent on it. When the other end closes, the engine is stopped, unless it was started
detached. So SIGKILL to Garrison stops the engine with all of its workers.

The protocol is one JSON object per line, with `"v": 1` in each:

- requests: `{"v": 1, "do": "ping" | "status" | "watch" | "stop" | "kill"}`, `stop` with an optional `timeout` in
  seconds; `watch` is answered as `status`, and its connection is sent events from then on;
- answers: `"ok": true` and fields, or `"ok": false` and `error`;
- events, to the starter and to watchers: `"event": "started" | "failed" | "ended"`. `started` has `unrecorded`, a
  reason, if the record that was asked for could not be written.

It imports the standard library and little of Garrison: the reader of processes, the records of engines and, for a
detached engine, its log. It does not know what an engine is, or when it is ready.
"""

from collections.abc import Sequence

VERSION = 1
"""The version of the protocol and of the status file."""

MODULE = "garrison.launch.shim"

STATUS_NAME, SOCKET_NAME = "status", "shim.sock"
"""Files of a detached engine, in its directory."""


def is_shim(argv: Sequence[str]) -> bool:
    """Whether these are the arguments of a shim."""
    return tuple(argv[1:4]) == ("-P", "-m", MODULE)
