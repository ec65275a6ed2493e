"""The downloads of this server: two at once, the others in a bounded queue, ended ones kept for a day."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from datetime import timedelta

from garrison.api.models.download import Download, DownloadState
from garrison.api.models.fetcher import Fetcher
from garrison.api.models.wanted import Wanted
from garrison.base.clock import Clock
from garrison.base.errors import GarrisonError, InternalError, NotFoundError, NotReadyError
from garrison.base.logs import logger
from garrison.models.files.stop_token import StoppedError
from garrison.net.thread_pool import ThreadPool
from garrison.store.records import Event

__all__ = ["Downloads"]

_AT_ONCE = 2
_QUEUE = 32
_KEPT = 100
_KEPT_FOR = timedelta(hours=24)
_TELL_SECONDS = 1.0
_STOP_SECONDS = 5.0
_AGAIN_SECONDS = 30

_log = logger(__name__)


class Downloads:
    """Belongs to one event loop. Jobs are not stored: what they have downloaded is, and the next one goes on there.

    Args:
        pool: as many threads as downloads may run at once.
        tell: called with each event of a job.
    """

    def __init__(
        self, fetcher: Fetcher, tell: Callable[[Event], None], *, clock: Clock, pool: ThreadPool | None = None
    ) -> None:
        self._fetcher = fetcher
        self._tell = tell
        self._clock = clock
        self._pool = pool or ThreadPool("garrison-downloads", _AT_ONCE)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._all: dict[str, Download] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def list(self) -> list[Download]:
        """Return the jobs, oldest first."""
        self._forget_old()
        return list(self._all.values())

    def get(self, id: str) -> Download:
        """Return one job. Raises NotFoundError."""
        self._forget_old()
        found = self._all.get(id)
        if found is None:
            raise NotFoundError(
                f"there is no download {id!r}", hint="GET /api/v1/models/jobs lists those of the last day.",
                details={"job": id},
            )  # fmt: skip
        return found

    def begin(self, wanted: Wanted) -> Download:
        """Begin to download a model. One that is being downloaded already is that job.

        Raises:
            NotReadyError: too many wait already.
        """
        self._forget_old()
        for one in self._all.values():
            if not one.state.ended and (one.wanted.model, one.wanted.quantization) == (
                wanted.model,
                wanted.quantization,
            ):
                return one
        waiting = sum(one.state is DownloadState.QUEUED for one in self._all.values())
        if waiting >= _QUEUE:
            raise NotReadyError(
                f"{waiting} downloads wait already", hint="Ask again later, or cancel one.",
                details={"retry_after": _AGAIN_SECONDS},
            )  # fmt: skip
        job = Download(secrets.token_hex(8), wanted, self._clock.now())
        self._all[job.id] = job
        self._publish(job, None)
        task = self._tasks[job.id] = asyncio.create_task(self._run(job), name=f"download {wanted.repo}")
        task.add_done_callback(lambda _: self._ended(job))
        return job

    async def remove(self, id: str) -> None:
        """Cancel a job, and return when it has ended or after some seconds; drop one that has ended before.

        Raises:
            NotFoundError: there is none of this id.
        """
        job = self.get(id)
        if job.state.ended:
            del self._all[id]
            return
        self._cancel(job)
        if (task := self._tasks.get(id)) is not None:
            await asyncio.wait([task], timeout=_STOP_SECONDS)

    async def shutdown(self) -> None:
        """Cancel every job. A thread that hangs is left behind."""
        for job in self._all.values():
            if not job.state.ended:
                self._cancel(job)
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_SECONDS)
        for task in tasks:
            task.cancel()
        self._pool.close(0.0)

    def _cancel(self, job: Download) -> None:
        job.stop.stop(_STOP_SECONDS)
        if job.state is DownloadState.QUEUED and (task := self._tasks.get(job.id)) is not None:
            task.cancel()

    async def _run(self, job: Download) -> None:
        try:
            async with self._slots:
                self._move(job, DownloadState.DOWNLOADING)
                await self._fetch(job)
            self._move(job, DownloadState.COMPLETED)
        except StoppedError:
            self._move(job, DownloadState.CANCELLED)
        except GarrisonError as error:
            job.failure = error
            self._move(job, DownloadState.FAILED)
        except Exception as error:  # noqa: BLE001 - the outermost frame of a job: whoever looks at it is told
            _log.error("a download failed because of a bug", exception=error, repo=job.wanted.repo)
            job.failure = InternalError("a bug in Garrison; the log has the details")
            self._move(job, DownloadState.FAILED)

    def _ended(self, job: Download) -> None:
        """The task of a job is done. One that was cancelled while it waited has not said so, and may never have run."""
        self._tasks.pop(job.id, None)
        if not job.state.ended:
            self._move(job, DownloadState.CANCELLED)

    async def _fetch(self, job: Download) -> None:
        """Run the job in a thread, and tell of its progress."""
        told = job.progress.to_json()["bytes_downloaded"]
        work = asyncio.ensure_future(
            self._pool.run(
                lambda: self._fetcher.fetch(job.wanted, job.progress, job.stop), f"download {job.wanted.repo}"
            )
        )
        try:
            while not (await asyncio.wait([work], timeout=_TELL_SECONDS))[0]:
                if (now := job.progress.to_json()["bytes_downloaded"]) != told:
                    told = now
                    self._publish(job, job.state, kind="download_progress")
            job.fetched = work.result()
        finally:
            work.cancel()  # only this task stops waiting; the thread ends by the token

    def _move(self, job: Download, state: DownloadState) -> None:
        before, job.state = job.state, state
        if state.ended:
            job.ended = self._clock.now()
        _log.info("download", repo=job.wanted.repo, tag=job.wanted.tag, state=str(state))
        self._publish(job, before)

    def _publish(self, job: Download, before: DownloadState | None, *, kind: str = "") -> None:
        self._tell(
            Event(
                at=self._clock.now(),
                kind=kind or f"download_{job.state}",
                cause=job.failure.code if job.failure is not None else None,
                before={"status": str(before)} if before is not None else None,
                after=job.to_json(),
                subject_kind="download",
                subject_name=job.id,
            )
        )

    def _forget_old(self) -> None:
        """Drop jobs that ended a day ago, and the oldest beyond a hundred."""
        ended = [one for one in self._all.values() if one.ended is not None]
        ended.sort(key=lambda one: one.ended or one.created)
        since = self._clock.now() - _KEPT_FOR
        for number, one in enumerate(ended):
            if (one.ended or one.created) < since or number < len(ended) - _KEPT:
                with contextlib.suppress(KeyError):
                    del self._all[one.id]
