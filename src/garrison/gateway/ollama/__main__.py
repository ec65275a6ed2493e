"""`python -P -m garrison.gateway.ollama FD TOLD`: started by the control process, whose listening socket FD is."""

import asyncio
import socket
import sys

import msgspec
import uvloop

from garrison.gateway.ollama.process import serve
from garrison.gateway.ollama.told import Told, write_record


def main() -> int:
    bound = socket.socket(fileno=int(sys.argv[1]))
    bound.setblocking(False)
    told = msgspec.json.decode(sys.argv[2], type=Told)
    write_record(told)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(told, bound))
    return 0


if __name__ == "__main__":
    sys.exit(main())
