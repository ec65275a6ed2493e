"""Reading the settings again while the server runs. What changes is applied; what cannot be is named."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from garrison.base.errors import GarrisonError
from garrison.base.logs import logger
from garrison.base.settings import Settings
from garrison.net.thread_pool import ThreadPool

__all__ = ["Reload", "SettingsWatch", "differences"]

_POLL_SECONDS = 2.0
_AT_THE_START = frozenset(
    (
        "data_dir",
        "database_url",
        "gateway_ollama_host",
        "gateway_ollama_port",
        "gateway_traces",
        "instance_port_range",
        "log_format",
        "log_level",
        "management_keys",
        "max_body_mib",
        "node_name",
        "retention",
        "root_path",
        "server_host",
        "server_key",
        "server_port",
        "server_url",
        "tls_cert_file",
        "tls_key_file",
    )
)
"""Settings that a running server cannot change."""

_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Reload:
    """What another set of settings means for a running server.

    Attributes:
        applied: names that change now. Instances that run go on; those that start have the new values.
        later: names that need another start of the server.
    """

    applied: tuple[str, ...] = ()
    later: tuple[str, ...] = ()


def differences(old: Settings, new: Settings) -> Reload:
    """Return the names of the settings that differ."""
    names = [one.name for one in fields(Settings) if one.metadata and getattr(old, one.name) != getattr(new, one.name)]
    return Reload(
        applied=tuple(name for name in names if name not in _AT_THE_START),
        later=tuple(name for name in names if name in _AT_THE_START),
    )


class SettingsWatch:
    """Reads the settings again on `ask`, and when the config file changed.

    Args:
        path: of the config file.
        load: reads the settings; raises GarrisonError for a broken file.
        apply: given the new settings and what is new in them.
        failed: told why the settings in force stay.
    """

    def __init__(
        self,
        path: Path,
        load: Callable[[], Settings],
        current: Callable[[], Settings],
        apply: Callable[[Settings, Reload], None],
        failed: Callable[[GarrisonError], None],
        pool: ThreadPool,
    ) -> None:
        self._path, self._load, self._current = path, load, current
        self._apply, self._failed, self._pool = apply, failed, pool
        self._asked = asyncio.Event()
        self._seen: tuple[int, int, int] | None = None

    def ask(self) -> None:
        """Read them soon, whether the file changed or not."""
        self._asked.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        self._seen = await self._pool.run(self._stamp, "look at the config file")
        while True:
            try:
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._asked.wait()
            except TimeoutError:
                pass
            stamp = await self._pool.run(self._stamp, "look at the config file")
            if stamp == self._seen and not self._asked.is_set():
                continue
            self._seen = stamp
            self._asked.clear()
            await self._read()

    async def _read(self) -> None:
        try:
            fresh = await self._pool.run(self._load, "read the settings")
        except GarrisonError as error:
            _log.error("the settings in force stay", error=error.message)
            self._failed(error)
            return
        found = differences(self._current(), fresh)
        _log.info("settings were read again", applied=found.applied, need_a_restart=found.later)
        self._apply(fresh, found)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
