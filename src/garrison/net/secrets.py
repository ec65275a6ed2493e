"""Reads referenced secrets. This is the only place where a reference becomes text, at the moment it is needed."""

import asyncio
import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from garrison.base.children import DIRECTORY, child_environment
from garrison.base.redaction import SecretValueError, secret_text
from garrison.net.child_process import end_group
from garrison.net.endpoint import Secret
from garrison.net.threads import SharedCalls

__all__ = ["SecretError", "Secrets"]

_KEPT_SECONDS = 60.0
_FAILURE_KEPT_SECONDS = 10.0
_DOUBTED_SECONDS = 5.0
_LIMIT_BYTES = 64 * 1024
_OURS = ("GARRISON_", "VLLM_")


class SecretError(Exception):
    """A secret cannot be read. The message names the reference and the reason; for a command, only the program."""


@dataclass(frozen=True, slots=True)
class _Kept:
    at: float
    text: str | None = field(repr=False)
    error: str = ""


class Secrets:
    """Reads secrets. The result of a file or a command is cached for a minute, since many targets may share one.

    Args:
        environ: holds the variables; a command gets it without `GARRISON_*` and `VLLM_*`.
        seconds: time limit for a command, and for reading a file, which may be on a disk that hangs.
        monotonic: seconds from an arbitrary start.
    """

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        seconds: float = 10.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._seconds = seconds
        self._monotonic = monotonic
        self._kept: dict[Secret, _Kept] = {}
        self._turns: dict[Secret, asyncio.Lock] = {}
        self._files: SharedCalls[str, bytes] = SharedCalls("secret-file")

    async def text(self, secret: Secret) -> str:
        """Return the secret.

        Raises:
            SecretError: it cannot be read, is empty, or contains a line break or a control character.
        """
        if secret.kind == "env":
            return _usable(self._variable(str(secret.value)), f"the variable {secret.value}")
        async with self._turns.setdefault(secret, asyncio.Lock()):
            kept = self._kept.get(secret)
            age = _KEPT_SECONDS if kept is None or kept.text is not None else _FAILURE_KEPT_SECONDS
            if kept is None or self._monotonic() - kept.at >= age:
                kept = self._kept[secret] = await self._read(secret)
        if kept.text is None:
            raise SecretError(kept.error)
        return kept.text

    def doubt(self, secret: Secret) -> None:
        """Note that a server refused the secret: it is read again at its next use, unless it was read moments ago."""
        kept = self._kept.get(secret)
        if kept is not None and self._monotonic() - kept.at >= _DOUBTED_SECONDS:
            del self._kept[secret]

    def _variable(self, name: str) -> str:
        try:
            return self._environ[name]
        except KeyError:
            raise SecretError(f"the variable {name} is not set") from None

    async def _read(self, secret: Secret) -> _Kept:
        try:
            if isinstance(secret.value, tuple):
                raw = await self._run(secret.value)
                what = f"the output of {_program(secret.value)}"
            else:
                raw = await self._read_file(secret.value)
                what = f"the file {secret.value}"
            return _Kept(self._monotonic(), _usable(_text(raw, what), what))
        except SecretError as error:
            return _Kept(self._monotonic(), None, str(error))

    async def _read_file(self, path: str) -> bytes:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._files.call(path, lambda: _file(path))
        except TimeoutError:
            raise SecretError(f"{path} could not be read within {self._seconds:g} s") from None
        except OSError as error:
            raise SecretError(f"{path} cannot be read: {(error.strerror or 'failed').lower()}") from None

    async def _run(self, argv: tuple[str, ...]) -> bytes:
        program = _program(argv)
        environ = child_environment(self._environ, without=_OURS)
        pipe, none = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        try:
            child = await asyncio.create_subprocess_exec(
                *argv, stdin=none, stdout=pipe, stderr=none, env=environ, cwd=DIRECTORY, start_new_session=True
            )
        except OSError as error:
            raise SecretError(f"{program} cannot be run: {(error.strerror or 'failed').lower()}") from None
        try:
            async with asyncio.timeout(self._seconds):
                assert child.stdout is not None
                raw = await _at_most(child.stdout, _LIMIT_BYTES + 1)
                if len(raw) > _LIMIT_BYTES:
                    raise SecretError(f"the output of {program} is larger than {_LIMIT_BYTES} bytes")
                status = await child.wait()
        except TimeoutError:
            raise SecretError(f"{program} did not end within {self._seconds:g} s") from None
        finally:
            await end_group(child)
        if status:
            raise SecretError(f"{program} ended with status {status}")
        return raw


def _program(argv: tuple[str, ...]) -> str:
    """Return the name of the program; the other arguments may contain secrets."""
    return Path(argv[0]).name


async def _at_most(stream: asyncio.StreamReader, limit: int) -> bytes:
    pieces = b""
    while len(pieces) < limit and (piece := await stream.read(limit - len(pieces))):
        pieces += piece
    return pieces


def _file(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # opening a pipe would wait for a writer
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise SecretError(f"{path} is not a file")
            raw = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise SecretError(f"{path} cannot be read: {(error.strerror or 'failed').lower()}") from None
    if len(raw) > _LIMIT_BYTES:
        raise SecretError(f"the file {path} is larger than {_LIMIT_BYTES} bytes")
    return raw


def _text(raw: bytes, what: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise SecretError(f"{what} is not text") from None


def _usable(text: str, what: str) -> str:
    """Strip the white space that editors and `echo` leave at the ends; from now on the text is redacted."""
    try:
        return secret_text(text)
    except SecretValueError as error:
        raise SecretError(f"{what} {error}") from None
