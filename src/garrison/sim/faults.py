"""The faults: what a simulator does wrong, or slowly, on purpose. A frozen value, and a pure decision about it.

    ttft                 seconds before the first token
    tokens_per_second    pace after that; null: no limit
    failure_rate         share of requests to `/v1/*` that are answered 500, drawn from the seed
    hang                 `/v1/*`: the request is read and never answered
    cut_after_tokens     a stream is reset (RST) after that many tokens
    load_delay           seconds that loading an adapter takes
    sleep_delay          seconds that falling asleep takes
    wake_delay           seconds that each call to wake up takes
    sleep_aborts         a sleep aborts running requests, whatever mode it is asked for
    sleep_hangs          `/sleep` is never answered, and the engine stays awake
    sleep_keeps_memory   a sleeping engine holds its memory
    wake_fails           `/wake_up` is answered 500
    wake_wrong_answer    after a wake the answers belong to no weights
    disguise             what answers in the server's place, see below
    redirect_to          the origin that the disguise `redirect` points to
    script               rules, tried in order; the first one that matches and is not used up decides

A rule: `path` (exact, or a prefix that ends in `*`), `method` (any if left out), `skip` (matches that pass first),
`times` (null: without end), `delay` (seconds before anything), and one `action`:

    status               answer `status` with `type`, `message`, `headers` (default if `status` is given)
    pass                 answer as usual, after `delay` (default otherwise)
    hang                 never answer
    reset                reset the connection before the headers
    cut                  send the headers and half of the body, then reset (unless the body is streamed)

Disguises: `none`; `captive-portal` (200 and HTML to everything); `redirect` (302 to everything); and on `/v1/models`
alone `empty-object` (`{}`), `empty-list`, `truncated-json`, `html-error` (502 and HTML) and `wrong-base` (a well-formed
list with another base model, whose name is then the only one that generates).
"""

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from garrison.base.errors import InvalidError

__all__ = ["ACTIONS", "DISGUISES", "Faults", "Rule", "Verdict", "decide", "faults_from_json", "faults_to_json"]

ACTIONS = ("status", "pass", "hang", "reset", "cut")
DISGUISES = (
    "none",
    "captive-portal",
    "redirect",
    "empty-object",
    "empty-list",
    "truncated-json",
    "html-error",
    "wrong-base",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    path: str
    method: str | None = None
    action: str = "pass"
    status: int | None = None
    type: str = "InternalServerError"
    message: str = "Injected by the simulator."
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0
    skip: int = 0
    times: int | None = None

    def matches(self, method: str, path: str) -> bool:
        if self.method is not None and self.method != method:
            return False
        return path.startswith(self.path[:-1]) if self.path.endswith("*") else path == self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """The knobs described in the module. `ServerState.used` counts the uses of rules, so that this stays a value."""

    ttft: float = 0.0
    tokens_per_second: float | None = None
    failure_rate: float = 0.0
    hang: bool = False
    cut_after_tokens: int | None = None
    load_delay: float = 0.0
    sleep_delay: float = 0.0
    wake_delay: float = 0.0
    sleep_aborts: bool = False
    sleep_hangs: bool = False
    sleep_keeps_memory: bool = False
    wake_fails: bool = False
    wake_wrong_answer: bool = False
    disguise: str = "none"
    redirect_to: str = "http://portal.invalid"
    script: tuple[Rule, ...] = field(default=())

    @property
    def quiet(self) -> bool:
        """Whether nothing here can change an answer before its handler runs."""
        return not (self.script or self.hang or self.failure_rate) and self.disguise == "none"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to one request: an action, and the rule that chose it, if one did."""

    action: str
    rule: Rule | None = None


PASS = Verdict("pass")


def decide(
    faults: Faults, used: tuple[int, ...], method: str, path: str, draw: float
) -> tuple[Verdict, tuple[int, ...]]:
    """Decide on a request; return the verdict, and how often each rule has matched now.

    Args:
        used: matches so far, one count per rule; missing ones are zero.
        draw: uniform in [0, 1); compared with the failure rate.
    """
    counts = used + (0,) * (len(faults.script) - len(used))
    for at, rule in enumerate(faults.script):
        if not rule.matches(method, path):
            continue
        if rule.times is not None and counts[at] >= rule.skip + rule.times:
            continue
        counts = (*counts[:at], counts[at] + 1, *counts[at + 1 :])
        if counts[at] > rule.skip:
            return Verdict(rule.action, rule), counts
    if path.startswith("/v1"):
        if faults.hang:
            return Verdict("hang"), counts
        if draw < faults.failure_rate:
            return Verdict("status", Rule(path=path, action="status", status=500)), counts
    return PASS, counts


def faults_to_json(faults: Faults) -> dict[str, Any]:
    """Return a JSON-ready form that `faults_from_json` reads."""
    body = asdict(faults)
    body["script"] = [rule | {"headers": dict(rule["headers"])} for rule in body["script"]]
    return body


def faults_from_json(body: Any, current: Faults | None = None) -> Faults:
    """Return `current`, or the defaults, with the named knobs changed.

    Raises:
        InvalidError: unknown knob, or invalid value.
    """
    given = _mapping(body, "faults")
    known = {item.name for item in fields(Faults)}
    changes: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise InvalidError(f"unknown knob {name!r}", hint=_nearest(name, known))
        changes[name] = _script(value) if name == "script" else _value(name, value)
    return replace(current or Faults(), **changes)


def _script(value: Any) -> tuple[Rule, ...]:
    if not isinstance(value, list):
        raise InvalidError("script must be a list of rules", hint='[{"path": "/v1/models", "status": 500, "times": 1}]')
    return tuple(_rule(_mapping(item, "a rule")) for item in value)


def _rule(given: Mapping[str, Any]) -> Rule:
    known = {item.name for item in fields(Rule)}
    if unknown := [name for name in given if name not in known]:
        raise InvalidError(f"unknown key {unknown[0]!r} in a rule", hint=_nearest(unknown[0], known))
    if not isinstance(given.get("path"), str):
        raise InvalidError("a rule needs a path", hint='"/v1/models", or "/v1/*" for all below.')
    values = {name: _value(name, value) for name, value in given.items() if name != "headers"}
    headers = _mapping(given.get("headers", {}), "headers")
    values["headers"] = tuple((str(name), str(text)) for name, text in headers.items())
    values.setdefault("action", "status" if values.get("status") is not None else "pass")
    if values["action"] == "status" and values.get("status") is None:
        raise InvalidError("a rule with the action status needs a status", hint='Add "status": 500.')
    return Rule(**values)


def _value(name: str, value: Any) -> Any:
    kind, rule = _RULES[name]
    if not kind(value):
        raise InvalidError(f"{name} must be {rule}, not {value!r}", hint="`GET /_sim` shows all knobs.")
    return float(value) if kind is _seconds else value


def _seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _text(value: Any) -> bool:
    return isinstance(value, str)


_RULES: dict[str, tuple[Any, str]] = {
    "ttft": (_seconds, "seconds"),
    "tokens_per_second": (lambda value: value is None or (_seconds(value) and value > 0), "above zero or null"),
    "failure_rate": (lambda value: _seconds(value) and value <= 1, "from 0 to 1"),
    "hang": (_flag, "true or false"),
    "cut_after_tokens": (lambda value: value is None or _count(value), "a count or null"),
    "load_delay": (_seconds, "seconds"),
    "sleep_delay": (_seconds, "seconds"),
    "wake_delay": (_seconds, "seconds"),
    "sleep_aborts": (_flag, "true or false"),
    "sleep_hangs": (_flag, "true or false"),
    "sleep_keeps_memory": (_flag, "true or false"),
    "wake_fails": (_flag, "true or false"),
    "wake_wrong_answer": (_flag, "true or false"),
    "disguise": (lambda value: value in DISGUISES, "one of " + ", ".join(DISGUISES)),
    "redirect_to": (_text, "text"),
    "path": (_text, "text"),
    "method": (lambda value: value is None or (_text(value) and value == value.upper()), "an upper-case method"),
    "action": (lambda value: value in ACTIONS, "one of " + ", ".join(ACTIONS)),
    "status": (lambda value: value is None or (_count(value) and 200 <= value < 600), "an HTTP status"),
    "type": (_text, "text"),
    "message": (_text, "text"),
    "delay": (_seconds, "seconds"),
    "skip": (_count, "a count"),
    "times": (lambda value: value is None or _count(value), "a count or null"),
}


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidError(f"{what} must be a JSON object", hint='{"ttft": 0.5}')
    return value


def _nearest(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"Did you mean {close[0]}?" if close else "Known: " + ", ".join(sorted(known))
