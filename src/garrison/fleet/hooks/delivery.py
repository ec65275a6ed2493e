"""Delivers one event to one hook: a POST over the transport for targets, or a command that reads it from stdin."""

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from garrison.base.children import DIRECTORY, child_environment
from garrison.base.clock import Clock, SystemClock
from garrison.fleet.values.declaration import Hook
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.target import TargetSpec
from garrison.fleet.vllm.answers import transport_failure
from garrison.fleet.vllm.model_list import retry_after
from garrison.net.child_process import end_group
from garrison.net.endpoint import Secret
from garrison.net.secrets import SecretError, Secrets
from garrison.net.transport import Answer, Dialer, TransportError

__all__ = ["HookDelivery", "shown"]

_OURS = ("GARRISON_", "VLLM_")
_ANSWER_BYTES = 64 * 1024


class HookDelivery:
    """Delivery to real endpoints and commands.

    Args:
        dialer: opens connections, verified like those to targets; redirects are not followed.
        secrets: resolves URLs that are references.
        seconds: deadline of one delivery.
        environ: environment of commands, which get it without `GARRISON_*` and `VLLM_*`.
    """

    def __init__(
        self,
        dialer: Dialer[TargetSpec],
        secrets: Secrets,
        *,
        seconds: float = 10.0,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._dialer = dialer
        self._secrets = secrets
        self._seconds = seconds
        self._environ = os.environ if environ is None else environ
        self._clock = clock or SystemClock()

    async def deliver(self, hook: Hook, body: Mapping[str, Any]) -> Failure | None:
        return await self._run(hook.command, body) if hook.command else await self._post(hook, body)

    async def _post(self, hook: Hook, body: Mapping[str, Any]) -> Failure | None:
        try:
            url = await self._secrets.text(hook.url) if isinstance(hook.url, Secret) else hook.url or ""
        except SecretError as error:
            return _permanent(str(error))
        place = _split(url)
        if place is None:
            return _permanent("its url is not an http or https URL, or contains credentials; put those into headers")
        origin, path = place
        target = TargetSpec(name="hook", base_url=origin, headers=hook.headers, timeout=self._seconds)
        try:
            async with self._dialer.open(target) as connection:
                answer = await connection.request(
                    "POST", path, json=dict(body), timeout=self._seconds, limit=_ANSWER_BYTES
                )
        except TransportError as error:
            return transport_failure(error)
        return self._refused(answer)

    def _refused(self, answer: Answer) -> Failure | None:
        status = answer.status
        if 200 <= status < 300:
            return None
        if status in (408, 429) or status >= 500:
            code = FailureCode.THROTTLING if status == 429 else FailureCode.SERVICE_INTERNAL_ERROR
            asked = retry_after(answer, self._clock.now())
            return Failure(code=code, message=f"HTTP {status}", recoverable=True, retry_after=asked)
        return _permanent(f"HTTP {status}")

    async def _run(self, argv: tuple[str, ...], body: Mapping[str, Any]) -> Failure | None:
        environ = child_environment(self._environ, without=_OURS)
        nothing = asyncio.subprocess.DEVNULL
        try:
            child = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=nothing,
                stderr=nothing,
                env=environ,
                cwd=DIRECTORY,
                start_new_session=True,
            )
        except OSError as error:
            return _permanent(f"cannot run the command: {(error.strerror or 'failed').lower()}")
        try:
            async with asyncio.timeout(self._seconds):
                await child.communicate(json.dumps(body).encode() + b"\n")
        except TimeoutError:
            message = f"the command did not end within {self._seconds:g} s"
            return Failure(code=FailureCode.SERVICE_TIMEOUT, message=message, recoverable=True)
        finally:
            await end_group(child)  # on cancellation and deadline, too; the command may have started children
        if child.returncode:
            message = f"the command ended with status {child.returncode}"
            return Failure(code=FailureCode.SERVICE_INTERNAL_ERROR, message=message, recoverable=True)
        return None


def shown(hook: Hook) -> str:
    """Name a hook for display, without a URL's path and a command's arguments, which may be secrets."""
    if hook.command:
        return f"hook {Path(hook.command[0]).name}"
    if isinstance(hook.url, Secret):
        return f"hook with url from {hook.url.kind}"
    place = _split(hook.url or "")
    return f"hook {place[0]}" if place else "a hook"


def _split(url: str) -> tuple[str, str] | None:
    """Split a URL into origin and path with query; None if it is not a plain http or https URL."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{host}{port}", (parts.path or "/") + query


def _permanent(message: str) -> Failure:
    return Failure(code=FailureCode.INVALID_REQUEST, message=message)
