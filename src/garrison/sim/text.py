"""Deterministic answers: prompts are split into tokens by a rule, and answers are drawn from a hash."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Answer", "answer", "answer_key", "embedding", "split"]

_TOKEN = re.compile(r"\s*\w{1,8}|\s*[^\w\s]|\s+\Z")
_TAILS = ("a", "e", "i", "o", "u", "an", "el", "ir", "on", "um", "ak", "es", "il", "or", "un", "at")
_SYLLABLES = tuple(head + tail for head in "bdfgklmnprstvzjh" for tail in _TAILS)
_NATURAL_LENGTH = (24, 88)
"""Bounds of the length, in tokens, of an answer that nothing cuts short."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer.

    Attributes:
        tokens: pieces whose concatenation is the text.
        finish_reason: `stop` or `length`.
        stop_reason: the stop string that ended it, if one did.
    """

    tokens: tuple[str, ...]
    finish_reason: str
    stop_reason: str | None = None

    @property
    def text(self) -> str:
        return "".join(self.tokens)


def split(text: str) -> list[str]:
    """Split a text into tokens: up to 8 word characters, or one other character, with the white space before them."""
    return _TOKEN.findall(text)


def answer_key(prompt: str, base: str, weights: str, seed: int) -> bytes:
    """Return all that an answer depends on. `weights` is the result of `Engine.weights`."""
    return "\0".join((str(seed), base, weights, prompt)).encode("utf-8", "surrogatepass")


def answer(key: bytes, limit: int, *, stop: Sequence[str] = (), ignore_eos: bool = False, at_least: int = 0) -> Answer:
    """Return an answer of at most `limit` tokens (≥ 1). A higher limit only continues it."""
    low, high = _NATURAL_LENGTH
    natural = max(at_least, low + hashlib.blake2b(key, digest_size=1).digest()[0] % (high - low))
    count = limit if ignore_eos else min(limit, natural)
    noise = hashlib.shake_128(key).digest(2 * count)
    table = _SYLLABLES
    tokens = tuple(f" {table[noise[at]]}{table[noise[at + 1]]}" for at in range(0, 2 * count, 2))
    reason = "stop" if not ignore_eos and natural <= limit else "length"
    return _cut(Answer(tokens, reason), stop) if stop else Answer(tokens, reason)


def embedding(key: bytes, size: int) -> list[float]:
    """Return a vector of length 1 with `size` components."""
    noise = hashlib.shake_128(b"embedding\0" + key).digest(2 * size)
    raw = [int.from_bytes(noise[at : at + 2], "big", signed=True) / 32768 for at in range(0, 2 * size, 2)]
    norm = sum(value * value for value in raw) ** 0.5 or 1.0
    return [value / norm for value in raw]


def _cut(whole: Answer, stop: Sequence[str]) -> Answer:
    text = whole.text
    found = [(at, word) for word in stop if word and (at := text.find(word)) >= 0]
    if not found:
        return whole
    end, word = min(found)
    kept: list[str] = []
    for token in whole.tokens:
        if end <= 0:
            break
        kept.append(token[:end])
        end -= len(token)
    return Answer(tuple(kept), "stop", word)
