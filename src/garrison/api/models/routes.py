"""`/api/v1/models`: llamactl's calls."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from garrison.api.deadline import within
from garrison.api.models.library import on_disk, remove, used_by
from garrison.api.models.wanted import wanted_of
from garrison.api.problems import problems
from garrison.api.services import Services, services
from garrison.models.layout import Layout

__all__ = ["router"]

_LIST_SECONDS = 60.0
_REMOVE_SECONDS = 120.0

router = APIRouter(prefix="/api/v1/models", tags=["models"], responses=problems())

Given = Annotated[Services, Depends(services)]
JobId = Annotated[str, Path(max_length=64, description="The `job_id` of a download.")]


class DownloadRequest(BaseModel):
    """What to download."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"repo": "bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M", "format": "gguf"},
                {"repo": "Qwen/Qwen2.5-0.5B-Instruct"},
            ]
        }
    )

    repo: str = Field(
        min_length=1,
        max_length=1000,
        description="`ORG/MODEL`, `ORG/MODEL:TAG` or `ORG/MODEL/FILE.gguf`. A tag is the quantization of a GGUF file, "
        "such as `Q4_K_M`, else a branch, a tag or a commit.",
    )
    format: Literal["gguf", "safetensors"] | None = Field(None, description="Whatever the repository has by default.")


class Begun(BaseModel):
    """A download that was begun, or that is in progress already."""

    job_id: str
    repo: str
    tag: str


class Model(BaseModel):
    """One model on disk."""

    model_config = ConfigDict(extra="allow")

    node: str
    repo: str = Field(description="`ORG/MODEL`, or a name.")
    tag: str = Field(description="The revision, where it is known.")
    files: list[dict[str, Any]]
    size_bytes: int
    name: str
    source: str = Field(description="`local`, `import`, `hf-cache`, `hf-hub` or `r2`.")
    used_by: list[str] = Field(description="Names of the instances that use it.")


class Jobs(BaseModel):
    """Every download of the last day."""

    jobs: list[dict[str, Any]]


@router.post("/download", status_code=202, response_model=Begun)
async def download(given: Given, wish: DownloadRequest) -> Any:
    """Begin to download a model, as a job. A download that was cut short goes on where it stopped."""
    job = given.downloads.begin(wanted_of(wish.repo, wish.format))
    return {"job_id": job.id, "repo": job.wanted.repo, "tag": job.wanted.tag}


@router.get("", response_model=list[Model])
async def list_models(given: Given) -> Any:
    """Return the models on disk, whole and broken ones, by name."""
    layout = Layout.from_settings(given.settings)
    found = await within(
        _LIST_SECONDS, given.disk.run(lambda: on_disk(layout), f"list {layout.root}"), f"the disk of {layout.root}"
    )
    specs = [live.spec for live in given.instances.list()]
    return [one.to_json(used_by(one.entry, specs), given.settings.node_name) for one in found]


@router.delete("", status_code=204, responses=problems(404, 409, 423))
async def delete_model(
    given: Given,
    repo: Annotated[str, Query(min_length=1, max_length=1000, description="`ORG/MODEL`, or a name.")],
    tag: Annotated[str, Query(max_length=200, description="A revision or a quantization; all when left out.")] = "",
) -> None:
    """Remove a model from the disk. One that an instance uses is not removed."""
    layout = Layout.from_settings(given.settings)
    specs = [live.spec for live in given.instances.list()]
    await within(
        _REMOVE_SECONDS,
        given.disk.run(lambda: remove(layout, repo, tag, specs), f"remove {repo}"),
        f"the disk of {layout.root}",
    )


@router.get("/jobs", response_model=Jobs)
async def list_jobs(given: Given) -> Any:
    """Return the downloads, oldest first."""
    return {"jobs": [one.to_json() for one in given.downloads.list()]}


@router.get("/jobs/{id}", responses=problems(404))
async def get_job(given: Given, id: JobId) -> dict[str, Any]:
    """Return one download."""
    return given.downloads.get(id).to_json()


@router.delete("/jobs/{id}", status_code=204, responses=problems(404))
async def delete_job(given: Given, id: JobId) -> None:
    """Cancel a download, or remove one that has ended from the list. What was downloaded is kept for the next one."""
    await given.downloads.remove(id)
