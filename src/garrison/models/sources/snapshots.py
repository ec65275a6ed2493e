"""Sources `flox` and `hf-cache`: one snapshot of a Hugging Face cache directory, pinned.

The snapshot is the requested revision, or the one that `refs/main` names; if that is missing or incomplete, the newest
one that is whole. Layout: huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from pathlib import Path

from garrison.base.presence import is_file
from garrison.models.files.problem import Problem
from garrison.models.files.progress import Progress
from garrison.models.names import ModelName
from garrison.models.request import ResolveRequest
from garrison.models.sources.model_path import path_in
from garrison.models.sources.source import Broken, Found, Outcome, Skipped, Workspace

__all__ = ["FloxSource", "HfCacheSource"]

_SHORT_COMMIT = 7


class FloxSource:
    name = "flox"

    def find(self, request: ResolveRequest, workspace: Workspace, progress: Progress) -> Outcome:
        if request.flox_env is None:
            return Skipped("FLOX_ENV is not set", unused=True)
        cache = request.flox_env.absolute() / "share" / "models" / "hub"
        return _search([cache], request.model, workspace)


class HfCacheSource:
    name = "hf-cache"

    def find(self, request: ResolveRequest, workspace: Workspace, progress: Progress) -> Outcome:
        return _search([request.layout.hub, *request.hub_caches], request.model, workspace)


def _search(caches: list[Path], model: ModelName, workspace: Workspace) -> Outcome:
    problem: Problem | None = None
    reasons: list[str] = []
    for cache in caches:
        repository = cache / model.cache_directory
        snapshots = _snapshots(repository, model.revision)
        if not snapshots:
            what = f"revision {model.revision}" if model.revision else "snapshot"
            reasons.append(f"no {what} in {repository}")
        for snapshot in snapshots:
            path = path_in(snapshot, model)
            if path is None or (model.file and not is_file(path)):
                reasons.append(f"{snapshot} has no {model.file or 'GGUF file of that quantization'}")
                continue
            fault = workspace.check(path)
            if fault is None:
                # A cache that was moved by itself has no home; it is served by its path.
                return Found(path, revision=snapshot.name, hf_home=cache.parent if cache.name == "hub" else None)
            problem = problem or fault
    return Broken(problem) if problem else Skipped("; ".join(reasons))


def _snapshots(repository: Path, revision: str | None) -> list[Path]:
    """Candidates, best first; only those of `revision` if one is given."""
    try:
        present = {entry.name: entry for entry in (repository / "snapshots").iterdir() if entry.is_dir()}
    except OSError:
        return []
    named = _reference(repository, revision or "main")
    if revision is not None:
        if named in present:
            return [present[named]]
        if revision in present:
            return [present[revision]]
        return [present[name] for name in present if len(revision) >= _SHORT_COMMIT and name.startswith(revision)]
    newest_first = sorted(present.values(), key=lambda entry: (entry.stat().st_mtime_ns, entry.name), reverse=True)
    return sorted(newest_first, key=lambda entry: entry.name != named)


def _reference(repository: Path, revision: str) -> str:
    try:
        return (repository / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
