"""Downloads over the API from a hub on loopback: progress, resume, quantizations, and a hub that fails."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hub import Fault, Hub
from served_api import ServedApi

from garrison.api.models.fetcher import HubFetcher
from garrison.base.settings import Settings
from garrison.models.layout import Layout

pytestmark = pytest.mark.service

LARGEST = "model-00001-of-00002.safetensors"


@pytest.fixture
async def served(hub: Hub, tmp_path: Path) -> AsyncIterator[ServedApi]:
    settings = Settings(
        data_dir=tmp_path / "data",
        models_dir=tmp_path / "models",
        hf_endpoint=hub.url,
        model_sources=("local", "hf-hub"),
    )
    made = ServedApi(tmp_path, fetcher=HubFetcher(settings, {"HF_HOME": str(tmp_path / "hf")}))
    yield await made.startup()
    await made.shutdown()


async def download(served: ServedApi, **wish: str) -> str:
    answer = await served.client.post("/api/v1/models/download", json=wish)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


async def job(served: ServedApi, known: str, *statuses: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            found: dict[str, Any] = (await served.client.get(f"/api/v1/models/jobs/{known}")).json()
            if found["status"] in (statuses or ("completed", "failed", "cancelled")):
                return found
            await asyncio.sleep(0.01)


async def test_a_model_is_downloaded_and_listed(served: ServedApi, hub: Hub, model_files: dict[str, bytes]) -> None:
    found = await job(served, await download(served, repo="acme/tiny"))
    size = sum(map(len, model_files.values()))
    assert (found["status"], found["progress"]["bytes_downloaded"], found["progress"]["total_bytes"]) == (
        "completed", size, size,
    )  # fmt: skip
    (listed,) = (await served.client.get("/api/v1/models")).json()
    assert (listed["repo"], listed["source"], listed["tag"]) == ("acme/tiny", "hf-hub", found["model"]["revision"])


async def test_a_cancelled_download_is_resumed_by_the_next(
    served: ServedApi, hub: Hub, model_files: dict[str, bytes]
) -> None:
    hub.faults.append(Fault(LARGEST, "stall", at=100_000, seconds=20.0))
    known = await download(served, repo="acme/tiny")
    async with asyncio.timeout(20):
        while (await job(served, known, "downloading"))["progress"]["bytes_downloaded"] < 100_000:
            await asyncio.sleep(0.01)
    assert (await served.client.delete(f"/api/v1/models/jobs/{known}")).status_code == 204
    assert (await job(served, known))["status"] == "cancelled"
    assert (await served.client.get("/api/v1/models")).json() == []
    found = await job(served, await download(served, repo="acme/tiny"))
    assert found["status"] == "completed"
    assert found["progress"]["resumed_bytes"] >= 100_000
    assert any(asked for asked in hub.gets(LARGEST) if asked), "no range was asked for"


async def test_a_quantization_is_one_file_of_the_repository(served: ServedApi, hub: Hub) -> None:
    quantized = {f"tiny-{one}.gguf": _gguf() for one in ("Q4_K_M", "Q8_0")}
    hub.add("acme/tiny-GGUF", {"README.md": b"#", **quantized})
    found = await job(served, await download(served, repo="acme/tiny-GGUF:q8_0"))
    assert found["status"] == "completed", found
    assert Path(found["model"]["path"]).name == "tiny-Q8_0.gguf"
    assert found["progress"]["current_file"] == "tiny-Q8_0.gguf"
    assert not hub.gets("tiny-Q4_K_M.gguf")
    found = await job(served, await download(served, repo="acme/tiny-GGUF", format="gguf"))
    assert Path(found["model"]["path"]).name == "tiny-Q4_K_M.gguf"
    gone = await served.client.delete("/api/v1/models", params={"repo": "acme/tiny-GGUF", "tag": "Q8_0"})
    assert gone.status_code == 204
    assert [one["name"] for one in (await served.client.get("/api/v1/models")).json()] == ["tiny-GGUF--tiny-Q4_K_M"]


async def test_what_is_not_on_the_hub_fails_with_the_places_that_were_searched(served: ServedApi, hub: Hub) -> None:
    found = await job(served, await download(served, repo="acme/nothing"))
    assert found["status"] == "failed"
    assert found["failure"]["code"] == "model-not-found"
    assert [one["source"] for one in found["failure"]["tried"]] == ["local", "hf-hub"]
    found = await job(served, await download(served, repo="acme/nothing:Q4_K_M"))
    assert found["failure"]["code"] == "model-not-found"


async def test_a_name_is_never_a_path_of_the_server(
    served: ServedApi, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "acme" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    found = await job(served, await download(served, repo="acme/tiny"))
    assert found["status"] == "completed"
    assert Path(found["model"]["path"]).is_relative_to(Layout.from_settings(served.settings).root)


def _gguf() -> bytes:
    import tempfile

    import numpy as np
    from gguf import GGUFWriter

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.gguf"
        writer = GGUFWriter(path, "llama")
        writer.add_block_count(1)
        writer.add_tensor("token_embd.weight", np.zeros((8, 8), dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()
