"""Source `r2`: `s3://BUCKET/PREFIX/NAME/` of any S3-compatible store, fetched in parallel ranges.

Ranges are requested in order, a window of them at a time, and written in order by one writer, so that the length of a
part says how far the download came and the next run continues from there. Every range is requested with `If-Match`, so
that a change of the object during the download is noticed.
"""

import asyncio
import contextlib
import logging
import os
import re
from collections import deque
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar

from garrison.base.errors import FetchError, InvalidError
from garrison.base.redaction import SecretValueError, redacted, secret_text
from garrison.models.files.progress import Progress
from garrison.models.files.stop_token import StopToken
from garrison.models.request import ResolveRequest
from garrison.models.sources.aws_credentials import (
    given_by_environment,
    refuse_exposed_credentials,
    shared_credentials,
)
from garrison.models.sources.plain_http import checked_endpoint, is_exposed
from garrison.models.sources.selection import chosen_file, select_files
from garrison.models.sources.source import Found, Outcome, Skipped, Workspace
from garrison.models.sources.staging import Pending, RemoteFile, Staging, write_all
from garrison.models.sources.transfer import transfer

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Store

__all__ = ["R2Source"]

T = TypeVar("T")

_CHUNK = 8 * 1024 * 1024
_WINDOW = 10  # chunks in memory, requested or waiting to be written
_TRIES = 4
_LOG = logging.getLogger("garrison.models.sources")
_KEY_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "access_key_id",
    "AWS_SECRET_ACCESS_KEY": "secret_access_key",
    "AWS_SESSION_TOKEN": "session_token",
}
# Other characters would end in a panic of obstore when it builds an address of them.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_CREDENTIALS_HINT = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to a key that may read the bucket."


@dataclass(frozen=True, slots=True)
class _Range:
    item: Pending
    start: int
    end: int


class R2Source:
    name = "r2"

    def __init__(
        self,
        *,
        environ: Mapping[str, str] | None = None,
        read_timeout: float = 30.0,
        retry_budget: float = 60.0,
        first_backoff: float = 0.5,
    ) -> None:
        """Args: `read_timeout`, seconds without a byte; `retry_budget`, seconds of retries for one range."""
        self._environ = os.environ if environ is None else environ
        self._read_timeout = read_timeout
        self._retry_budget = retry_budget
        self._first_backoff = first_backoff

    def find(self, request: ResolveRequest, workspace: Workspace, progress: Progress) -> Outcome:
        if request.r2_bucket is None or request.r2_prefix is None:
            missing = "R2_BUCKET" if request.r2_bucket is None else "R2_MODELS_PREFIX"
            return Skipped(f"{missing} is not set", unused=True)
        if not _BUCKET.fullmatch(request.r2_bucket):
            raise InvalidError(f"R2_BUCKET {request.r2_bucket!r} is not the name of a bucket", hint="Set it again.")
        try:
            import obstore  # heavy, and only this source needs it
        except ImportError:
            return Skipped("obstore is not installed", unused=True)
        credentials = {} if given_by_environment(self._environ) else shared_credentials(self._environ)
        if request.r2_endpoint and not credentials and not given_by_environment(self._environ):
            # Only AWS itself has a metadata service; elsewhere asking for it would only cost time.
            return Skipped(
                "no AWS credentials: AWS_ACCESS_KEY_ID is not set and there is no credentials file", unused=True
            )
        place = f"s3://{request.r2_bucket}/{request.r2_prefix.strip('/')}/{request.model.name}/"
        staging = Staging(request.layout.staging_dir(request.model, self.name))
        try:
            store = self._store(request, credentials, progress)
            files = asyncio.run(_stoppable(_list(store), workspace.stop))
            names = [file.path for file in files]
            try:
                chosen = chosen_file(names, request.model.file, request.model.quantization, place)
            except InvalidError as error:
                return Skipped(error.message)
            files = _needed(files, chosen, request.allow_patterns)
            if not files:
                return Skipped(f"{place} holds no {chosen or 'files'}")
            with transfer(place, files, staging, workspace, progress) as pending:
                _download(store, staging, pending, progress, workspace.stop)
        except (FileNotFoundError, obstore.exceptions.NotFoundError) as error:
            return Skipped(f"{place} does not exist: {_first_line(error)}")
        except obstore.exceptions.BaseError as error:
            if _status(error) == 404:
                return Skipped(f"there is no bucket {request.r2_bucket}")
            raise _explained(error, place) from None
        return Found(staging.directory, staged=True, file=chosen)

    def _store(self, request: ResolveRequest, credentials: dict[str, str], progress: Progress) -> "S3Store":
        from obstore.store import S3Store

        endpoint = request.r2_endpoint
        if endpoint:
            checked_endpoint(endpoint, "R2_ENDPOINT_URL", example="https://ID.r2.cloudflarestorage.com")
        if not credentials:
            refuse_exposed_credentials(self._environ)
        config: S3Config = {}
        config.update(credentials or _given_keys(self._environ))  # type: ignore[typeddict-item]  # the names are obstore's, see aws_credentials
        if endpoint:
            config["endpoint"] = endpoint
        if not self._environ.get("AWS_REGION") and not self._environ.get("AWS_DEFAULT_REGION"):
            config["region"] = "auto" if endpoint else "us-east-1"
        return S3Store(
            request.r2_bucket,
            prefix=f"{(request.r2_prefix or '').strip('/')}/{request.model.name}".lstrip("/"),
            config=config,
            client_options={
                "allow_http": bool(endpoint) and _may_use_http(endpoint or "", self._environ, progress),
                "connect_timeout": timedelta(seconds=10),
                "read_timeout": timedelta(seconds=self._read_timeout),
                "timeout": timedelta(seconds=600),
            },
            retry_config={
                "max_retries": 6,
                "retry_timeout": timedelta(seconds=self._retry_budget),
                "backoff": {
                    "init_backoff": timedelta(seconds=self._first_backoff),
                    "max_backoff": timedelta(seconds=8),
                    "base": 2,
                },
            },
        )


def _given_keys(environ: Mapping[str, str]) -> dict[str, str]:
    """The keys in the environment, without surrounding white space, which obstore would sign with.

    Raises:
        InvalidError: one of them cannot be a key.
    """
    found = {}
    for variable, name in _KEY_VARIABLES.items():
        if environ.get(variable, "").strip():
            try:
                found[name] = secret_text(environ[variable])
            except SecretValueError as error:
                raise InvalidError(f"{variable} {error}", hint=f"Set {variable} again; it is one line.") from None
    return found


async def _stoppable(work: Coroutine[Any, Any, T], stop: StopToken) -> T:
    """Await `work`; a stop cancels it, and StoppedError is raised."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)

    def cancel() -> None:
        with contextlib.suppress(RuntimeError):  # the work ended at the same moment, and the loop is closed
            loop.call_soon_threadsafe(task.cancel)

    withdraw = stop.on_stop(cancel)
    try:
        return await task
    except asyncio.CancelledError:
        stop.check()
        raise
    finally:
        withdraw()


async def _list(store: "S3Store") -> list[RemoteFile]:
    """The files below the prefix."""
    import obstore

    return [
        RemoteFile(path=entry["path"], size=entry["size"], tag=entry["e_tag"] or "")
        async for page in obstore.list(store)
        for entry in page
        if not entry["path"].endswith("/")  # a console's way to make a folder
    ]


def _needed(files: list[RemoteFile], chosen: str | None, patterns: Sequence[str]) -> list[RemoteFile]:
    """The files to fetch: all below the prefix unless patterns or a GGUF file say otherwise; unlike a repository of the
    hub, the prefix was filled for this purpose."""
    if chosen is not None:
        wanted = set(select_files([file.path for file in files], file=chosen))
        return [file for file in files if file.path in wanted]
    return [file for file in files if not patterns or any(fnmatchcase(file.path, pattern) for pattern in patterns)]


def _download(
    store: "S3Store", staging: Staging, pending: tuple[Pending, ...], progress: Progress, stop: StopToken
) -> None:
    for item in pending:
        if item.offset == item.file.size:  # nothing is left to request
            staging.part(item.file).touch()
            staging.finish(item.file)
    # Not threads: a thread that waits in obstore cannot be interrupted, a task can be cancelled.
    asyncio.run(_stoppable(_transfer(store, _Writer(staging, progress, stop), pending), stop))


async def _transfer(store: "S3Store", writer: "_Writer", pending: tuple[Pending, ...]) -> None:
    """Request the ranges in order, a window of them at a time, and write them in order."""
    waiting: deque[tuple[_Range, asyncio.Task[Any]]] = deque()

    async def write_first() -> None:
        piece, answer = waiting[0]
        writer.write(piece, await answer)
        waiting.popleft()

    try:
        for piece in _ranges(pending):
            if len(waiting) == _WINDOW:
                await write_first()
            waiting.append((piece, asyncio.create_task(_fetch(store, piece, writer.progress))))
        while waiting:
            await write_first()
    finally:
        for _, answer in waiting:
            answer.cancel()
        await asyncio.gather(*(answer for _, answer in waiting), return_exceptions=True)
        writer.close()


def _ranges(pending: tuple[Pending, ...]) -> Iterator[_Range]:
    for item in pending:
        for start in range(item.offset, item.file.size, _CHUNK):
            yield _Range(item, start, min(start + _CHUNK, item.file.size))


async def _fetch(store: "S3Store", piece: _Range, progress: Progress) -> Any:
    """Fetch the bytes of a range. obstore retries requests; a body that is cut short is retried here."""
    import obstore

    file = piece.item.file
    options: Any = {"range": (piece.start, piece.end)} | ({"if_match": file.tag} if file.tag else {})
    for attempt in range(1, _TRIES + 1):
        try:
            content = await (await obstore.get_async(store, file.path, options=options)).bytes_async()
        except obstore.exceptions.GenericError as error:
            _LOG.warning("%s, bytes %d to %d: %s", file.path, piece.start, piece.end, error)
            if attempt == _TRIES:
                raise
            why = "the connection ended early"
        else:
            if len(content) == piece.end - piece.start:
                return content
            _LOG.warning("%s: asked for %d bytes, got %d", file.path, piece.end - piece.start, len(content))
            why = f"{len(content)} bytes came instead of {piece.end - piece.start}"
        if attempt < _TRIES:
            _say_wait(progress, 0.2 * attempt, f"{file.path}: {why}", attempt + 1)
            await asyncio.sleep(0.2 * attempt)
    raise FetchError(
        f"the store keeps sending a wrong number of bytes for {file.path}",
        hint="Run this again; what was fetched is kept.",
    )


def _say_wait(progress: Progress, seconds: float, cause: str, attempt: int) -> None:
    message = f"{cause}; try {attempt} of {_TRIES} in {seconds:.1f} s"
    progress.step("wait", seconds=seconds, cause=cause, attempt=attempt, tries=_TRIES, message=message)


class _Writer:
    """Appends ranges, which arrive in order, to the part of their file, and finishes the file after the last one."""

    def __init__(self, staging: Staging, progress: Progress, stop: StopToken) -> None:
        self._staging = staging
        self.progress = progress
        self._stop = stop
        self._handle = -1

    def write(self, piece: _Range, content: Any) -> None:
        self._stop.check()  # a cancelled task runs on until it has to wait
        file = piece.item.file
        if piece.start == piece.item.offset:
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | (0 if piece.start else os.O_TRUNC)
            self._handle = os.open(self._staging.part(file), flags, 0o666)
            os.lseek(self._handle, piece.start, os.SEEK_SET)
        write_all(self._handle, memoryview(content))
        self.progress.advanced(piece.end - piece.start)
        if piece.end == file.size:
            self.close()
            self._staging.finish(file)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _may_use_http(endpoint: str, environ: Mapping[str, str], progress: Progress) -> bool:
    """Whether requests may go over plain HTTP: to this machine, and elsewhere with the user's word, and a warning.

    The secret key is never sent, but a session token is, and whoever reads a signed request can repeat it.
    """
    if endpoint.startswith("https:"):
        return False
    if is_exposed(endpoint):
        if environ.get("AWS_ALLOW_HTTP", "").lower() not in ("1", "true"):
            raise InvalidError(
                f"R2_ENDPOINT_URL is plain HTTP to another machine: {endpoint}",
                hint="Use https, or set AWS_ALLOW_HTTP=true in a network you trust.",
            )
        message = f"warning: signed requests go to {endpoint} over plain HTTP (AWS_ALLOW_HTTP); use https"
        progress.step("warning", message=message)
    return True


def _explained(error: Exception, place: str) -> FetchError:
    import obstore

    refused = (obstore.exceptions.PermissionDeniedError, obstore.exceptions.UnauthenticatedError)
    if isinstance(error, refused) or _status(error) in (401, 403):
        return FetchError(f"the store denies access to {place}: {_first_line(error)}", hint=_CREDENTIALS_HINT)
    if isinstance(error, obstore.exceptions.PreconditionError):
        return FetchError(f"{place} changed while it was downloaded", hint="Run this again.")
    return FetchError(
        f"{place} could not be fetched: {_first_line(error)}", hint="Run this again; what was fetched is kept."
    )


def _status(error: Exception) -> int | None:
    """The HTTP status, from the message: for a listing obstore raises only a generic error."""
    match = re.search(r"status code: (\d{3})", str(error))
    return int(match[1]) if match else None


def _first_line(error: Exception) -> str:
    text = redacted(str(error)).strip().splitlines()
    return text[0][:300] if text else type(error).__name__
