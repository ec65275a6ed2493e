"""What requests to a hub raise, and what is said of it. No exception of a library leaves this room as it is."""

import re
from datetime import datetime
from functools import cache

from garrison.base.redaction import redacted
from garrison.models.sources.retries import asked_wait

__all__ = ["cause_of", "first_line", "is_transient", "network_errors", "said", "setup_errors", "wait_asked_by"]


@cache
def network_errors() -> tuple[type[Exception], ...]:
    """What requests raise: everything that huggingface_hub and httpx2 declare. Some of it is an OSError too."""
    import httpx2
    from huggingface_hub import errors

    declared = (found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, Exception))
    return (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, httpx2.CookieConflict, *declared)


def setup_errors() -> tuple[type[Exception], ...]:
    """What libraries raise before any request: a proxy of an unknown kind, or one that needs a library which is not
    here; certificates or a token that cannot be read."""
    return (OSError, ImportError, ValueError)


def is_transient(error: Exception) -> bool:
    """Whether another try is worth it: the network, and statuses 408, 429 and 5xx."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    return isinstance(error, httpx2.TransportError) and not isinstance(error, httpx2.UnsupportedProtocol)


def wait_asked_by(error: Exception, now: datetime) -> float | None:
    """Seconds that the response behind a transient error asks to wait."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError) and error.response.status_code in (429, 503):
        return asked_wait(error.response.headers, now)
    return None


def cause_of(error: Exception) -> str:
    """Why a request failed, in few words: the status of the answer, or the error where there was none."""
    from huggingface_hub.errors import HfHubHTTPError

    return f"HTTP {error.response.status_code}" if isinstance(error, HfHubHTTPError) else said(error)


def said(error: Exception) -> str:
    """The first line of an error, without queries: a download is redirected to an address whose query is the right to
    read it."""
    return re.sub(r"\?[^\s'\"]+", "?…", f"{type(error).__name__}: {first_line(str(error))}")


def first_line(text: str) -> str:
    lines = redacted(text).strip().splitlines()
    return lines[0][:300] if lines else "no reason given"
