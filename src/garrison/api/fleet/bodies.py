"""Bodies of the requests about stacks."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from garrison.fleet.plan.context import PlanOptions

__all__ = ["AdoptBody", "ApplyBody", "DestroyBody", "ForgetBody", "ManifestBody"]

_SEEN = "Of the plan that was seen. Without it nothing is done, and the answer is 409 with the plan."
_MANIFEST: dict[str, Any] = {
    "stack": "lab",
    "targets": {"edge-1": {"base_url": "http://10.0.0.2:8000"}},
    "adapters": {"sql": {"target": "edge-1", "lora_path": "/models/sql"}},
}
Fingerprint = Field(None, max_length=200, description=_SEEN)


class ManifestBody(BaseModel):
    """A manifest, and how far it goes."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"manifest": _MANIFEST}]})

    manifest: str | dict[str, Any] = Field(description="Text in YAML, JSON or TOML, or an object.")
    mode: Literal["reconcile", "patch"] = Field(
        "reconcile", description="`reconcile`: exactly as declared; `patch`: only add and change."
    )
    force: bool = Field(False, description="Overwrite changes that others made since the last apply.")
    adopt: bool = Field(False, description="Take over adapters that others loaded under a declared name.")
    accept_stale_cache: bool = Field(
        False, description="Load new content from an unchanged path, although a prefix cache may answer from the old."
    )
    directory: str | None = Field(
        None, max_length=4096, description="What relative paths are relative to; only over the owner's socket."
    )

    @property
    def options(self) -> PlanOptions:
        return PlanOptions(force=self.force, adopt=self.adopt, accept_stale_cache=self.accept_stale_cache)


class ApplyBody(ManifestBody):
    """A manifest to apply."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"manifest": _MANIFEST, "fingerprint": "4b0c…"}]})

    fingerprint: str | None = Fingerprint
    simulate: bool = Field(False, description="Only make the plan, as `POST /api/v1/plan` does.")


class DestroyBody(BaseModel):
    """What is confirmed."""

    fingerprint: str | None = Fingerprint


class AdoptBody(BaseModel):
    """Which adapters to adopt, exactly one of `names` and `query`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"names": ["edge-1/sql"]}, {"query": "target:edge*"}]})

    names: list[str] = Field(default_factory=list, max_length=10_000, description="`NAME` or `TARGET/NAME`, as served.")
    query: str | None = Field(None, max_length=4096, description="Terms of the fields name, target, path and base.")
    fingerprint: str | None = Fingerprint


class ForgetBody(BaseModel):
    """What is confirmed."""

    fingerprint: str | None = Fingerprint
    force: bool = Field(False, description="Even if it answers; its adapters stay loaded, unmanaged.")
