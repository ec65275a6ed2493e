"""What the operating system and OpenSSL say about a connection, as a cause and a safe sentence. Pure."""

import errno
import os
import socket
import ssl

from garrison.fleet.observation import Cause
from garrison.fleet.transport import TransportError

__all__ = ["transport_error"]

_CAUSES = {
    errno.ECONNREFUSED: Cause.REFUSED,
    # The network said no at once: nothing was lost on its way. The words of the detail tell the difference.
    errno.EHOSTUNREACH: Cause.REFUSED,
    errno.ENETUNREACH: Cause.REFUSED,
    errno.EHOSTDOWN: Cause.REFUSED,
    errno.ETIMEDOUT: Cause.TIMEOUT,
    errno.ECONNRESET: Cause.RESET,
    errno.ECONNABORTED: Cause.RESET,
    errno.EPIPE: Cause.RESET,
    errno.ENOTCONN: Cause.RESET,
}


def transport_error(error: OSError, *, sent: bool) -> TransportError:
    """`error` came from connecting or from a connection. What is not known to be the target's or the network's doing
    (no descriptors, no ports, no permission) is ours: `local`."""
    if isinstance(error, ssl.SSLError):
        return TransportError(Cause.TLS, _tls_detail(error), sent=sent)
    if isinstance(error, socket.gaierror):
        return TransportError(Cause.DNS, f"the name does not resolve: {error.strerror or 'no answer'}", sent=sent)
    if isinstance(error, TimeoutError):
        return TransportError(Cause.TIMEOUT, "the connection timed out", sent=sent)
    if isinstance(error, ConnectionError) and error.errno is None:
        return TransportError(Cause.RESET, "the connection was closed", sent=sent)
    number = error.errno or 0
    words = os.strerror(number).lower() if number else "the connection failed"
    return TransportError(_CAUSES.get(number, Cause.LOCAL), words, sent=sent)


def _tls_detail(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {error.verify_message}"
    reason = getattr(error, "reason", None) or "handshake failed"  # asyncio makes some without one
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return "the server does not speak TLS here; declare it as http"
    return f"TLS: {reason.lower().replace('_', ' ')}"
