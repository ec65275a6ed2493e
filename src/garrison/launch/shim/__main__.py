"""Read what to run, and run it until none of its processes is left."""

import json
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any

from garrison.launch.shim import VERSION
from garrison.launch.shim.fork import become_subreaper
from garrison.launch.shim.shim import Shim

_MOST_SPEC_BYTES = 16 * 1024 * 1024


def main(arguments: list[str]) -> int:
    starter = socket.socket(fileno=int(arguments[0]))
    os.set_inheritable(starter.fileno(), False)
    become_subreaper()
    spec = _read_spec(starter)
    return 1 if spec is None else Shim(spec, starter).run()


def _read_spec(starter: socket.socket) -> Mapping[str, Any] | None:
    """The first line, after which the sender waits for an answer; None if the starter has exited.

    A shim that is kept ready waits for it without a limit: the end of the starter closes the socket.
    """
    data = bytearray()
    while not data.endswith(b"\n"):
        try:
            piece = starter.recv(65536)
        except OSError:
            return None
        if not piece or len(data) > _MOST_SPEC_BYTES:
            return None
        data += piece
    spec: Mapping[str, Any] = json.loads(data)
    return spec if spec.get("v") == VERSION else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
