"""One worker of Garrison's gateway, told by this program what the control process would tell it.

    python lone_worker.py PORT UPSTREAM DIRECTORY

It listens on 127.0.0.1:PORT and sends requests for the model `bench` on to 127.0.0.1:UPSTREAM. There can be more routes
(`bench-1` and so on), more keys (KEY-1 and so on) and more targets, which all are the same upstream; each route goes to
all of them. SIGTERM ends both.
"""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from garrison.gateway.link import messages
from garrison.gateway.link.peer import Peer, control_peer


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("upstream", type=int)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--key", help="the token that clients must send")
    for what in ("routes", "keys", "targets"):
        parser.add_argument(f"--{what}", type=int, default=1)
    arguments = parser.parse_args()
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    path = str(arguments.directory / "gateway.sock")
    peers: list[Peer[messages.FromWorker]] = []

    def received(message: messages.FromWorker) -> None:
        if isinstance(message, messages.Hello):
            for told in greeting(arguments):
                peers[-1].send(told)
        elif isinstance(message, messages.Sync):
            peers[-1].send(messages.Synced(id=message.id))

    def connected() -> Peer[messages.FromWorker]:
        peers.append(control_peer(received, lambda: None))
        return peers[-1]

    await loop.create_unix_server(connected, path)
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "garrison.gateway.worker", path),
        env=os.environ | {"MALLOC_TOP_PAD_": str(16 * 2**20)},
    )
    await ended.wait()
    worker.kill()
    await worker.wait()


def numbered(name: str, count: int) -> list[str]:
    return [name, *(f"{name}-{one}" for one in range(1, count))]


def greeting(arguments: argparse.Namespace) -> list[messages.Settings | messages.Keys | messages.Tables]:
    targets = [
        messages.TargetValue(id=one, url=f"http://127.0.0.1:{arguments.upstream}", key="secret", counted=False)
        for one in numbered("target:bench", arguments.targets)
    ]
    ids = tuple(one.id for one in targets)
    keys = () if arguments.key is None else tuple(numbered(arguments.key, arguments.keys))
    return [
        messages.Settings(
            host="127.0.0.1", port=arguments.port, control_socket="/nonexistent", open_inference=arguments.key is None
        ),
        messages.Keys(secret=b"0" * 32, config_keys=keys, revision=1, rows=[]),
        messages.Tables(
            version=1,
            whole=True,
            targets=targets,
            routes=[messages.RouteValue(name=one, targets=ids) for one in numbered("bench", arguments.routes)],
        ),
    ]


if __name__ == "__main__":
    asyncio.run(main())
