"""Models over the API: downloads as jobs, what is on disk, and what may be removed."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from served_api import ServedApi

from garrison.api.models.library import choose, used_by
from garrison.api.models.wanted import wanted_of
from garrison.base.errors import ConflictError, FetchError, ModelNotFoundError
from garrison.instances.values.spec import CustomServer, InstanceSpec
from garrison.models.layout import Layout
from garrison.models.library import ModelEntry, import_model

DOWNLOAD = "/api/v1/models/download"
JOBS = "/api/v1/models/jobs"


async def begin(served: ServedApi, repo: str = "acme/tiny", **more: Any) -> str:
    answer = await served.client.post(DOWNLOAD, json={"repo": repo, **more})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


async def job(served: ServedApi, known: str, *statuses: str) -> dict[str, Any]:
    """The job, once it is in one of these states."""
    async with asyncio.timeout(10):
        while True:
            found: dict[str, Any] = (await served.client.get(f"{JOBS}/{known}")).json()
            if not statuses or found["status"] in statuses:
                return found
            await asyncio.sleep(0.005)


async def halfway(served: ServedApi, known: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while (found := await job(served, known))["progress"]["bytes_downloaded"] == 0:
            await asyncio.sleep(0.005)
        return found


async def test_a_download_is_a_job_with_progress_and_an_end(served: ServedApi) -> None:
    answer = await served.client.post(DOWNLOAD, json={"repo": "acme/tiny:main"})
    assert answer.status_code == 202
    assert answer.json() == {"job_id": answer.json()["job_id"], "repo": "acme/tiny", "tag": "main"}
    known = answer.json()["job_id"]
    found = await halfway(served, known)
    assert found["status"] == "downloading"
    assert {name: found["progress"][name] for name in ("bytes_downloaded", "total_bytes", "files")} == {
        "bytes_downloaded": 500, "total_bytes": 1000, "files": 1,
    }  # fmt: skip
    served.fetcher.hold.set()
    found = await job(served, known, "completed")
    assert found["progress"]["bytes_downloaded"] == 1000
    assert found["model"] == {"path": "/models/acme/tiny", "source": "hf-hub", "revision": "c0ffee"}
    assert found["completed_at"] >= found["created_at"]
    assert [one["id"] for one in (await served.client.get(JOBS)).json()["jobs"]] == [known]


async def test_a_failed_download_says_why_as_every_error_does(served: ServedApi) -> None:
    served.fetcher.fails["acme/tiny"] = FetchError("the hub is down", hint="Try again.")
    served.fetcher.hold.set()
    found = await job(served, await begin(served), "failed")
    assert found["error"] == "the hub is down"
    assert (found["failure"]["code"], found["failure"]["hint"]) == ("fetch-failed", "Try again.")


async def test_a_bug_in_a_download_ends_the_job_and_tells_nothing(served: ServedApi) -> None:
    served.fetcher.fails["acme/tiny"] = RuntimeError("secret of the house")
    served.fetcher.hold.set()
    found = await job(served, await begin(served), "failed")
    assert found["failure"]["code"] == "internal"
    assert "secret" not in str(found)


async def test_two_run_at_once_and_the_others_wait_in_order(served: ServedApi) -> None:
    ids = [await begin(served, f"acme/m{number}") for number in range(5)]
    await halfway(served, ids[1])
    assert [(await job(served, known))["status"] for known in ids] == ["downloading"] * 2 + ["queued"] * 3
    served.fetcher.hold.set()
    for known in ids:
        await job(served, known, "completed")
    assert served.fetcher.most == 2
    assert served.fetcher.asked == [f"acme/m{number}" for number in range(5)]


async def test_the_queue_is_bounded(served: ServedApi) -> None:
    for number in range(2 + 32):
        await begin(served, f"acme/m{number}")
        await asyncio.sleep(0)  # the first two leave the queue
    answer = await served.client.post(DOWNLOAD, json={"repo": "acme/one-more"})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "30"
    again = await served.client.post(DOWNLOAD, json={"repo": "acme/m33"})  # which waits already
    assert again.status_code == 202


async def test_a_download_in_progress_is_joined(served: ServedApi) -> None:
    first = await begin(served)
    assert await begin(served) == first
    assert await begin(served, "acme/tiny:v2") != first


async def test_a_cancelled_download_stops_and_the_next_one_goes_on_there(served: ServedApi) -> None:
    known = await begin(served)
    await halfway(served, known)
    assert (await served.client.delete(f"{JOBS}/{known}")).status_code == 204
    assert (await job(served, known))["status"] == "cancelled"
    assert not served.fetcher.running
    served.fetcher.hold.set()
    found = await job(served, await begin(served), "completed")
    assert found["progress"]["resumed_bytes"] == 500


async def test_a_download_that_waits_is_cancelled_without_having_begun(served: ServedApi) -> None:
    ids = [await begin(served, f"acme/m{number}") for number in range(3)]
    await halfway(served, ids[0])
    assert (await served.client.delete(f"{JOBS}/{ids[2]}")).status_code == 204
    assert (await job(served, ids[2]))["status"] == "cancelled"
    assert "acme/m2" not in served.fetcher.asked


async def test_one_that_never_ran_is_cancelled_too(served: ServedApi) -> None:
    made = served.downloads.begin(wanted_of("acme/tiny"))
    await served.downloads.remove(made.id)
    assert str(made.state) == "cancelled"
    assert served.fetcher.asked == []


async def test_an_ended_job_is_removed_and_an_unknown_one_is_not_found(served: ServedApi) -> None:
    served.fetcher.hold.set()
    known = await begin(served)
    await job(served, known, "completed")
    assert (await served.client.delete(f"{JOBS}/{known}")).status_code == 204
    for method in ("GET", "DELETE"):
        gone = await served.client.request(method, f"{JOBS}/{known}")
        assert (gone.status_code, gone.json()["error"]) == (404, "not-found")


async def test_ended_jobs_are_forgotten_after_a_day_and_beyond_a_hundred(served: ServedApi) -> None:
    served.fetcher.hold.set()
    ids = []
    for number in range(103):
        ids.append(await begin(served, f"acme/m{number}"))
        await job(served, ids[-1], "completed")
        served.clock.advance(1)
    assert [one.id for one in served.downloads.list()] == ids[3:]
    served.clock.advance(timedelta(hours=24).total_seconds() - 50)
    assert 0 < len(served.downloads.list()) < 100
    served.clock.advance(100)
    assert served.downloads.list() == []


async def test_what_happens_to_a_job_is_told_on_the_feed(served: ServedApi) -> None:
    begun = served.feed.position
    served.fetcher.hold.set()
    known = await begin(served)
    await job(served, known, "completed")
    told = []
    async for one in served.feed.read(begun):
        told.append((one.kind, one.data["subject"]))
        if one.kind == "download_completed":
            break
    subject = {"kind": "download", "name": known}
    assert told == [(f"download_{state}", subject) for state in ("queued", "downloading", "completed")]


async def test_the_end_of_the_server_stops_downloads(served: ServedApi) -> None:
    ids = [await begin(served, f"acme/m{number}") for number in range(4)]
    await halfway(served, ids[0])
    await served.downloads.shutdown()
    assert {str(served.downloads.get(known).state) for known in ids} == {"cancelled"}
    assert not served.fetcher.running


@pytest.mark.parametrize(
    ("text", "format", "tag", "quantization", "revision"),
    [
        ("acme/tiny", None, "", None, None),
        ("acme/tiny:main", None, "main", None, "main"),
        ("acme/tiny:Q4_K_M", None, "Q4_K_M", "Q4_K_M", None),
        ("acme/tiny:iq2_xxs", None, "iq2_xxs", "iq2_xxs", None),
        ("acme/tiny:UD-Q2_K_XL", None, "UD-Q2_K_XL", "UD-Q2_K_XL", None),
        ("acme/tiny:Q4_K_M", "safetensors", "Q4_K_M", None, "Q4_K_M"),
        ("acme/tiny", "gguf", "", "", None),
        ("acme/tiny:latest", "gguf", "latest", "", None),
        ("acme/tiny:latest", None, "latest", None, None),
    ],
)
def test_a_tag_is_a_quantization_or_a_revision(
    text: str, format: Any, tag: str, quantization: str | None, revision: str | None
) -> None:
    found = wanted_of(text, format)
    assert (found.repo, found.tag, found.quantization, found.model.revision) == (
        "acme/tiny", tag, quantization, revision,
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["/etc", "./x", "~/m", "tiny", "a/b/c", "acme/../x", "acme/tiny:a..b", "acme/tiny@main", ":"],
)
async def test_only_names_of_a_hub_are_downloaded(served: ServedApi, text: str) -> None:
    answer = await served.client.post(DOWNLOAD, json={"repo": text})
    assert answer.status_code == 422, answer.text
    assert served.fetcher.asked == []


# What is on disk


@pytest.fixture
def imported(served: ServedApi, tiny_model: Path) -> Callable[[str], None]:
    """`imported("acme/tiny")`: a whole model below the models root."""
    return lambda name: import_model(Layout.from_settings(served.settings), tiny_model, model_id=name) and None


async def create(served: ServedApi, name: str, model: str) -> None:
    body = {"backend_type": "vllm", "backend_options": {"model": model}}
    assert (await served.client.post(f"/api/v1/instances/{name}", json=body)).status_code == 201


async def test_models_on_disk_are_listed_with_their_files_and_users(
    served: ServedApi, imported: Callable[[str], None], tiny_model: Path
) -> None:
    assert (await served.client.get("/api/v1/models")).json() == []
    imported("acme/tiny")
    await create(served, "a", "acme/tiny")
    await create(served, "b", "acme/other")
    (found,) = (await served.client.get("/api/v1/models")).json()
    assert (found["repo"], found["source"], found["valid"], found["used_by"]) == ("acme/tiny", "import", True, ["a"])
    sizes = {one["name"]: one["size_bytes"] for one in found["files"]}
    assert sizes == {one.name: one.stat().st_size for one in tiny_model.iterdir() if one.is_file()}
    assert found["size_bytes"] == sum(sizes.values())
    assert all(Path(one["path"]).is_file() for one in found["files"])


async def test_a_model_that_an_instance_uses_is_not_removed(served: ServedApi, imported: Callable[[str], None]) -> None:
    imported("acme/tiny")
    await create(served, "a", "acme/tiny")
    refused = await served.client.delete("/api/v1/models", params={"repo": "acme/tiny"})
    assert (refused.status_code, refused.json()["instances"]) == (409, ["a"])
    assert len((await served.client.get("/api/v1/models")).json()) == 1
    await served.client.delete("/api/v1/instances/a")
    assert (await served.client.delete("/api/v1/models", params={"repo": "acme/tiny"})).status_code == 204
    assert (await served.client.get("/api/v1/models")).json() == []
    gone = await served.client.delete("/api/v1/models", params={"repo": "acme/tiny"})
    assert (gone.status_code, gone.json()["error"]) == (404, "model-not-found")


def entry(**changes: Any) -> ModelEntry:
    values: dict[str, Any] = {
        "name": "tiny", "model_id": "acme/tiny", "source": "hf-hub", "path": Path("/m/tiny"), "revision": "c0ffee1234",
        "bytes": 1, "format": "safetensors", "reason": None,
    }  # fmt: skip
    return ModelEntry(**(values | changes))


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("acme/tiny", True), ("tiny", True), ("/m/tiny", True), ("/m/tiny/x.gguf", True), ("acme/tiny@main", True),
        ("acme/tiny@c0ffee1", True), ("acme/tiny@0123456789", False), ("acme/tiny/x.gguf", True),
        ("acme/tiny:Q4_0", True),
        ("acme/tiny2", False), ("/m/tiny2", False), ("other/tiny", False),
    ],
)  # fmt: skip
def test_an_instance_uses_a_model_by_name_revision_path_or_file(text: str, used: bool) -> None:
    specs = [
        InstanceSpec(name="a", options={"model": text}),
        InstanceSpec(name="b", options={"extra_args": {"model-draft": text}}),
        InstanceSpec(name="c", engine="custom", custom=CustomServer(("serve", text))),
        InstanceSpec(name="d", options={"model": "another"}),
    ]
    assert used_by(entry(), specs) == (["a", "b", "c"] if used else [])


def test_a_tag_chooses_a_version_and_one_of_several_in_a_cache_is_refused() -> None:
    quantized = [entry(name=f"tiny--tiny-{one}", format="gguf", revision=None) for one in ("Q4_K_M", "Q8_0")]
    cached = [entry(source="hf-cache", revision=one) for one in ("aaaa", "bbbb")]
    assert choose(quantized, "acme/tiny", "q8_0") == quantized[1:]
    assert choose(quantized, "acme/tiny") == quantized
    assert choose(cached, "acme/tiny") == cached
    assert choose(cached[:1], "acme/tiny", "aa") == cached[:1]
    with pytest.raises(ConflictError, match="1 other version"):
        choose(cached, "acme/tiny", "aa")
    with pytest.raises(ModelNotFoundError):
        choose(cached, "acme/tiny", "cc")
