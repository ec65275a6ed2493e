"""Vectors of an engine as Ollama's clients read them."""

import math
from typing import Any

import msgspec

from garrison.gateway.ollama.translation.errors import AnswerError, text_of

__all__ = ["Vectors", "embed_answer", "read_vectors"]


class _Vector(msgspec.Struct, frozen=True):
    embedding: list[float]
    index: int = 0


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None


class Vectors(msgspec.Struct, frozen=True):
    """Vectors, in the order of their texts after `read_vectors`."""

    data: list[_Vector] = []
    usage: _Usage | None = None
    error: Any = None

    @property
    def first(self) -> list[float]:
        """The first of them; empty if there is none."""
        return self.data[0].embedding if self.data else []


_decoder = msgspec.json.Decoder(Vectors)


def read_vectors(body: bytes) -> Vectors:
    """Return the vectors of an answer. Raises AnswerError."""
    try:
        found = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AnswerError(f"the engine answered what are no embeddings: {error}") from None
    if found.error:
        raise AnswerError(text_of(found.error) or "the engine answered with an error")
    return msgspec.structs.replace(found, data=sorted(found.data, key=lambda one: one.index))


def embed_answer(model: str, vectors: Vectors, dimensions: int | None, seconds: float) -> dict[str, Any]:
    """Return the answer to `POST /api/embed`. Its vectors have the length 1, cut to `dimensions` if that is given.

    Args:
        model: as the client named it.
        seconds: from the request to its answer.
    """
    told: dict[str, Any] = {
        "model": model,
        "embeddings": [_unit(one.embedding[:dimensions] if dimensions else one.embedding) for one in vectors.data],
        "total_duration": max(0, round(seconds * 1e9)),
        "load_duration": 0,
    }
    if vectors.usage is not None and vectors.usage.prompt_tokens is not None:
        told["prompt_eval_count"] = vectors.usage.prompt_tokens
    return told


def _unit(vector: list[float]) -> list[float]:
    norm = math.sqrt(math.fsum(value * value for value in vector))
    return vector if norm == 0 or abs(norm - 1) < 1e-6 else [value / norm for value in vector]
