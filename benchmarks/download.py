"""The `r2` source against obstore alone, from the same S3 server on loopback.

    python benchmarks/download.py

Interleaved pairs in one run: the server is the same process for both, so its speed falls out of the ratio. Both write
the same objects to the same disk. Aim: at least 0.9 of obstore's rate.
"""

import contextlib
import multiprocessing
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from s3_server import serve

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "scripts"))

OBJECTS, BYTES, PAIRS = 4, 64 * 1024 * 1024, 7
BUCKET, PREFIX, NAME = "models", "bench", "big"


def main() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as work:
        _fill(Path(work) / "store" / BUCKET / PREFIX / NAME)
        server = multiprocessing.Process(target=serve, args=(Path(work) / "store", port), daemon=True)
        server.start()
        _wait(port)
        ratios = []
        for pair in range(PAIRS + 1):
            alone = _obstore_alone(url, Path(work) / "alone")
            ours = _garrison(url, Path(work) / "ours")
            if pair:  # the first pair warms up
                ratios.append(alone / ours)
                print(f"obstore alone {alone:.2f} s, garrison {ours:.2f} s, rate {alone / ours:.2f} of obstore's")
        server.terminate()
        server.join()
    total = OBJECTS * BYTES / 2**20
    print(f"{total:.0f} MiB in {OBJECTS} objects: median rate {statistics.median(ratios):.2f} of obstore's (aim: 0.9)")
    return 0


def _obstore_alone(url: str, target: Path) -> float:
    """obstore streaming every object to its file, a thread an object: quicker here than its asyncio interface."""
    import obstore
    from obstore.store import S3Store

    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    begun = time.perf_counter()
    store = S3Store(BUCKET, prefix=f"{PREFIX}/{NAME}", endpoint=url, region="auto", client_options={"allow_http": True})
    listed = [item["path"] for batch in obstore.list(store) for item in batch]

    def fetch(key: str) -> None:
        with (target / key).open("wb") as file:
            for chunk in obstore.get(store, key).stream(min_chunk_size=8 * 2**20):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())

    with ThreadPoolExecutor(len(listed)) as pool:
        list(pool.map(fetch, listed))
    return time.perf_counter() - begun


def _garrison(url: str, root: Path) -> float:
    from garrison.base.settings import Settings
    from garrison.models.request import ResolveRequest
    from garrison.models.resolve import resolve

    shutil.rmtree(root, ignore_errors=True)
    settings = Settings(
        data_dir=root,
        models_dir=root / "models",
        model_sources=("r2",),
        r2_bucket=BUCKET,
        r2_models_prefix=PREFIX,
        r2_endpoint_url=url,
    )
    begun = time.perf_counter()
    resolve(ResolveRequest.from_settings(settings, f"acme/{NAME}"))
    return time.perf_counter() - begun


def _fill(made: Path) -> None:
    import json
    import struct

    from tiny_model import make_model

    made.mkdir(parents=True)
    make_model(made)
    (made / "model.safetensors").unlink()
    for number in range(OBJECTS):
        header = json.dumps({"w": {"dtype": "U8", "shape": [BYTES], "data_offsets": [0, BYTES]}}).encode()
        name = f"model-{number + 1:05d}-of-{OBJECTS:05d}.safetensors"
        (made / name).write_bytes(struct.pack("<Q", len(header)) + header + os.urandom(BYTES))


def _wait(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise SystemExit("the store did not start")


if __name__ == "__main__":
    sys.exit(main())
