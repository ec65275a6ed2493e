"""Source `hf-hub`: a repository of the Hugging Face hub or a mirror of it, pinned to a commit.

huggingface_hub finds the files, the addresses and the headers. The transfer is ours: since its version 2 an interrupted
download starts over, and a model of many gigabytes must not. Every file is hashed when it is whole and compared with
what the hub says of it.
"""

import hashlib
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from garrison.base.clock import Clock
from garrison.base.errors import FetchError, InvalidError
from garrison.base.redaction import know_secret, redacted
from garrison.base.values import number
from garrison.models.files.progress import Progress
from garrison.models.request import ResolveRequest
from garrison.models.sources.selection import select_files
from garrison.models.sources.source import Found, Outcome, Skipped, Workspace
from garrison.models.sources.staging import Pending, RemoteFile, Staging, write_failed

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

__all__ = ["HfHubSource"]

T = TypeVar("T")

_WORKERS = 8
_CHUNK = 1024 * 1024
_TRIES = 5
_LOG = logging.getLogger("garrison.models.sources")
_AGAIN = (
    "Run this again; what was fetched is kept. Where there is no network: --offline, and `garrison models import` "
    "brings models; behind a mirror, set HF_ENDPOINT."
)


class HfHubSource:
    name = "hf-hub"

    def __init__(
        self, *, environ: Mapping[str, str] | None = None, read_timeout: float = 30.0, connect_timeout: float = 10.0
    ) -> None:
        """Args: seconds without a byte, and for a connection, after which a request counts as failed."""
        self._environ = os.environ if environ is None else environ
        self._read_timeout = _seconds(self._environ, "HF_HUB_DOWNLOAD_TIMEOUT", read_timeout)
        self._connect_timeout = connect_timeout

    def find(self, request: ResolveRequest, workspace: Workspace, progress: Progress) -> Outcome:
        if self._environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
            return Skipped("HF_HUB_OFFLINE is set")
        try:
            import huggingface_hub  # noqa: F401 - heavy, and only this source needs it
        except ImportError:
            return Skipped("huggingface_hub is not installed")
        hub = _Hub(request, workspace.clock, self._read_timeout, self._connect_timeout)
        info = hub.info()
        if isinstance(info, Skipped):
            return info
        siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
        names = select_files(siblings, file=request.model.file, patterns=request.allow_patterns)
        if not names:
            return Skipped(f"{hub.place} has no {request.model.file or 'files that an engine needs'}")
        files = [hub.remote_file(siblings[name], str(info.sha)) for name in names]
        staging = Staging(request.layout.staging_dir(request.model, self.name))
        pending = staging.prepare(files, workspace.free_bytes)
        _LOG.info("%s at %s: %d files, %d to fetch", hub.place, info.sha, len(files), len(pending))
        _download(hub, str(info.sha), staging, pending, files, progress, workspace)
        return Found(staging.directory, revision=info.sha, staged=True)


class _Hub:
    """Requests to one hub about one model, with our timeouts, our retries and our words for what goes wrong."""

    def __init__(self, request: ResolveRequest, clock: Clock, read_timeout: float, connect_timeout: float) -> None:
        import httpx2
        from huggingface_hub import constants
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported lazily

        constants.HF_HUB_DISABLE_TELEMETRY = True  # read when headers are built; nobody asked us to report
        self.repo_id = request.model.model_id
        self.revision = request.model.revision
        self.endpoint = _checked((request.hf_endpoint or constants.ENDPOINT).rstrip("/"))
        self.place = f"{self.endpoint}/{self.repo_id}"
        self.clock = clock
        self.stop = threading.Event()
        self._token = request.hf_token
        self._headers = build_hf_headers(token=request.hf_token, library_name="garrison")
        know_secret(self._headers.get("authorization", "").removeprefix("Bearer "))  # it may come from a file
        self._timeout = httpx2.Timeout(read_timeout, connect=connect_timeout)

    def info(self) -> "ModelInfo | Skipped":
        """The commit and its files; Skipped when the hub has no such model or revision."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import (
            GatedRepoError,
            HFValidationError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        api = HfApi(endpoint=self.endpoint, token=self._token, library_name="garrison")
        try:
            info = self._retried(
                lambda: api.model_info(
                    self.repo_id, revision=self.revision, files_metadata=True, timeout=self._timeout.read
                )
            )
        except GatedRepoError as error:  # a kind of RepositoryNotFoundError
            raise self.explained(error) from None
        except RevisionNotFoundError:
            return Skipped(f"{self.place} has no revision {self.revision}")
        except RepositoryNotFoundError:
            private = "" if self._token else ", or it is private and HF_TOKEN is not set"
            return Skipped(f"{self.place} does not exist{private}")
        except HFValidationError:
            return Skipped(f"{self.repo_id!r} is not the name of a hub repository")
        except _network_errors() as error:
            raise self.explained(error) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._not_a_hub(f"{type(error).__name__}: {error}") from None
        if not info.sha:
            raise self._not_a_hub("it names no commit")
        return info

    def remote_file(self, sibling: "RepoSibling", commit: str) -> RemoteFile:
        """Size and digest from the listing; a mirror that leaves the size out is asked for it."""
        tag = sibling.lfs.sha256 if sibling.lfs is not None else sibling.blob_id or ""
        if sibling.size is not None:
            return RemoteFile(sibling.rfilename, sibling.size, tag)
        from huggingface_hub import get_hf_file_metadata
        from huggingface_hub.errors import HfHubHTTPError

        try:
            metadata = self._retried(
                lambda: get_hf_file_metadata(
                    self.url(sibling.rfilename, commit),
                    token=self._token,
                    timeout=self._timeout.read,
                    endpoint=self.endpoint,
                )
            )
        except HfHubHTTPError as error:
            raise self.explained(error) from None
        if metadata.size is None:
            raise FetchError(f"the hub does not say how long {sibling.rfilename} is", hint="Use another HF_ENDPOINT.")
        return RemoteFile(sibling.rfilename, metadata.size, tag or metadata.etag or "")

    def url(self, name: str, commit: str) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repo_id, name, revision=commit, endpoint=self.endpoint)

    def fetch(self, item: Pending, commit: str, staging: Staging, progress: Progress) -> None:
        """Bring one file, from where its part ends; once more from the start when its digest is wrong."""
        part = staging.part(item.file)
        part.open("ab").close()
        for last in (False, True):
            self._complete(item.file, commit, part, progress)
            if _digest_fits(part, item.file):
                staging.finish(item.file)
                return
            _LOG.warning("%s: the content differs from the hub's digest", item.file.path)
            part.unlink()
            if not last:
                progress.advanced(-item.file.size)
                part.touch()
        raise FetchError(f"{item.file.path} differs from what {self.place} says it should be", hint="Run this again.")

    def _complete(self, file: RemoteFile, commit: str, part: Path, progress: Progress) -> None:
        """Ask for the rest until the part is whole; give up after some tries that brought nothing."""
        tries = _TRIES
        while (have := part.stat().st_size) < file.size:
            try:
                self._append(file, commit, part, have, progress)
                problem = "the connection ended early"
            except _network_errors() as error:
                if not _is_transient(error):
                    raise
                problem = _said(error)
            now = part.stat().st_size
            if now >= file.size:
                return
            tries = _TRIES if now > have else tries - 1
            _LOG.warning("%s: %s at byte %d of %d", file.path, problem, now, file.size)
            if tries == 0:
                raise FetchError(f"{file.path} could not be fetched from {self.place}: {problem}", hint=_AGAIN)
            self._pause(_TRIES - tries + 1)

    def _append(self, file: RemoteFile, commit: str, part: Path, have: int, progress: Progress) -> None:
        from huggingface_hub import get_session, hf_raise_for_status

        headers = {**self._headers, "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        url = self.url(file.path, commit)
        with (
            get_session().stream("GET", url, headers=headers, timeout=self._timeout, follow_redirects=True) as response,
            part.open("r+b") as handle,
        ):
            hf_raise_for_status(response)
            if have and response.status_code != 206:
                progress.advanced(-have)  # the server knows no ranges: from the start
                have = 0
                handle.truncate()
            handle.seek(have)
            room = file.size - have
            # As they come: with a chunk size, what was gathered for a chunk is lost when the connection is cut.
            for chunk in response.iter_bytes():
                if self.stop.is_set():
                    raise _StoppedError
                if len(chunk) > room:
                    handle.truncate(0)
                    raise FetchError(
                        f"{self.place} sends more of {file.path} than the {file.size} bytes it announced",
                        hint="The hub or a proxy before it is broken; try another HF_ENDPOINT.",
                    )
                handle.write(chunk)
                room -= len(chunk)
                progress.advanced(len(chunk))

    def _retried(self, call: Callable[[], T]) -> T:
        for attempt in range(1, _TRIES + 1):
            try:
                return call()
            except _network_errors() as error:
                if not _is_transient(error):
                    raise
                _LOG.warning("%s: %s", self.place, _said(error))
                if attempt == _TRIES:
                    raise self.explained(error) from None
            self._pause(attempt)
        raise AssertionError("unreachable")

    def _pause(self, attempt: int) -> None:
        self.clock.sleep(min(8.0, 0.5 * 2.0 ** (attempt - 1)))

    def _not_a_hub(self, why: str) -> FetchError:
        return FetchError(
            f"{self.endpoint} does not answer as a hub does: {_first_line(why)}",
            hint="Check HF_ENDPOINT, and that no login page of the network answers in its place.",
        )

    def explained(self, error: Exception) -> FetchError:
        """Our error for what huggingface_hub raised."""
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if isinstance(error, GatedRepoError):
            return FetchError(
                f"{self.place} is gated",
                hint=f"Accept the licence at {self.place} and set HF_TOKEN to a token of that account.",
                details={"status": status},
            )
        if status in (401, 403):
            return FetchError(
                f"{self.place} refuses the request (HTTP {status})",
                hint="Set HF_TOKEN to a token that may read the model."
                if not self._token
                else "HF_TOKEN is not accepted.",
                details={"status": status},
            )
        details = {"status": status} if status else {}
        said = f"HTTP {status}" if status else _said(error)
        return FetchError(f"{self.place} could not be fetched: {said}", hint=_AGAIN, details=details)


class _StoppedError(Exception):
    """Another file failed, or somebody pressed Ctrl-C: end this thread."""


def _download(
    hub: _Hub,
    commit: str,
    staging: Staging,
    pending: tuple[Pending, ...],
    files: list[RemoteFile],
    progress: Progress,
    workspace: Workspace,
) -> None:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    total = sum(file.size for file in files)
    progress.started(len(files), total, total - sum(item.file.size - item.offset for item in pending))
    # The largest first, so that the end is not one long file alone.
    largest_first = sorted(pending, key=lambda item: item.offset - item.file.size)
    try:
        _side_by_side(largest_first, lambda item: hub.fetch(item, commit, staging, progress), hub.stop)
    except (HfHubHTTPError, httpx2.HTTPError) as error:  # the first is an OSError too
        raise hub.explained(error) from None
    except OSError as error:
        raise write_failed(staging.directory, error, total, workspace.free_bytes) from None
    finally:
        progress.finished()


def _side_by_side(items: list[Pending], fetch: Callable[[Pending], None], stop: threading.Event) -> None:
    """Run `fetch` for each item in a few threads; the first error ends all of them and is raised.

    Not a pool: it waits for its threads when the program ends, and a thread that waits for a silent hub would keep a
    Ctrl-C waiting for as long.
    """
    todo: SimpleQueue[Pending] = SimpleQueue()
    done: SimpleQueue[BaseException | None] = SimpleQueue()
    for item in items:
        todo.put(item)

    def work() -> None:
        while not stop.is_set():
            try:
                item = todo.get_nowait()
            except Empty:
                return
            try:
                fetch(item)
            except BaseException as error:  # noqa: BLE001 - not dropped: handed to the thread that waits, which raises it
                done.put(error)
                return
            done.put(None)

    count = min(_WORKERS, len(items))
    threads = [threading.Thread(target=work, name=f"hf-hub-{number}", daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    interrupted = False
    try:
        for _ in items:
            if error := done.get():
                raise error
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        stop.set()
        for thread in [] if interrupted else threads:
            thread.join()


def _network_errors() -> tuple[type[Exception], ...]:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    return (httpx2.HTTPError, HfHubHTTPError)


def _is_transient(error: Exception) -> bool:
    """Whether another try is worth it: the network, and an answer of 408, 429 or 5xx."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    return isinstance(error, httpx2.TransportError) and not isinstance(error, httpx2.UnsupportedProtocol)


def _digest_fits(part: Path, file: RemoteFile) -> bool:
    """LFS files have a SHA-256, the others git's SHA-1 of a blob; a mirror may give neither."""
    if len(file.tag) == 64:
        digest: Any = hashlib.sha256()
    elif len(file.tag) == 40:
        digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    else:
        return True
    with part.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
    return bool(digest.hexdigest() == file.tag)


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    raw = environ.get(name)
    if not raw:
        return default
    try:
        return float(number(above=0)(raw))
    except ValueError as error:
        raise InvalidError(f"{name} must be {error}, not {raw!r}", hint="Unset it for the default.") from None


def _checked(endpoint: str) -> str:
    try:
        url = urlsplit(endpoint)
        valid = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise InvalidError(f"HF_ENDPOINT must be a URL, not {endpoint!r}", hint="As in https://hub.example.org")
    return endpoint


def _said(error: Exception) -> str:
    """The first line. A download is redirected to an address whose query is the right to read it: that is left out."""
    return re.sub(r"\?[^\s'\"]+", "?…", f"{type(error).__name__}: {_first_line(str(error))}")


def _first_line(text: str) -> str:
    lines = redacted(text).strip().splitlines()
    return lines[0][:300] if lines else "no reason given"
