"""Trust in the gateway's own certificate, whatever names are in it: the gateway is reached by a loopback address."""

import ssl
from pathlib import Path

from garrison.net.endpoint import Tls
from garrison.net.threads import SharedCalls
from garrison.net.tls import TlsContexts, TlsFileError

__all__ = ["OwnCertificate"]

_END = "-----END CERTIFICATE-----"
_BEGIN = "-----BEGIN CERTIFICATE-----"
_MOST_BYTES = 1024 * 1024


class OwnCertificate(TlsContexts):
    """The TLS context for one certificate: whoever holds its key is the gateway.

    A file that was renewed is read again. The certificate of before stays trusted, since a gateway that goes on still
    has it.

    Args:
        path: the certificate chain of the gateway, in PEM.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        self._read: str | None = None
        self._files: SharedCalls[Path, None] = SharedCalls("certificate")

    async def load(self, tls: Tls) -> ssl.SSLContext:
        """As `TlsContexts.load`."""
        await self._files.call(self._path, self._refresh)
        return self._context

    def _refresh(self) -> None:
        try:
            with self._path.open("rb") as file:
                text = file.read(_MOST_BYTES).decode("ascii", "replace")
            if text != self._read:
                self._context.load_verify_locations(cadata=_first(text))
                self._read = text
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            raise TlsFileError(f"the gateway's certificate {self._path}: {error}") from None


def _first(text: str) -> str:
    """The first certificate of a chain, which is the gateway's own."""
    begin, end = text.find(_BEGIN), text.find(_END)
    if begin < 0 or end < begin:
        raise ValueError("no PEM certificate")
    return text[begin : end + len(_END)] + "\n"
