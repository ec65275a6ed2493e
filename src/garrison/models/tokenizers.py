"""Which files hold a model's tokenizer. Pure.

There are more kinds than a list can have, so a file that looks like one of an unknown kind counts, with a remark.
"""

import re
from collections.abc import Iterable
from typing import Literal

__all__ = ["find_tokenizer"]

_PLACES = ("", "tokenizer/", "tokenizer_files/")
_SETS = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("spiece.model",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
    ("tokenizer_config.json", "vocab.json"),
    ("tokenizer_config.json", "vocab.txt"),
    # Mistral's own format, and tiktoken's as Kimi ships it.
    ("tekken.json",),
    ("tiktoken.model",),
    # SentencePiece as XLM-RoBERTa, DeBERTa, BARTpho and Marian call it.
    ("sentencepiece.bpe.model",),
    ("sentencepiece.model",),
    ("spm.model",),
    ("source.spm", "target.spm"),
    ("vocab.json", "bpe.codes"),
)
# Named after the model, as in the first Qwen models; Mistral's with the version.
_KNOWN = re.compile(r".+\.tiktoken|tokenizer\.model\.v\d+(?:m\d+)?")
_PLAUSIBLE = re.compile(r"token|vocab|merges|sentencepiece|spiece|spm|bpe", re.IGNORECASE)
_ALWAYS_PLAUSIBLE = (".model", ".spm", ".tokenizer")
"""Types that only tokenizers have, whatever the file is called: ChatGLM's `ice_text.model`."""
_PLAUSIBLE_TYPES = (".json", ".txt", ".model", ".spm", ".bpe", ".vocab", ".codes", ".bin", ".pkl", ".py", ".jsonl")
# Parts of a known kind, and what says nothing about the vocabulary.
_NOT_ALONE = {"vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}


def find_tokenizer(names: Iterable[str]) -> tuple[Literal["known", "plausible"], str] | None:
    """A tokenizer among the files of a model, and its first file; None if there is none."""
    present = set(names)
    for place in _PLACES:
        for wanted in _SETS:
            if all(place + name in present for name in wanted):
                return "known", place + wanted[0]
    here = sorted((name for name in present if name[: name.rfind("/") + 1] in _PLACES), key=_own)
    for name in here:
        if _KNOWN.fullmatch(_own(name)):
            return "known", name
    return next((("plausible", name) for name in here if _is_plausible(_own(name))), None)


def _own(name: str) -> str:
    return name[name.rfind("/") + 1 :]


def _is_plausible(name: str) -> bool:
    if name in _NOT_ALONE:
        return False
    return name.endswith(_ALWAYS_PLAUSIBLE) or (name.endswith(_PLAUSIBLE_TYPES) and _PLAUSIBLE.search(name) is not None)
