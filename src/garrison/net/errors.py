"""The error of a request without a complete response, translated from those of the system and of OpenSSL. Pure."""

import errno
import os
import socket
import ssl
from enum import StrEnum

from garrison.base.redaction import redacted

__all__ = ["PLAIN_NOT_TLS", "TLS_NOT_PLAIN", "UNTRUSTED", "TransportCause", "TransportError", "transport_error"]

UNTRUSTED = "the certificate is not trusted"
"""How the detail of an unverified certificate begins; the reason follows."""
TLS_NOT_PLAIN = "the server speaks TLS here; declare it as https"
"""The detail when a TLS server answers a plain request."""
PLAIN_NOT_TLS = "the server does not speak TLS here; declare it as http"
"""The detail when a plain server answers a TLS handshake."""


class TransportCause(StrEnum):
    """Why a request got no complete response."""

    DNS = "dns"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    RESET = "reset"
    TLS = "tls"
    MALFORMED = "malformed"
    NOT_RUNNING = "not-running"
    """There is no address to connect to: whoever runs the server says that it does not run."""
    LOCAL = "local"
    """The fault is on this side: an unreadable secret or certificate file, no file descriptors left."""


class TransportError(Exception):
    """A request got no complete response.

    Attributes:
        cause: why.
        detail: the reason in words, safe to display.
        sent: whether any byte of the request was sent; if so, the server may have acted on it.
    """

    def __init__(self, cause: TransportCause, detail: str, *, sent: bool = False) -> None:
        detail = redacted(detail)  # libraries put what was sent into their messages
        super().__init__(detail)
        self.cause = cause
        self.detail = detail
        self.sent = sent


_CAUSES = {
    errno.ECONNREFUSED: TransportCause.REFUSED,
    # The network answered at once that there is no way. The detail tells these apart.
    errno.EHOSTUNREACH: TransportCause.REFUSED,
    errno.ENETUNREACH: TransportCause.REFUSED,
    errno.EHOSTDOWN: TransportCause.REFUSED,
    errno.ENOENT: TransportCause.REFUSED,  # the path of a unix socket that no process has bound
    errno.ETIMEDOUT: TransportCause.TIMEOUT,
    errno.ECONNRESET: TransportCause.RESET,
    errno.ECONNABORTED: TransportCause.RESET,
    errno.EPIPE: TransportCause.RESET,
    errno.ENOTCONN: TransportCause.RESET,
}


def transport_error(error: OSError, *, sent: bool) -> TransportError:
    """Translate an error from connecting or from a connection.

    Errors that are not known to come from the server or the network (no descriptors, ports or permission) are `local`.
    """
    if isinstance(error, ssl.SSLError):
        return TransportError(TransportCause.TLS, _tls_detail(error), sent=sent)
    if isinstance(error, socket.gaierror):
        detail = f"the name does not resolve: {error.strerror or 'no answer'}"
        return TransportError(TransportCause.DNS, detail, sent=sent)
    if isinstance(error, TimeoutError):
        return TransportError(TransportCause.TIMEOUT, "the connection timed out", sent=sent)
    if isinstance(error, ConnectionError) and error.errno is None:
        return TransportError(TransportCause.RESET, "the connection was closed", sent=sent)
    number = error.errno or 0
    words = os.strerror(number).lower() if number else "the connection failed"
    return TransportError(_CAUSES.get(number, TransportCause.LOCAL), words, sent=sent)


def _tls_detail(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{UNTRUSTED}: {error.verify_message}"
    reason = getattr(error, "reason", None) or "handshake failed"  # asyncio raises some without a reason
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return PLAIN_NOT_TLS
    return f"TLS: {reason.lower().replace('_', ' ')}"
