"""Remove secrets from everything that is shown, logged or kept: argv lists, and output of libraries and children.

There are two ways. Values that were read as secrets are known, and are found in every spelling in which a message, a
log or a URL repeats them. What looks like a secret, or stands where one is expected, is hidden without being known.
Every rule is linear in the length of a line, since engines and servers decide what a line holds.
"""

import re
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

__all__ = [
    "HIDDEN",
    "LineRedactor",
    "SecretValueError",
    "excerpt",
    "is_secret_header",
    "is_secret_name",
    "know_arguments",
    "know_environment",
    "know_secret",
    "redacted",
    "redacted_value",
    "secret_text",
    "shown_command",
    "shown_variable",
    "without_colours",
]

HIDDEN = "***"
_SHORTEST = 4
"""Shorter values are not looked for: they would be found in unrelated words."""
_SHORTEST_ANYWHERE = 8
"""Values shorter than this are hidden only where they stand alone."""
_MOST_KNOWN = 256
_LINE_BYTES = 64 * 1024
_OVERLAP_BYTES = 4096

# argparse accepts any unambiguous beginning of an option, and `_` for `-`.
_BEGINNINGS = ("--api-k", "--hf-t")
_ENDINGS = ("key", "token", "secret", "password", "passwd", "credential", "credentials", "auth")
_HEADER_ENDINGS = ("authorization", "cookie", "cookie2", "key", "password", "secret", "token")
"""Of words as well: `apikey` is one of them."""
_NO_SECRETS = frozenset({"true", "false", "none", "null", "auto", "empty", "basic", "bearer"})
_WORDS = """
access action actions adapter adapters address agent answer answers apply authorization base body bytes cache cannot
certificate chat client command config connection container content cuda data database default delete deleted denied
device devices directory disk docker endpoint engine engines environment error event exists failed file files fleet
found gateway garrison group hook host http https huggingface inference instance instances invalid json keys line list
llama load loaded local localhost lock lora machine main manifest memory message method model models name names network
node nodes number open option options path plan podman port ports process profile proxy python reason refused request
requests reset response route running seconds serve served server servers service session setting settings socket
sqlite stack stacks start started state status stop stopped store system target targets text time timeout token tokens
transport unknown value values version vllm volume wait weights work worker write yaml
"""
_OUR_WORDS = frozenset(_WORDS.split())
"""Words of our own messages. Where one is a secret, as in a trial, stars in its place would tell it to everybody who
knows the message, and make all messages unreadable."""
_CERTAIN = frozenset(
    {
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "VLLM_API_KEY",
        "LLAMA_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    }
)
_PERCENT = re.compile("%[0-9A-F]{2}")
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*\x07")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_KNOWN_WORDS = r"\*\*\*|(?:bearer|basic|token)[ \t]|(?:None|null|True|False)\b"
_VALUE = rf"""(?!{_KNOWN_WORDS})[^\s'"`,;<>()\[\]{{}}&]{{1,4096}}"""
_NAME = (
    r"(?:api|access|secret|account)[_-]?key(?:[_-]id)?|secret|passw(?:or)?d|passphrase|credentials?"
    r"|(?:hf|hub|access|auth|api|refresh|session|security|bearer|wandb|github)[_-]?token|authorization"
)
# After a bare colon comes prose as well, so that what is hidden there must not be a word.
_BETWEEN = r"""(?:['"]?[ \t]{0,8}=[ \t]{0,8}|['"][ \t]{0,8}:[ \t]{0,8}|:[ \t]{0,8}(?=[a-z]{0,64}[^a-z\s.,:;'"]))"""
_OPEN = r"""[\[(]?(?:b(?=['"]))?['"]?(?:(?:bearer|basic|token)[ \t]+)?"""
_NAMES_END = (
    "key",
    "id",
    "secret",
    "passwd",
    "password",
    "passphrase",
    "credential",
    "credentials",
    "token",
    "ization",
)
_OPTION = (
    r"--(?:api[-_]k|hf[-_]t|(?:[a-z0-9]{1,32}[-_]){0,6}(?:key|token|secret|password|passwd)\b)[\w-]{0,32}"
    r"""['"]?[ \t,=]{1,4}['"]?"""
)
_QUERY = (
    r"[?&](?:x-(?:amz|goog)-[a-z-]{1,40}|signature|sig|policy|key-pair-id|awsaccesskeyid|(?:access_)?token"
    r"|(?:api_?)?key)="
)
_ASSIGNED_VALUE = r"(?!\*\*\*|VALUE(?!\S))\S{1,4096}"
# `KEY=VALUE` is how a message names the form of a setting.
_ASSIGNED = r"(?<!\w)[A-Z0-9_]{0,64}(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS)="
# What a text has in lower case that has something to hide, the beginning that is kept, what is hidden behind it, and
# whether case counts. Most lines of a log have none of the first, and no pattern is tried on them.
_RULES: tuple[tuple[tuple[str, ...], str, str, bool], ...] = (
    (("://",), "://", r"[^/@\s'\"]{1,1024}(?=@)", False),
    (("hf_",), r"(?<![A-Za-z0-9])hf_", r"(?:(?=[a-z]{0,40}[A-Z0-9])[A-Za-z0-9]{6,}|[a-z]{20,})", False),
    (("grs-",), r"(?<![A-Za-z0-9])grs-(?:inf|mgmt)-", r"[0-9a-f]{12,}", False),
    (("sk-",), r"(?<![A-Za-z0-9])sk-", r"[A-Za-z0-9_-]{6,}", False),
    (("gh", "glpat-", "xox"), r"\b(?:gh[pousr]_|glpat-|xox[abps]-)", r"[A-Za-z0-9_-]{10,}", False),
    (("akia", "asia"), r"\b(?:AKIA|ASIA)", r"[A-Z0-9]{16}\b", False),
    (("eyj",), r"\beyJ", r"[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{4,}", False),
    (("bearer",), r"\bbearer[ \t]{1,8}", rf"(?!tokens?\b|auth){_VALUE}", True),
    (("basic",), r"\b[Bb]asic[ \t]{1,8}", r"(?=[a-z]{0,64}[A-Z0-9+/=])[A-Za-z0-9+/_-]{6,}={0,2}", False),
    (("?", "&"), _QUERY, r"[^&\s'\"<>]{1,8192}", True),
    (("--",), rf"(?<![\w-]){_OPTION}", _VALUE, True),
    (
        tuple(end + after for end in _NAMES_END for after in ("=", ":", "'", '"', " =", "\t=")),
        rf"(?:{_NAME}){_BETWEEN}{_OPEN}",
        _VALUE,
        True,
    ),
    (("token=", "key=", "secret=", "password=", "passwd=", "credentials="), _ASSIGNED, _ASSIGNED_VALUE, False),
)

_SHORT_TEXT = 100
"""Characters up to which one search for all hints takes less time than one for each."""


class SecretValueError(ValueError):
    """A secret cannot be used. The message completes "ORIGIN …" and never holds the secret."""


class _Known:
    """The secrets that this process has read, each with its spellings."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, set[str]] = {}
        self._longest_first: tuple[tuple[str, bool], ...] = ()

    def add(self, value: str) -> None:
        value = value.strip()
        low = value.lower()
        if len(value) < _SHORTEST or low in _NO_SECRETS or low in _OUR_WORDS or value in self._values:
            return
        with self._lock:
            # A secret command may give a new value every minute, for months; the oldest are out of use.
            newest = list(self._values)[-_MOST_KNOWN + 1 :]
            self._values = {one: self._values[one] for one in newest} | {value: _spellings(value)}
            anywhere = {one: len(known) >= _SHORTEST_ANYWHERE for known, found in self._values.items() for one in found}
            self._longest_first = tuple(sorted(anywhere.items(), key=lambda one: len(one[0]), reverse=True))

    def hide(self, text: str) -> str:
        for spelling, anywhere in self._longest_first:
            if spelling in text:
                text = text.replace(spelling, HIDDEN) if anywhere else _hidden_alone(spelling, text)
        return text


_KNOWN = _Known()


def know_secret(value: str | None) -> None:
    """Hide `value` in everything that is redacted from now on. White space at its ends does not count."""
    if value:
        _KNOWN.add(value)


def know_environment(environ: Mapping[str, str]) -> None:
    """Know the value of every variable whose name is one of a secret."""
    for name, value in environ.items():
        guessed = is_secret_name(name) and len(value.strip()) >= _SHORTEST_ANYWHERE and not value.startswith("/")
        if guessed or name in _CERTAIN:
            know_secret(value)
        elif "://" in value and "@" in value:
            know_secret(_password_of(value))


def is_secret_name(variable: str) -> bool:
    """Return whether a variable or field of this name holds a secret: it ends in `_KEY`, `token`, …"""
    return variable.replace("_", "-").lower().split("-")[-1] in _ENDINGS


def is_secret_header(name: str) -> bool:
    """Return whether a header of this name, of a request or an answer, holds a credential."""
    return is_secret_name(name) or name.lower().endswith(_HEADER_ENDINGS)


def know_arguments(argv: Sequence[str]) -> None:
    """Know every value that `shown_command` hides after its option."""
    hiding = False
    for argument in argv:
        option, equals, value = argument.partition("=")
        if argument.startswith("-"):
            hiding = _names_a_secret(option) and not equals
            if equals and _names_a_secret(option):
                know_secret(value)
        elif hiding:
            know_secret(argument)


def secret_text(raw: str) -> str:
    """Return a secret without white space at its ends, such as the newline of a file, and know it from now on.

    Raises:
        SecretValueError: nothing is left, or there are line breaks or control characters inside.
    """
    value = raw.strip()
    if not value:
        raise SecretValueError("is empty")
    know_secret(value)
    if _CONTROL.search(value):
        for line in value.split():
            know_secret(line)
        raise SecretValueError("contains a line break or a control character")
    return value


def redacted(text: str) -> str:
    """Return `text` without secrets."""
    text = _KNOWN.hide(text)
    low = text.lower()
    if len(low) <= _SHORT_TEXT and _any_hint().search(low) is None:
        return text
    for number, (hints, *_) in enumerate(_RULES):
        if any(hint in low for hint in hints):
            text = _pattern(number).sub(rf"\g<1>{HIDDEN}", text)
    return text


def excerpt(text: str, longest: int) -> str:
    """Return the beginning of `text` without secrets, including one that the cut would split."""
    return redacted(text)[:longest]


def without_colours(text: str) -> str:
    """Return `text` without the sequences that colour it, move the cursor or set a title."""
    return _ESCAPE.sub("", text)


def redacted_value(value: Any) -> Any:
    """Return a JSON-ready value with every text in it redacted."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {key: redacted_value(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_value(one) for one in value]
    return value


class LineRedactor:
    """Redacts output that comes in pieces, a line at a time, so that a secret that is split in two is found."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return what is complete so far: up to the last line break, or up to a blank in a very long line."""
        self._rest += data
        end = max(self._rest.rfind(b"\n"), self._rest.rfind(b"\r")) + 1
        if len(self._rest) - end > _LINE_BYTES:
            blank = self._rest.rfind(b" ", len(self._rest) - _OVERLAP_BYTES)
            end = blank + 1 if blank >= 0 else len(self._rest)
        whole, self._rest = self._rest[:end], self._rest[end:]
        return _redacted_bytes(whole)

    def end(self) -> bytes:
        """Return the rest, at the end of the output."""
        whole, self._rest = self._rest, b""
        return _redacted_bytes(whole)


def shown_command(argv: Sequence[str]) -> str:
    """Return `argv` as one shell-quoted line without its secrets.

    Options such as `--api-key V` and `--api-key=V` lose every value up to the next option: vLLM accepts several keys.
    """
    import shlex  # messages only

    shown: list[str] = []
    hiding = False
    for argument in argv:
        option, equals, _ = argument.partition("=")
        if argument.startswith("-"):
            secret = _names_a_secret(option)
            hiding = secret and not equals
            shown.append(f"{option}={HIDDEN}" if secret and equals else redacted(argument))
        else:
            shown.append(HIDDEN if hiding else redacted(argument))
    return shlex.join(shown).replace(f"'{HIDDEN}'", HIDDEN)


def shown_variable(name: str, value: str) -> str:
    """Return `NAME=value` for a shell, without the value if the name is one of a secret."""
    import shlex

    return f"{name}={HIDDEN}" if is_secret_name(name) else f"{name}={shlex.quote(redacted(value))}"


@cache
def _any_hint() -> re.Pattern[str]:
    return re.compile("|".join(re.escape(hint) for hint in sorted({hint for hints, *_ in _RULES for hint in hints})))


@cache
def _pattern(number: int) -> re.Pattern[str]:
    """Compile a rule when it is needed: most commands show nothing that calls for one."""
    _, kept, hidden, ignore_case = _RULES[number]
    return re.compile(f"({kept}){hidden}", re.IGNORECASE if ignore_case else 0)


def _redacted_bytes(data: bytes) -> bytes:
    if not data:
        return data
    text = data.decode("utf-8", "surrogateescape")
    if "\x1b" in text:  # a colour in the middle of a secret would hide it from the rules, but not from a reader
        plain = without_colours(text)
        if (shown := redacted(plain)) != plain:
            return shown.encode("utf-8", "surrogateescape")
    return redacted(text).encode("utf-8", "surrogateescape")


def _names_a_secret(option: str) -> bool:
    name = option.replace("_", "-").lower()
    return name.startswith(_BEGINNINGS) or name.split("-")[-1] in _ENDINGS


def _password_of(url: str) -> str | None:
    """Return what is between the first colon of the user part and its `@`. urlsplit refuses URLs that others accept."""
    authority = url.partition("://")[2].partition("/")[0]
    return authority.rpartition("@")[0].partition(":")[2] or None


def _spellings(value: str) -> set[str]:
    """Return the value as it is, as Python, JSON and HTML write it into a message, as a URL has it, and in base64."""
    import json  # imported here: most commands know no secret, and all of them import this module
    from html import escape
    from urllib.parse import quote, quote_plus

    raw = value.encode("utf-8", "surrogateescape")
    as_json = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    in_url = {quote(raw, safe=""), quote(raw), quote_plus(raw)}
    found = {value, repr(value)[1:-1], ascii(value)[1:-1], repr(raw)[2:-1], escape(value), escape(value, quote=False)}
    found |= as_json | {one.replace("/", r"\/") for one in as_json}
    found |= in_url | {_PERCENT.sub(lambda code: code[0].lower(), one) for one in in_url}
    return found | (_within_base64(raw) if len(value) >= _SHORTEST_ANYWHERE else set())


def _within_base64(raw: bytes) -> set[str]:
    """Return the base64 characters that depend on `raw` alone, at each offset: basic auth has a name before it."""
    from base64 import b64encode

    found = set()
    for before in range(3):
        text = b64encode(bytes(before) + raw).decode("ascii")
        text = text[(0, 2, 3)[before] : (before + len(raw)) * 8 // 6]
        found |= {text, text.replace("+", "-").replace("/", "_")}
    return found


def _hidden_alone(spelling: str, text: str) -> str:
    return re.sub(rf"(?<![A-Za-z0-9]){re.escape(spelling)}(?![A-Za-z0-9])", lambda _: HIDDEN, text)
