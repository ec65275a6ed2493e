"""Judges whether an answer to `GET /v1/models` can be believed. Pure.

Only one answer is believed: status 200 and a well-formed vLLM model list that contains the expected base model as a
base model. Any other answer proves nothing about any adapter:

    answer                                                          cause
    another 2xx, not JSON, cut off, another shape, an empty list    malformed
    HTML; a redirect; 404 and similar; entries not made by vLLM     not-vllm
    a list without the expected base, or with several candidates    wrong-base
    401                                                             unauthorized
    403                                                             forbidden
    408, 429, 5xx                                                   server-error

An adapter whose name cannot be stored, or is longer than 500 characters, is left out: no manifest can declare it, and
the rest of the list is as good as before.

An adapter whose `parent` is not in the list does not invalidate the list: older vLLM versions produce such entries on
request, and the parent is compared with the declaration wherever it matters.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from garrison.base.redaction import excerpt
from garrison.fleet.values.observation import Cause, Served
from garrison.net.transport import Answer

__all__ = ["LONGEST_RETRY_AFTER", "Verdict", "judge", "retry_after"]

LONGEST_RETRY_AFTER = 3600.0
"""In seconds: the upper bound of what a server can ask Garrison to wait."""

_NOTHING: Mapping[str, Served] = MappingProxyType({})
_SHOWN_CHARACTERS = 120
_SHOWN_NAMES = 3
_LONGEST_NAME = 500
"""In characters: adapters with longer names are left out. A database may not be able to index them."""
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of judging an answer.

    `cause` is None if the list is believed; then `served` and `base` are set. `detail` is safe to display.
    """

    cause: Cause | None = None
    detail: str = ""
    served: Mapping[str, Served] = field(default_factory=dict)
    base: str | None = None
    retry_after: float | None = None


def judge(answer: Answer, expected: str | None, now: datetime, before: Mapping[str, Served] = _NOTHING) -> Verdict:
    """Judge `answer`.

    Args:
        expected: the base model that the list must contain. None: accept the list's only base model, by its first name;
            several names of one base model share their `root`.
        now: the current time, for `Retry-After` dates.
        before: the list of the previous observation. If nothing has changed, this object itself is returned, so that
            an idle fleet allocates no memory.
    """
    if answer.status != 200:
        return _refused(answer, now)
    try:
        body = json.loads(answer.body.decode())  # given bytes, loads would accept other encodings and lone surrogates
    except (ValueError, RecursionError):
        return _not_json(answer)
    entries = body.get("data") if isinstance(body, dict) and body.get("object", "list") == "list" else None
    if not isinstance(entries, list):
        return _malformed("the answer is JSON, but not a model list")
    if not entries:
        return _malformed("the model list is empty")
    served = _served(entries, before, odd=b"\\u" in answer.body)
    return served if isinstance(served, Verdict) else _by_base(served, expected)


def retry_after(answer: Answer, now: datetime) -> float | None:
    """Return the seconds in `Retry-After`, in either form of the header; None without a valid one."""
    value = answer.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return min(float(value), LONGEST_RETRY_AFTER)
    try:
        at = parsedate_to_datetime(value)
        seconds = (at - now).total_seconds() if at.tzinfo else (at - now.replace(tzinfo=None)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def _by_base(served: Mapping[str, Served], expected: str | None) -> Verdict:
    bases = [one for one in served.values() if one.parent is None]
    if expected is not None:
        found = served.get(expected)
        if found is not None and found.parent is None:
            return Verdict(served=served, base=expected)
        there = _names([one.name for one in bases])
        detail = f"{expected!r} is an adapter there" if found is not None else f"it serves {there}, not {expected!r}"
        return Verdict(cause=Cause.WRONG_BASE, detail=detail)
    if not bases:
        return Verdict(cause=Cause.WRONG_BASE, detail="the model list contains no base model")
    if len({one.root for one in bases}) > 1:
        detail = f"it serves several base models ({_names([one.name for one in bases])}); declare base_model"
        return Verdict(cause=Cause.WRONG_BASE, detail=detail)
    return Verdict(served=served, base=bases[0].name)


def _served(entries: list[Any], before: Mapping[str, Served], *, odd: bool) -> Mapping[str, Served] | Verdict:
    """Validate the entries of a model list.

    Args:
        odd: the body has `\\u` escapes, so names may contain characters that cannot be stored. Checking every name of
            every list would cost more than the rest of this function.
    """
    served: dict[str, Served] = {}
    same = True
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(name := entry.get("id"), str) or not name:
            return _malformed("an entry in the model list has no id")
        if "root" not in entry or "parent" not in entry or entry.get("owned_by", "vllm") != "vllm":
            return Verdict(cause=Cause.NOT_VLLM, detail=_stranger(entry))
        root, parent = entry["root"], entry["parent"]
        if not (root is None or isinstance(root, str)) or not (parent is None or (isinstance(parent, str) and parent)):
            return _malformed(f"entry {_quoted(name)} in the model list has a root or parent that is not text")
        if parent is not None and (len(name) > _LONGEST_NAME or (odd and _UNSTORABLE.search(name))):
            continue  # nobody can declare it
        if odd:
            root, parent = _storable(root), _storable(parent)
        known = before.get(name)
        if known is None or known.root != root or known.parent != parent:
            known = Served(name, root, parent)
            same = False
        if served.setdefault(name, known) != known:
            return _malformed(f"duplicate entry {_quoted(name)} in the model list")
    return before if same and len(served) == len(before) else served


def _refused(answer: Answer, now: datetime) -> Verdict:
    status = answer.status
    if status == 401:
        return Verdict(cause=Cause.UNAUTHORIZED, detail="401: the API key is missing or wrong")
    if status == 403:
        return Verdict(cause=Cause.FORBIDDEN, detail="403: the API key or the client's address is not allowed")
    if status >= 500 or status in (408, 429):
        return Verdict(
            cause=Cause.SERVER_ERROR, detail=f"the server answered {status}", retry_after=retry_after(answer, now)
        )
    if 300 <= status < 400:
        where = _origin(answer.headers.get("location", ""))
        return Verdict(cause=Cause.NOT_VLLM, detail=f"{status}: it redirects to {where}; redirects are not followed")
    if status < 300:
        return _malformed(f"the server answered {status} to a request for its models")
    return Verdict(
        cause=Cause.NOT_VLLM, detail=f"{status} at /v1/models: not a vLLM server, or a wrong path in base_url"
    )


def _not_json(answer: Answer) -> Verdict:
    html = "html" in answer.headers.get("content-type", "").lower() or answer.body.lstrip()[:1] == b"<"
    if html:
        return Verdict(cause=Cause.NOT_VLLM, detail="the answer is a web page, perhaps from a portal or a proxy")
    return _malformed("the answer is truncated, or not JSON")


def _malformed(detail: str) -> Verdict:
    return Verdict(cause=Cause.MALFORMED, detail=detail)


def _stranger(entry: Mapping[str, Any]) -> str:
    owner = entry.get("owned_by")
    by = f", owned by {_quoted(owner)}" if isinstance(owner, str) else ""
    return f"the model list is not from vLLM: {_quoted(str(entry['id']))}{by}"


def _origin(location: str) -> str:
    """Return scheme, host and port of a redirect; the rest of the location may contain a secret."""
    try:
        parts = urlsplit(location)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "somewhere"
    return _quoted(f"{parts.scheme}://{parts.hostname}{port}") if parts.hostname else "another path"


def _names(names: list[str]) -> str:
    if not names:
        return "no base model"
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(map(_quoted, names[:_SHOWN_NAMES])) + more


def _quoted(text: str) -> str:
    """Return text from a server as one short line without control characters."""
    return ascii(excerpt(text, _SHOWN_CHARACTERS) + ("..." if len(text) > _SHOWN_CHARACTERS else ""))


def _storable(text: str | None) -> str | None:
    """Return `text` with what no database stores written out: lone surrogates, and NUL for PostgreSQL."""
    return None if text is None else _UNSTORABLE.sub(lambda found: repr(found[0])[1:-1], text)
