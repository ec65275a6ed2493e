"""Source `local`: a directory below the models root, copied by hand or installed, or a path that was given."""

from pathlib import Path

from garrison.base.presence import absence
from garrison.models.files.problem import Problem
from garrison.models.files.progress import Progress
from garrison.models.record import ModelRecord, read_record
from garrison.models.request import ResolveRequest
from garrison.models.shards import ShardName
from garrison.models.sources.model_path import path_in
from garrison.models.sources.source import Broken, Found, Outcome, Skipped, Workspace

__all__ = ["LocalSource"]


class LocalSource:
    name = "local"

    def find(self, request: ResolveRequest, workspace: Workspace, progress: Progress) -> Outcome:
        """The first candidate that is whole. A broken one is reported only if none is."""
        problem: Problem | None = None
        reasons: list[str] = []
        for directory in _candidates(request):
            path = path_in(directory, request.model)
            if path is None and absence(directory) is None:
                reasons.append(f"{directory} has no GGUF file of {request.model.quantization or 'any quantization'}")
                continue
            absent = absence(path or directory)
            if path is None or absent is not None:
                reasons.append(f"{path or directory} {absent}")
                continue
            record = read_record(directory)
            if record is not None and request.model.path is None and not record.is_for(request.model):
                reasons.append(f"{path} holds {_text(record)}")
                continue
            fault = workspace.check(path)
            if fault is None:
                return Found(_pinned(path), record.revision if record else None)
            problem = problem or fault
        if problem is not None:
            return Broken(problem)
        return Skipped("; ".join(reasons))


def _candidates(request: ResolveRequest) -> list[Path]:
    model, layout = request.model, request.layout
    if model.path is not None:
        return [model.path]
    places = [layout.model_dir(model), *([org_dir] if (org_dir := layout.org_dir(model)) else [])]
    if model.file is not None or model.quantization is not None:
        # A copy of the whole repository holds the file too.
        places += [layout.root / model.name, *([layout.root / model.org / model.name] if model.org else [])]
    return places


def _pinned(path: Path) -> Path:
    """The current target of a link: it may point elsewhere when the engine reads it. The parts of a split GGUF are
    found by their names, which the targets of links need not have."""
    return path.resolve() if path.is_symlink() and ShardName.parse(path.name) is None else path


def _text(record: ModelRecord) -> str:
    at = record.asked or record.revision
    return f"{record.model_id}@{at}" if at else record.model_id
