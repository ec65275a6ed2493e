"""From a model's name to a directory on disk that an engine can be given: the first source that has a whole one.

The model's lock is taken before any source is asked, what an interrupted run left is repaired, and a download is
checked before it takes its place. The path in the result names one version and keeps naming it.

`resolve` blocks, and any number of calls may run in threads of one process. A stop token ends a call early.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from garrison.base.clock import Clock, SystemClock
from garrison.base.errors import FetchError, GarrisonError, ModelInvalidError
from garrison.base.files import fsync_tree
from garrison.base.locks import file_lock
from garrison.base.presence import is_file, is_missing
from garrison.base.redaction import redacted
from garrison.models import swap
from garrison.models.attempt import Attempt, not_found
from garrison.models.files import space
from garrison.models.files.broadcast import Guarded
from garrison.models.files.problem import Problem
from garrison.models.files.progress import Progress, Silent
from garrison.models.files.stop_token import StoppableClock, StopToken
from garrison.models.integrity import find_fault
from garrison.models.record import ModelRecord, read_record, write_record
from garrison.models.request import NETWORK_SOURCES, ResolveRequest
from garrison.models.sources.local import LocalSource
from garrison.models.sources.snapshots import FloxSource, HfCacheSource
from garrison.models.sources.source import Broken, Found, Outcome, Skipped, Source, Workspace
from garrison.models.sources.staging import Staging, write_failed
from garrison.models.validate import check_model

__all__ = ["Attempt", "ResolvedModel", "default_sources", "resolve"]


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model that an engine can load.

    Attributes:
        name: the directory's name, `VLLM_MODEL`.
        model_id: `org/name`, a bare name, or the path that was given.
        revision: the commit, if known.
        asked_revision: the branch, tag or commit that was asked for.
        path: absolute; a directory, or a GGUF file.
        source: where it was found.
        hf_home: the Hugging Face home whose cache it is in; None for a directory of its own.
        tried: the sources in the order they were tried; the last is `source`.
        kept: where a broken directory that was replaced went, when Garrison had not made it and must not delete it.
    """

    name: str
    model_id: str
    revision: str | None
    asked_revision: str | None
    path: Path
    source: str
    hf_home: Path | None = None
    tried: tuple[Attempt, ...] = ()
    kept: Path | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "model_id": self.model_id,
            "revision": self.revision,
            "path": str(self.path),
            "source": self.source,
            "hf_home": str(self.hf_home) if self.hf_home else None,
            "tried": [attempt.to_json() for attempt in self.tried],
        }


def default_sources(names: Sequence[str]) -> tuple[Source, ...]:
    """The sources with these names, in this order."""
    kinds: dict[str, Callable[[], Source]] = {
        "flox": FloxSource,
        "local": LocalSource,
        "hf-cache": HfCacheSource,
        "r2": lambda: _Deferred("r2", "garrison.models.sources.r2", "R2Source"),
        "hf-hub": lambda: _Deferred("hf-hub", "garrison.models.sources.hf_hub", "HfHubSource"),
    }
    return tuple(kinds[name]() for name in names)


@dataclass(frozen=True, slots=True)
class _Deferred:
    """A source that is imported only when it is tried: most models are found before."""

    name: str
    module: str
    kind: str

    def find(self, request: ResolveRequest, workspace: Workspace, progress: Progress) -> Outcome:
        source: Source = getattr(import_module(self.module), self.kind)()
        return source.find(request, workspace, progress)


def resolve(
    request: ResolveRequest,
    *,
    sources: Sequence[Source] | None = None,
    progress: Progress | None = None,
    clock: Clock | None = None,
    free_bytes: Callable[[Path], int] | None = None,
    at: Callable[[str], None] | None = None,
    stop: StopToken | None = None,
) -> ResolvedModel:
    """Find the model, and fetch it if no source has it on disk.

    Args:
        sources: instead of those that `request` names.
        progress: called at each step, in the threads that work; an error that it raises does not end the call. For more
            than one listener, or a slow one, see `files.broadcast.Broadcast`.
        free_bytes: free on the file system of a directory.
        at: called at each step of the swap (`swap.SWAP_STEPS`).
        stop: ends the call early. Locks are released; what was downloaded stays and is used by the next call.

    Raises:
        ModelNotFoundError, ModelInvalidError, FetchError: no source has a whole one. If several sources failed, an
            invalid model is reported before a failed fetch, and that before "not found". Details: `tried`.
        LockedError: another command resolves the same model for longer than `request.lock_timeout`.
        DiskFullError: a download does not fit.
        InvalidError: the request cannot be answered as it is.
        StoppedError: `stop` was stopped. A model that was already being renamed into place is installed whole.
    """
    stop = stop or StopToken()
    stop.check()
    resolver = _Resolver(
        request,
        Guarded(progress or Silent()),
        clock or SystemClock(),
        free_bytes or space.free_bytes,
        at,
        stop,
    )
    return resolver.run(sources)


class _Resolver:
    def __init__(
        self,
        request: ResolveRequest,
        progress: Progress,
        clock: Clock,
        free_bytes: Callable[[Path], int],
        at: Callable[[str], None] | None,
        stop: StopToken,
    ) -> None:
        self.request = request
        self.progress = progress
        self.clock = StoppableClock(clock, stop)
        self.at = at or _pass
        self.stop = stop
        self.workspace = Workspace(check=self._check, free_bytes=free_bytes, clock=clock, stop=stop)
        self.tried: list[Attempt] = []
        self.first_error: dict[str, GarrisonError] = {}
        self.remarks: tuple[str, ...] = ()

    def run(self, sources: Sequence[Source] | None) -> ResolvedModel:
        if self.request.model.path is not None:
            # A path is not searched for and nothing replaces it, so no lock is needed.
            return self._search([LocalSource()])
        if sources is None:
            sources = default_sources(self.request.sources)
        if not self._writable():
            return self._search(sources)
        layout, model = self.request.layout, self.request.model
        lock = file_lock(
            layout.lock_path(model.model_id),
            timeout=self.request.lock_timeout,
            purpose=f"is resolving {model}",
            clock=self.clock,
            on_wait=lambda message: self.progress.step("wait", message=message),
        )
        with lock:
            for target in filter(None, (layout.model_dir(model), layout.org_dir(model))):
                if restored := swap.recover(target, layout, self.clock):
                    message = f"an interrupted run left {restored.name}; it is {target} again"
                    self.progress.step("recover", path=str(target), message=message)
            resolved = self._search(sources)
            self._tidy()
            return resolved

    def _search(self, sources: Sequence[Source]) -> ResolvedModel:
        for source in sources:
            self.stop.check()
            self.progress.step("search", source=source.name)
            try:
                outcome = self._ask(source)
                kept = None
                if isinstance(outcome, Found) and outcome.staged:
                    outcome, kept = self._install(source.name, outcome)
            except (FetchError, ModelInvalidError) as error:
                self._note(source.name, "invalid" if isinstance(error, ModelInvalidError) else "failed", error)
                continue
            if isinstance(outcome, Found):
                return self._resolved(source.name, outcome, kept)
            if isinstance(outcome, Broken):
                self._note(source.name, "invalid", outcome.problem.error())
            else:
                self._note(source.name, "skipped", outcome.reason, unused=outcome.unused)
        raise self._verdict()

    def _ask(self, source: Source) -> Outcome:
        if source.name not in NETWORK_SOURCES:
            return source.find(self.request, self.workspace, self.progress)
        if self.request.offline:
            return Skipped("offline", unused=True)
        if not self._writable():
            return Skipped(f"{self.request.layout.root} is not writable", unused=True)
        from garrison.models.download_log import download_log  # the first that needs logging

        log = self.request.layout.log_file(self.request.model, source.name)
        with download_log(log, keep=self.request.keep_logs):
            return source.find(self.request, self.workspace, self.progress)

    def _install(self, source: str, found: Found) -> tuple[Outcome, Path | None]:
        """Check a download and move it into place."""
        layout, model = self.request.layout, self.request.model
        self.progress.step("check", path=str(found.path), message="checking the download")
        staged = found.path / found.file if found.file else found.path
        self.at("before-check")
        problem = self._check(staged)
        self.stop.check()
        if problem is not None:
            # It is what the source has: the next run would fetch the same again, and so finds it here.
            where = f"The download is kept at {found.path}, and is not fetched again; delete that to start over."
            return Broken(replace(problem, hint=f"{problem.hint} {where}")), None
        record = ModelRecord(
            model_id=model.model_id,
            source=source,
            created_at=self.clock.now().isoformat(),
            revision=found.revision,
            asked=model.revision,
        )
        self.progress.step("install")
        try:
            # A record says that the model is whole: if it survives a power cut, so must the files.
            fsync_tree(found.path)
            self.at("before-record")
            write_record(found.path, record)
        except OSError as error:
            raise write_failed(found.path, error, 0, self.workspace.free_bytes) from None
        self.stop.check()  # the last time: from here on the download is installed whole, or not at all
        # Models of one name and two organisations have two locks; they must not both find the name free.
        with file_lock(
            layout.install_lock, timeout=swap.INSTALL_SECONDS, purpose="is installing a model", clock=self.clock
        ):
            target = self._target()
            kept = swap.install(found.path, target, layout, self.clock, self.at)
        Staging(found.path).forget()
        if kept is not None:
            self.progress.step("kept", path=str(kept), message=f"what {target} held before is kept as {kept}")
        return Found(target / found.file if found.file else target, found.revision), kept

    def _target(self) -> Path:
        """`<root>/<NAME>`, unless another organisation's model has that name."""
        layout, model = self.request.layout, self.request.model
        target, org_dir = layout.model_dir(model), layout.org_dir(model)
        record = read_record(target)
        if record is not None and not record.same_id(model) and org_dir is not None:
            return org_dir
        return target

    def _check(self, path: Path) -> Problem | None:
        verdict = check_model(path, skip_tokenizer=self.request.skip_tokenizer, allow_gguf=self.request.allow_gguf)
        if isinstance(verdict, Problem):
            return verdict
        self.remarks = verdict.remarks
        return find_fault(verdict) or (self._verify(path) if self.request.verify else None)

    def _verify(self, path: Path) -> Problem | None:
        from garrison.models.verify import verify  # only --verify needs hashing

        if is_file(path):
            path = path.parent
        self.progress.step("verify", path=str(path), message=f"verifying {path}")
        try:
            verify(path, progress=self.progress, record=os.access(path, os.W_OK), stop=self.stop).raise_faults()
        except ModelInvalidError as error:
            return Problem(
                error.details.get("file", str(path)), error.details.get("reason", error.message), error.hint or ""
            )
        return None

    def _tidy(self) -> None:
        """Remove what is left of downloads of this model, unless one can still be resumed."""
        place = self.request.layout.staging_dir(self.request.model, "any").parent
        with contextlib.suppress(OSError):
            if self.request.keep_logs:
                place.rmdir()  # not while a log is in it
            elif not any(entry.is_dir() for entry in place.iterdir()):
                shutil.rmtree(place)

    def _writable(self) -> bool:
        root = self.request.layout.root
        return is_missing(root) or os.access(root, os.W_OK | os.X_OK, effective_ids=True)

    def _note(self, source: str, outcome: str, why: GarrisonError | str, *, unused: bool = False) -> None:
        reason = redacted(why if isinstance(why, str) else why.message)
        self.tried.append(Attempt(source, outcome, reason, unused))
        if isinstance(why, GarrisonError):
            self.first_error.setdefault(outcome, why)
        message = f"{source}: {reason}"
        self.progress.step("tried", source=source, outcome=outcome, reason=reason, message=message)

    def _resolved(self, source: str, found: Found, kept: Path | None) -> ResolvedModel:
        self.tried.append(Attempt(source, "found"))
        self.progress.step("found", source=source, path=str(found.path), message=f"{source}: {found.path}")
        for remark in self.remarks:
            self.progress.step("remark", path=str(found.path), message=f"note: {found.path}: {remark}")
        model = self.request.model
        return ResolvedModel(
            name=model.name,
            model_id=model.model_id,
            revision=found.revision,
            asked_revision=model.revision,
            path=found.path,
            source=source,
            hf_home=found.hf_home,
            tried=tuple(self.tried),
            kept=kept,
        )

    def _verdict(self) -> GarrisonError:
        missing = not_found(self.request, self.tried)
        for outcome in ("invalid", "failed"):
            if error := self.first_error.get(outcome):
                error.details.update(missing.details)
                return error
        return missing


def _pass(_step: str) -> None:
    return None
