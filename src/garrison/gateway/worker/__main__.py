"""`python -P -m garrison.gateway.worker SOCKET`: started by the control process, whose socket this is."""

import asyncio
import gc
import sys

import uvloop

from garrison.base.garbage import keep_out_of_collections
from garrison.gateway.worker.worker import Worker


async def serve(path: str) -> None:
    worker = Worker(path)
    await worker.startup()
    keep_out_of_collections()
    gc.enable()  # each connection leaves a cycle behind
    await worker.main_loop()
    await worker.shutdown()


def main() -> int:
    gc.disable()  # nothing that the imports make is garbage, and a collection looks at all of it
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
