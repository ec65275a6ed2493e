"""Calls of commands to a server: over the unix socket of this data directory, or to a URL with a key."""

import contextlib
import errno
import json as json_codec
import os
import select
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx2

from garrison.base.errors import (
    ConflictError,
    DeniedError,
    GarrisonError,
    InternalError,
    InvalidError,
    NotFoundError,
    NotReadyError,
    UnreachableError,
    all_errors,
)
from garrison.base.settings import Settings

__all__ = ["Answer", "ServerClient", "error_of", "part"]

_SOCKET_NAME = "server.sock"
_CONNECT_SECONDS = 5.0
_CALL_SECONDS = 600.0
_SILENT_SECONDS = 60.0  # of a stream; the server sends a ping every 15 s
_MOST_BYTES = 64 * 2**20
_MOST_LINE = 4 * 2**20
_LONGEST_SOCKET_PATH = 100
_BY_STATUS: dict[int, type[GarrisonError]] = {
    401: DeniedError, 403: DeniedError, 404: NotFoundError, 409: ConflictError, 412: ConflictError, 503: NotReadyError,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered to a call that succeeded.

    Attributes:
        body: the JSON, the text where it is none, or None where there is no content.
        headers: with names in lower case.
    """

    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


class ServerClient:
    """One server.

    Args:
        settings: `server_url` and `server_key`, or the data directory.

    Attributes:
        place: where it is, for messages.
        local: it is the server of this data directory.

    Raises:
        InvalidError: `server_url` is no address.
    """

    def __init__(self, settings: Settings) -> None:
        transport = None
        headers = {}
        self._directory: int | None = None
        self._socket: str | None = None
        self.local = settings.server_url is None
        if settings.server_url is not None:
            self.place = base = _checked(settings.server_url)
        else:
            path = settings.data_dir / _SOCKET_NAME
            self.place = str(path)
            base = "http://localhost"
            self._socket = self._short(path)
            transport = httpx2.HTTPTransport(uds=self._socket)
        if settings.server_key is not None:
            headers["Authorization"] = f"Bearer {settings.server_key}"
        timeout = httpx2.Timeout(_CALL_SECONDS, connect=_CONNECT_SECONDS)
        self._client = httpx2.Client(
            base_url=base, transport=transport, headers=headers, timeout=timeout, trust_env=not self.local
        )

    @classmethod
    def of_this_machine(cls, settings: Settings) -> Self:
        """The server of the data directory, whatever `server_url` says."""
        return cls(replace(settings, server_url=None, server_key=None))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        if self._directory is not None:
            os.close(self._directory)

    def answers(self) -> bool:
        """Whether a server is there."""
        return self._succeeds("/healthz")

    def is_ready(self) -> bool:
        """Whether a server is there and has started."""
        return self._succeeds("/readyz")

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        timeout: float = _CALL_SECONDS,
    ) -> Any:
        """Make a call and return its JSON, or its text where it is none.

        Args:
            path: below `/api/v1`.

        Raises:
            UnreachableError: no server answers.
            GarrisonError: what the server says, as the error of the same code.
        """
        return self.exchange(method, path, body=body, params=params, timeout=timeout).body

    def exchange(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = _CALL_SECONDS,
    ) -> Answer:
        """As `call`, with the headers of both directions."""
        with self._translated():
            self._look()
            request = self._client.build_request(
                method,
                f"/api/v1{path}",
                json=body,
                params=params,
                headers=headers,
                timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
            )
            answer = self._client.send(request, stream=True)
            try:
                content = self._read(answer, timeout)
            finally:
                answer.close()
        kind = answer.headers.get("content-type", "").partition(";")[0].strip()
        if not answer.is_success:
            raise self._refusal(answer.status_code, kind, content)
        return Answer(self._decoded(kind, content), {name.lower(): value for name, value in answer.headers.items()})

    def events(self, path: str, *, params: Mapping[str, Any] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield kind and data of the events of a stream, until the server ends it.

        Raises:
            BrokenPipeError: nobody reads standard output any more. Noticed within seconds, also while there is no
                event to print, so that `… | head -1` ends.
            UnreachableError: the server ended in the middle, or was silent for a minute.
        """
        timeout = httpx2.Timeout(_SILENT_SECONDS, connect=_CONNECT_SECONDS)
        with self._translated(), contextlib.ExitStack() as stack:
            self._look()
            answer = stack.enter_context(self._client.stream("GET", f"/api/v1{path}", params=params, timeout=timeout))
            kind = answer.headers.get("content-type", "").partition(";")[0].strip()
            if not answer.is_success or kind != "text/event-stream":
                raise self._refusal(answer.status_code, kind, self._read(answer, _CONNECT_SECONDS))
            yield from self._parsed(answer.iter_bytes())

    def _parsed(self, pieces: Iterator[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
        kind, rest = "", b""
        for piece in pieces:
            _check_reader()
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > _MOST_LINE:
                raise self._stranger(f"it sent a line of more than {_MOST_LINE} bytes")
            for line in lines:
                name, _, value = line.decode("utf-8", "replace").partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    yield kind, self._json(value.encode())

    def _succeeds(self, path: str) -> bool:
        try:
            self._look()
            with self._client.stream("GET", path, timeout=_CONNECT_SECONDS) as answer:
                return answer.is_success
        except (httpx2.HTTPError, OSError):
            return False

    def _look(self) -> None:
        """See that somebody listens on the socket: httpx2 leaves its own open when nobody does. Raises OSError."""
        if self._socket is not None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(_CONNECT_SECONDS)
                probe.connect(self._socket)

    def _read(self, answer: httpx2.Response, seconds: float) -> bytes:
        found = bytearray()
        end = time.monotonic() + seconds
        for piece in answer.iter_bytes():
            found += piece
            if len(found) > _MOST_BYTES:
                raise self._stranger(f"its answer has more than {_MOST_BYTES} bytes")
            if time.monotonic() > end:
                raise UnreachableError(f"the server at {self.place} did not finish its answer in {seconds:g} s")
        return bytes(found)

    def _decoded(self, kind: str, content: bytes) -> Any:
        if not content:
            return None
        if kind == "application/json":
            return self._json(content)
        if kind == "text/plain":
            return content.decode("utf-8", "replace")
        raise self._stranger(f"it answers with {kind or 'no content type'}")

    def _json(self, content: bytes) -> Any:
        try:
            return json_codec.loads(content)
        except (ValueError, RecursionError):
            raise self._stranger("it answers with something that is no JSON") from None

    def _refusal(self, status: int, kind: str, content: bytes) -> GarrisonError:
        if kind != "application/json":
            return self._stranger(f"it answers {status} with {kind or 'no content type'}")
        body = self._json(content)
        if not isinstance(body, dict) or not isinstance(body.get("details"), str):
            return self._stranger(f"it answers {status} in another form")
        fallback = _BY_STATUS.get(status, InvalidError if status < 500 else InternalError)
        return error_of(body.get("error"), body["details"], body, fallback)

    def _stranger(self, why: str) -> UnreachableError:
        return UnreachableError(f"{self.place} is no Garrison server: {why}", hint="Check the address.")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except _ReaderGoneError:
            raise
        except (httpx2.HTTPError, OSError) as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> GarrisonError:
        if isinstance(error, httpx2.RemoteProtocolError | httpx2.ReadError):
            return UnreachableError(
                f"the server at {self.place} ended in the middle of an answer",
                hint="`garrison up` starts it again; its instances go on serving.",
            )
        if isinstance(error, httpx2.ReadTimeout):
            return UnreachableError(f"the server at {self.place} does not answer", hint="Its log says what it does.")
        if self.local and self._is_closed_to_us():
            return DeniedError(
                f"the server's socket {self.place} is not open to this user",
                hint="Use its port with --server URL and a key, or become the owner of the data directory.",
            )
        if self.local:
            return UnreachableError(
                f"no server runs on this data directory ({self.place})",
                hint="`garrison up` starts one; `--server URL` or GARRISON_SERVER_URL names another.",
            )
        return UnreachableError(f"{self.place} does not answer: {error}", hint="Check the address and the server.")

    def _is_closed_to_us(self) -> bool:
        """Whether this user may not even ask if a server runs here."""
        try:
            return stat.S_ISSOCK(Path(self.place).stat().st_mode) and not os.access(self.place, os.W_OK)
        except PermissionError:
            return True
        except OSError:
            return False

    def _short(self, path: Path) -> str:
        """A name of the socket that fits into its address."""
        if len(os.fsencode(path)) < _LONGEST_SOCKET_PATH:
            return str(path)
        try:
            self._directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return "/dev/null/none"  # nothing is there, which the call will say
        return f"/proc/self/fd/{self._directory}/{path.name}"


class _ReaderGoneError(BrokenPipeError):
    """Nobody reads standard output any more."""


def _check_reader() -> None:
    """Raise BrokenPipeError where the reader of standard output has left, without writing anything."""
    poll = select.poll()
    poll.register(1, 0)  # errors are reported whatever is asked for
    if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        raise _ReaderGoneError(errno.EPIPE, os.strerror(errno.EPIPE))


def part(name: str) -> str:
    """A name as one element of a path. Raises InvalidError: nothing can have that name."""
    if name in ("", ".", "..") or "/" in name:
        raise InvalidError(f"invalid name {name!r}", hint="A name has at least one character, and no slash.")
    return quote(name, safe="")


def error_of(
    code: object, message: str, body: Mapping[str, Any], fallback: type[GarrisonError] = InternalError
) -> GarrisonError:
    """The error that a server reports, with the other fields of `body` as its details."""
    cls = next((one for one in all_errors() if one.code == code), fallback)
    named = ("error", "code", "details", "hint", "ok", "exit_code")
    hint = body.get("hint")
    facts = {name: value for name, value in body.items() if name not in named}
    return cls(message, hint=hint if isinstance(hint, str) else None, details=facts)


def _checked(url: str) -> str:
    if (port := url.removeprefix(":")).isdecimal():  # of this machine, as `smoke` and `wait` read it
        url = f"http://127.0.0.1:{port}"
    try:
        found = urlsplit(url)
        usable = found.scheme in ("http", "https") and bool(found.hostname) and (found.port is None or found.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise InvalidError(f"{url!r} is no address of a server", hint="For example http://10.0.0.5:8080")
    return url.rstrip("/")
