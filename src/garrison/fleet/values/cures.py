"""What to do about a target that could not be observed, by cause. No I/O."""

import re

from garrison.fleet.values.observation import Cause

__all__ = ["WHEN_SEEN", "WHEN_USABLE", "cure_of", "is_silent", "public_state", "when_due"]

WHEN_SEEN = "when the target is seen again"
WHEN_USABLE = "when the target answers as it should"

_SILENT = frozenset({Cause.DNS, Cause.REFUSED, Cause.TIMEOUT, Cause.RESET, Cause.NOT_RUNNING, Cause.NEVER_ASKED})

_CURES = {
    Cause.DNS: "Correct the host in the target's `base_url`, or the name server of this machine.",
    Cause.REFUSED: "Start the server, or correct the target's `base_url`.",
    Cause.TIMEOUT: "See whether the server works and the network leads there; if it is only slow, raise the target's "
    "`timeout`.",
    Cause.RESET: "See the log of the server, and of a proxy before it.",
    Cause.UNAUTHORIZED: "Give the target the server's key as its `api_key`, or correct what its variable, file or "
    "command yields.",
    Cause.FORBIDDEN: "The key lacks permission: give the target another `api_key`, or have the server's operator allow "
    "this machine's address.",
    Cause.WRONG_BASE: "If it should serve that model, declare it as the target's `base_model`. Otherwise correct "
    "`base_url`, or start the server with the declared model.",
    Cause.SERVER_ERROR: "See the log of the server, and of a proxy before it.",
    Cause.MALFORMED: "Correct the target's `base_url`: it must lead to vLLM, with /v1/models passed on unchanged.",
    Cause.NOT_VLLM: "Correct the target's `base_url`: it must lead to vLLM.",
    Cause.NO_LORA_ROUTES: "Start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment.",
}

_BY_DETAIL: dict[Cause, tuple[tuple[str, str], ...]] = {
    Cause.TLS: (
        (r"speaks TLS here", "Write the target's `base_url` with https."),
        (r"does not speak TLS", "Write the target's `base_url` with http."),
        (r"expired|not yet valid", "Renew the server's certificate, and check the clocks of both machines."),
        (
            r"[Hh]ostname|IP address mismatch",
            "Write the target's `base_url` with a name that is in the server's certificate.",
        ),
        (r"not trusted", "Name the certificate of the authority that signed the server's in the target's `tls.ca`."),
        (
            r"certificate required|bad certificate|unknown ca|handshake failure",
            "If the server asks for a client certificate, name one that it trusts in the target's `tls.cert` and "
            "`tls.key`.",
        ),
        (r"", "Check the target's `tls.ca`, `tls.cert` and `tls.key`, and the server's TLS."),
    ),
    Cause.NOT_VLLM: (
        (
            r"^3\d\d\b",
            "Set the target's `base_url` to vLLM itself: redirects are not followed, so that no key is sent elsewhere.",
        ),
        (
            r"^4\d\d\b",
            "Correct the target's `base_url`: it is the address before `/v1`, and a proxy must pass /v1/models.",
        ),
        (r"web page", "Log in to the portal if there is one, or write the address of vLLM itself in `base_url`."),
    ),
    Cause.WRONG_BASE: ((r"declare base_model", "Declare one of them as the target's `base_model`."),),
}

_KNOWN = {str(one): one for one in Cause}


def is_silent(cause: str | None) -> bool:
    """Return whether a target gave no answer at all, as opposed to one that proves nothing."""
    return cause is None or cause in _SILENT


def public_state(state: str, cause: str | None) -> str:
    """Return the state of a target as it is shown: one that answers, though not as it should, is `unusable`.

    Args:
        state: as it is on record: `reachable`, `unreachable` for anything that was not believed, or `new`.
    """
    answers = state == "unreachable" and not is_silent(cause) and cause != Cause.LOCAL
    return "unusable" if answers else state


def when_due(cause: str | None) -> str:
    """Return when that is done which is owed on a target that is unknown because of `cause`: one that answers, though
    not as it should, is seen now."""
    return WHEN_SEEN if is_silent(cause) or cause == Cause.LOCAL else WHEN_USABLE


def cure_of(cause: str | None, detail: str = "") -> str | None:
    """Return the next step for a target that is unknown because of `cause`; it names the key of the manifest to change.

    None where there is nothing to do at the target: the fault is on this side, or it is not running or not asked.
    """
    known = _KNOWN.get(cause or "")
    if known is None:
        return None
    for pattern, cure in _BY_DETAIL.get(known, ()):
        if re.search(pattern, detail):
            return cure
    return _CURES.get(known)
