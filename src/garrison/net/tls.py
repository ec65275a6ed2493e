"""TLS contexts: one per declaration, rebuilt when one of its files changes."""

import ssl
from pathlib import Path

from garrison.net.endpoint import Tls
from garrison.net.threads import SharedCalls

__all__ = ["TlsContexts", "TlsFileError"]

_Stamp = tuple[tuple[int, int, int] | None, ...]


class TlsFileError(Exception):
    """A CA, certificate or key that cannot be used. The message names the field and the file, never its content."""


class TlsContexts:
    """Contexts by declaration. A new one costs milliseconds, so they are shared."""

    def __init__(self) -> None:
        self._made: dict[Tls, tuple[_Stamp, ssl.SSLContext]] = {}
        self._reading: SharedCalls[Tls, ssl.SSLContext] = SharedCalls("tls-files")

    async def load(self, tls: Tls) -> ssl.SSLContext:
        """Return the context of `tls` without blocking the event loop on a disk. The caller sets the deadline.

        Raises:
            TlsFileError: a file is missing or invalid.
            OSError: no thread can be started.
        """
        made = self._made.get(tls)
        if made is not None and tls.ca is tls.cert is tls.key is None:
            return made[1]
        return await self._reading.call(tls, lambda: self.get(tls))

    def get(self, tls: Tls) -> ssl.SSLContext:
        """Return the context of `tls`. A declared CA replaces those of the system.

        Raises:
            TlsFileError: a file is missing or invalid.
        """
        stamp = tuple(_stamp(path) for path in (tls.ca, tls.cert, tls.key))
        made = self._made.get(tls)
        if made is None or made[0] != stamp:
            made = self._made[tls] = (stamp, _context(tls))
        return made[1]


def _context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except (OSError, ssl.SSLError) as error:
        raise TlsFileError(f"tls.ca: {tls.ca}: {_words(error, 'no PEM certificates')}") from None
    if tls.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert is not None:
        try:
            # Without a password here, OpenSSL would ask for that of an encrypted key at the terminal.
            context.load_cert_chain(tls.cert, tls.key, password=lambda: "")
        except (OSError, ssl.SSLError) as error:
            where = tls.cert if tls.key is None else f"{tls.cert}, {tls.key}"
            raise TlsFileError(f"tls.cert: {where}: {_words(error, 'not a matching PEM pair')}") from None
    context.set_alpn_protocols(["http/1.1"])
    return context


def _words(error: OSError, otherwise: str) -> str:
    return otherwise if isinstance(error, ssl.SSLError) else (error.strerror or "cannot be read").lower()


def _stamp(path: str | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
