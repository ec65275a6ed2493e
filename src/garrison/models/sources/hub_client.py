"""Requests to a Hugging Face hub about one model, with Garrison's timeouts, retries and messages.

huggingface_hub builds the addresses and headers and reads the listing. Nothing here writes a file.
"""

import contextlib
import json
import logging
import math
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from garrison.base.clock import Clock
from garrison.base.errors import FetchError, InvalidError
from garrison.base.redaction import know_secret
from garrison.models.files.progress import Progress
from garrison.models.files.stop_token import StoppableClock, StopToken
from garrison.models.request import ResolveRequest
from garrison.models.sources.hub_errors import (
    cause_of,
    first_line,
    is_transient,
    network_errors,
    said,
    setup_errors,
    wait_asked_by,
)
from garrison.models.sources.plain_http import checked_endpoint, is_exposed
from garrison.models.sources.retries import TRIES, Retries
from garrison.models.sources.side_by_side import aside
from garrison.models.sources.source import Skipped
from garrison.models.sources.staging import RemoteFile

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

__all__ = ["AGAIN", "HubClient"]

T = TypeVar("T")

_MOST_REDIRECTS = 5
_MAX_INDEX_BYTES = 64 * 1024 * 1024
_LOG = logging.getLogger("garrison.models.sources")
AGAIN = (
    "Run this again; what was fetched is kept. Without a network, use --offline, and bring models with `garrison "
    "models import`; behind a mirror, set HF_ENDPOINT."
)


class HubClient:
    """Attributes:
    place: the address of the repository, for messages.
    """

    def __init__(
        self,
        request: ResolveRequest,
        progress: Progress,
        clock: Clock,
        stop: StopToken,
        *,
        read_timeout: float,
        connect_timeout: float,
    ) -> None:
        import httpx2

        try:
            from huggingface_hub import constants, get_session
            from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported lazily
        except ValueError as error:  # it reads its variables when it is imported
            raise InvalidError(
                f"a variable of huggingface_hub cannot be read: {said(error)}",
                hint="Check the numbers in variables that begin with HF_, such as HF_HUB_ETAG_TIMEOUT.",
            ) from None
        constants.HF_HUB_DISABLE_TELEMETRY = True  # read when headers are built; the user did not ask to report
        self.repo_id = request.model.model_id
        self.revision = request.model.revision
        endpoint = (request.hf_endpoint or constants.ENDPOINT).rstrip("/")
        self.endpoint = checked_endpoint(endpoint, "HF_ENDPOINT", example="https://hub.example.org")
        self.place = f"{self.endpoint}/{self.repo_id}"
        self._progress = progress
        self._saying = threading.Lock()
        self._stop = stop
        self._clock = clock
        self._said_until = -math.inf
        self._timeout = httpx2.Timeout(read_timeout, connect=connect_timeout)
        try:
            headers = build_hf_headers(token=request.hf_token, library_name="garrison")
            get_session()
        except setup_errors() as error:
            raise InvalidError(
                f"no request can be sent to {self.endpoint}: {said(error)}",
                hint="Check what HTTPS_PROXY, SSL_CERT_FILE and HF_TOKEN_PATH name.",
            ) from None
        know_secret(headers.get("authorization", "").removeprefix("Bearer "))  # it may come from a file
        self._withheld = "authorization" in headers and is_exposed(self.endpoint)
        if self._withheld:
            del headers["authorization"]
            message = f"warning: HF_TOKEN is not sent to {self.endpoint}: plain HTTP to another machine; use https"
            progress.step("warning", message=message)
        self._headers = headers

    @property
    def _token(self) -> str | bool:
        """For functions of huggingface_hub; False also keeps them from reading a token from the user's files."""
        return self._headers.get("authorization", "").removeprefix("Bearer ") or False

    def info(self) -> "ModelInfo | Skipped":
        """The commit and its files; Skipped when the hub has no such model or revision."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import (
            GatedRepoError,
            HFValidationError,
            OfflineModeIsEnabled,
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
            return Skipped(f"{self.place} does not exist{self._private()}")
        except HFValidationError:
            return Skipped(f"{self.repo_id!r} is not the name of a hub repository")
        except OfflineModeIsEnabled:
            return Skipped("HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set", unused=True)
        except network_errors() as error:
            raise self.explained(error) from None
        except OSError as error:  # of a proxy or a certificate, which httpx2 passes on
            raise self.explained(error) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._not_a_hub(f"{type(error).__name__}: {error}") from None
        if not info.sha:
            raise self._not_a_hub("it names no commit")
        for sibling in info.siblings or []:
            if not _is_listing(sibling):
                raise self._not_a_hub(f"it lists a file as {sibling.rfilename!r} of {sibling.size!r} bytes")
        return info

    def remote_file(self, sibling: "RepoSibling", commit: str) -> RemoteFile:
        """Size and digest from the listing; a mirror whose listing has no sizes is asked for this one."""
        tag = sibling.lfs.sha256 if sibling.lfs is not None else sibling.blob_id or ""
        if sibling.size is not None:
            return RemoteFile(sibling.rfilename, sibling.size, tag)
        try:
            size, etag = self._retried(lambda: self._head(self.url(sibling.rfilename, commit)))
        except network_errors() as error:
            raise self.explained(error) from None
        if size is None:
            raise FetchError(f"{self.place} gives no size for {sibling.rfilename}", hint="Use another HF_ENDPOINT.")
        return RemoteFile(sibling.rfilename, size, tag or etag)

    def index_files(self, name: str, commit: str) -> list[str] | None:
        """The files that the index `name` lists; None if it is none.

        Raises:
            FetchError: it could not be fetched.
        """
        try:
            content = self._retried(lambda: self._small(self.url(name, commit)))
        except network_errors() as error:
            raise self.explained(error) from None
        try:
            found = json.loads(content)["weight_map"].values()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return sorted({file for file in found if isinstance(file, str)})

    def url(self, name: str, commit: str) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repo_id, name, revision=commit, endpoint=self.endpoint)

    @contextlib.contextmanager
    def stream(self, url: str, start: int, stop: StopToken) -> Iterator["httpx2.Response"]:
        """GET from byte `start` to the end. A stop ends a read that waits.

        httpx2 drops the token when a redirect leaves the hub's origin.

        Raises:
            network_errors(): no connection, no response in time, or an error status.
        """
        from huggingface_hub import get_session, hf_raise_for_status

        headers = {**self._headers, "Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with get_session().stream(
            "GET", url, headers=headers, timeout=self._timeout, follow_redirects=True
        ) as response:
            stop.check()
            withdraw = stop.on_stop(lambda: _interrupt(response))
            try:
                hf_raise_for_status(response)
                yield response
            finally:
                withdraw()

    def pause(self, retries: Retries, error: Exception | None, stop: StopToken, *, cause: str) -> bool:
        """Wait before another try, as long as the server asks for; return whether there is one. Says what it waits for.
        Called from several threads.

        Args:
            error: what the request ended with, if it failed.
            cause: why there has to be another try, in words.

        Raises:
            StoppedError: `stop` was stopped.
        """
        asked = wait_asked_by(error, self._clock.now()) if error is not None else None
        wait = retries.next_wait(asked)
        if wait is None:
            return False
        self._say_wait(wait, cause, None if asked is not None else retries.attempt)
        StoppableClock(self._clock, stop).sleep(wait)
        return True

    def asks_to_wait(self, error: Exception) -> bool:
        """Whether the hub said how long to wait: a refusal, not a fault."""
        return wait_asked_by(error, self._clock.now()) is not None

    def _say_wait(self, seconds: float, cause: str, attempt: int | None) -> None:
        """Once, for all the threads that wait for the same. `attempt`: the number of the next try; None where the hub
        asks for the wait, which is no lost try."""
        with self._saying:
            now = self._clock.monotonic()
            if now < self._said_until:
                return
            self._said_until = now + seconds
            if attempt is None:
                whole = math.ceil(seconds)
                message = f"{self.endpoint} limits requests; waiting {whole} s, as it asks"
                self._progress.step("wait", seconds=whole, cause=f"{self.endpoint} limits requests", message=message)
                return
            message = f"{self.endpoint}: {cause}; try {attempt} of {TRIES} in {seconds:g} s"
            facts = {"seconds": seconds, "cause": cause, "attempt": attempt, "tries": TRIES, "message": message}
            self._progress.step("wait", **facts)

    def explained(self, error: Exception) -> FetchError:
        """The FetchError for what huggingface_hub or httpx2 raised."""
        from huggingface_hub.errors import DisabledRepoError, GatedRepoError, HfHubHTTPError

        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        details = {"status": status} if status else {}
        if self._withheld and status in (401, 403):
            message = f"{self.place} rejects the request (HTTP {status}); HF_TOKEN was not sent over plain HTTP"
            hint = "Set HF_ENDPOINT to an https address, or reach the hub through a tunnel on a loopback address."
            return FetchError(message, hint=hint, details=details)
        if isinstance(error, DisabledRepoError):
            hint = "Its owner or the hub has closed it: use another model, or a copy of your own."
            return FetchError(f"{self.place} is disabled", hint=hint, details=details)
        if isinstance(error, GatedRepoError):
            hint = f"Accept the licence at {self.place} and set HF_TOKEN to a token of that account."
            return FetchError(f"{self.place} is gated", hint=hint, details=details)
        if status in (401, 403):
            hint = "HF_TOKEN is not accepted." if self._token else "Set HF_TOKEN to a token that may read the model."
            return FetchError(f"{self.place} rejects the request (HTTP {status})", hint=hint, details=details)
        asked = wait_asked_by(error, self._clock.now())
        if asked is not None:
            message = f"{self.place} could not be fetched: HTTP {status}, and it asks to wait {math.ceil(asked)} s"
            hint = "Run this again then; what was fetched is kept. A token (HF_TOKEN) raises the limit."
            return FetchError(message, hint=hint, details={**details, "retry_after": math.ceil(asked)})
        return FetchError(f"{self.place} could not be fetched: {cause_of(error)}", hint=AGAIN, details=details)

    def _private(self) -> str:
        if self._withheld:
            return ", or it is private and HF_TOKEN was not sent"
        return "" if self._token else ", or it is private and HF_TOKEN is not set"

    def _small(self, url: str) -> bytes:
        """The content of a small file.

        Raises:
            FetchError: it is too large.
            network_errors(): as `stream`.
        """
        content = bytearray()
        with self.stream(url, 0, self._stop) as response:
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > _MAX_INDEX_BYTES:
                    raise FetchError(f"{url} is too large to be an index", hint="Use another HF_ENDPOINT.")
        return bytes(content)

    def _head(self, url: str) -> tuple[int | None, str]:
        """Size in bytes, None where unknown, and tag of a file.

        huggingface_hub has the same, and hands the token of a mirror on to huggingface.co where that redirects there.
        """
        from huggingface_hub import get_session, hf_raise_for_status

        headers = {**self._headers, "Accept-Encoding": "identity"}
        for _ in range(_MOST_REDIRECTS):
            response = get_session().head(url, headers=headers, timeout=self._timeout, follow_redirects=False)
            hf_raise_for_status(response)
            size = response.headers.get("X-Linked-Size")
            if size is None and response.has_redirect_location:
                target = urljoin(url, response.headers["Location"])
                if _origin(target) != _origin(url):
                    headers.pop("authorization", None)
                url = target
                continue
            size = size or response.headers.get("Content-Length")
            tag = response.headers.get("X-Linked-ETag") or response.headers.get("ETag") or ""
            return int(size) if size and size.isdecimal() else None, tag.removeprefix("W/").strip('"')
        return None, ""

    def _retried(self, call: Callable[[], T]) -> T:
        retries = Retries()
        while True:
            try:
                return aside(call, self._stop, "hf-hub-request")
            except network_errors() as error:
                if not is_transient(error):
                    raise
                _LOG.warning("%s: %s", self.place, said(error))
                if not self.pause(retries, error, self._stop, cause=cause_of(error)):
                    raise self.explained(error) from None

    def _not_a_hub(self, why: str) -> FetchError:
        return FetchError(
            f"{self.endpoint} does not behave like a hub: {first_line(why)}",
            hint="Check HF_ENDPOINT, and whether a login page of the network answers in its place.",
        )


def _is_listing(sibling: "RepoSibling") -> bool:
    """Whether the fields of a file in the listing have their types: the library takes them as they come."""
    name: Any = sibling.rfilename
    size: Any = sibling.size
    tags: tuple[Any, ...] = (sibling.blob_id, sibling.lfs.sha256 if sibling.lfs is not None else None)
    if not isinstance(name, str) or not all(isinstance(tag, str | None) for tag in tags):
        return False
    return size is None or (isinstance(size, int) and size >= 0)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _interrupt(response: "httpx2.Response") -> None:
    """End a read that waits in another thread; closing the socket would not wake it."""
    stream = response.extensions.get("network_stream")
    connection = stream.get_extra_info("socket") if stream is not None else None
    if isinstance(connection, socket.socket):
        with contextlib.suppress(OSError):
            # The plain socket's method: that of a TLS socket would drop the TLS state under the reader.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
