"""Requests to a Hugging Face hub about one model, with Garrison's timeouts, retries and messages.

huggingface_hub builds the addresses and headers and reads the listing. Nothing here writes a file.
"""

import contextlib
import logging
import re
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin, urlsplit

from garrison.base.clock import Clock
from garrison.base.errors import FetchError, InvalidError
from garrison.base.redaction import know_secret, redacted
from garrison.models.files.progress import Progress
from garrison.models.files.stop_token import StoppableClock, StopToken
from garrison.models.request import ResolveRequest
from garrison.models.sources.plain_http import is_exposed, refuse_password
from garrison.models.sources.side_by_side import aside
from garrison.models.sources.source import Skipped
from garrison.models.sources.staging import RemoteFile

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

__all__ = ["AGAIN", "TRIES", "HubClient", "is_transient", "network_errors", "said"]

T = TypeVar("T")

TRIES = 5
_MOST_REDIRECTS = 5
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
        from huggingface_hub import constants
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported lazily

        constants.HF_HUB_DISABLE_TELEMETRY = True  # read when headers are built; the user did not ask to report
        self.repo_id = request.model.model_id
        self.revision = request.model.revision
        self.endpoint = _checked((request.hf_endpoint or constants.ENDPOINT).rstrip("/"))
        self.place = f"{self.endpoint}/{self.repo_id}"
        self._stop = stop
        self._clock = clock
        self._timeout = httpx2.Timeout(read_timeout, connect=connect_timeout)
        headers = build_hf_headers(token=request.hf_token, library_name="garrison")
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
        except network_errors() as error:
            raise self.explained(error) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._not_a_hub(f"{type(error).__name__}: {error}") from None
        if not info.sha:
            raise self._not_a_hub("it names no commit")
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

    def pause(self, attempt: int, stop: StopToken) -> None:
        """Wait before another try. Raises StoppedError."""
        StoppableClock(self._clock, stop).sleep(min(8.0, 0.5 * 2.0 ** (attempt - 1)))

    def explained(self, error: Exception) -> FetchError:
        """The FetchError for what huggingface_hub or httpx2 raised."""
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        details = {"status": status} if status else {}
        if self._withheld and status in (401, 403):
            message = f"{self.place} rejects the request (HTTP {status}); HF_TOKEN was not sent over plain HTTP"
            hint = "Set HF_ENDPOINT to an https address, or reach the hub through a tunnel on a loopback address."
            return FetchError(message, hint=hint, details=details)
        if isinstance(error, GatedRepoError):
            hint = f"Accept the licence at {self.place} and set HF_TOKEN to a token of that account."
            return FetchError(f"{self.place} is gated", hint=hint, details=details)
        if status in (401, 403):
            hint = "HF_TOKEN is not accepted." if self._token else "Set HF_TOKEN to a token that may read the model."
            return FetchError(f"{self.place} rejects the request (HTTP {status})", hint=hint, details=details)
        reason = f"HTTP {status}" if status else said(error)
        return FetchError(f"{self.place} could not be fetched: {reason}", hint=AGAIN, details=details)

    def _private(self) -> str:
        if self._withheld:
            return ", or it is private and HF_TOKEN was not sent"
        return "" if self._token else ", or it is private and HF_TOKEN is not set"

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
        for attempt in range(1, TRIES + 1):
            try:
                return aside(call, self._stop, "hf-hub-request")
            except network_errors() as error:
                if not is_transient(error):
                    raise
                _LOG.warning("%s: %s", self.place, said(error))
                if attempt == TRIES:
                    raise self.explained(error) from None
            self.pause(attempt, self._stop)
        raise AssertionError("unreachable")

    def _not_a_hub(self, why: str) -> FetchError:
        return FetchError(
            f"{self.endpoint} does not behave like a hub: {_first_line(why)}",
            hint="Check HF_ENDPOINT, and whether a login page of the network answers in its place.",
        )


def network_errors() -> tuple[type[Exception], ...]:
    """What requests raise. HfHubHTTPError is an OSError too."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    return (httpx2.HTTPError, HfHubHTTPError)


def is_transient(error: Exception) -> bool:
    """Whether another try is worth it: the network, and statuses 408, 429 and 5xx."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    return isinstance(error, httpx2.TransportError) and not isinstance(error, httpx2.UnsupportedProtocol)


def said(error: Exception) -> str:
    """The first line of an error, without queries: a download is redirected to an address whose query is the right to
    read it."""
    return re.sub(r"\?[^\s'\"]+", "?…", f"{type(error).__name__}: {_first_line(str(error))}")


def _first_line(text: str) -> str:
    lines = redacted(text).strip().splitlines()
    return lines[0][:300] if lines else "no reason given"


def _checked(endpoint: str) -> str:
    try:
        url = urlsplit(endpoint)
        valid = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise InvalidError(f"HF_ENDPOINT must be a URL, not {endpoint!r}", hint="As in https://hub.example.org")
    refuse_password(endpoint, "HF_ENDPOINT")
    return endpoint


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
