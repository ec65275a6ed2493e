"""What a download asks for: llamactl's `org/model[:tag]`, parsed; and which GGUF file a tag means. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from garrison.base.errors import InvalidError
from garrison.models.names import ModelName, parse_model

__all__ = ["Format", "Wanted", "gguf_file", "wanted_of", "with_file"]

Format = Literal["gguf", "safetensors"]

_HINT = "Write ORG/MODEL, ORG/MODEL:TAG or ORG/MODEL/FILE.gguf."
_QUANTIZATION = re.compile(r"(UD-)?([IT]?Q\d\w*|B?F16|F32|MXFP4\w*)\Z", re.IGNORECASE)
_LATEST = "latest"
_USUAL = ("Q4_K_M", "Q8_0")
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf\Z")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model to download.

    Attributes:
        model: with the revision or the GGUF file where those were given.
        repo: `ORG/NAME`.
        tag: as it was given; empty without one.
        quantization: of the GGUF file, which is still to be found; empty for the usual one. None: no file is chosen.
        format: None for whatever the repository has.
    """

    model: ModelName
    repo: str
    tag: str = ""
    quantization: str | None = None
    format: Format | None = None


def wanted_of(text: str, format: Format | None = None) -> Wanted:
    """Parse `org/model[:tag]`. A tag is a quantization of a GGUF repository (`Q4_K_M`, `latest`), else a revision.

    Raises:
        InvalidError: it is neither that nor one GGUF file of a repository. Paths are not accepted.
    """
    name, _, tag = text.partition(":")
    model = parse_model(name, exists=lambda _: False)
    if model.path is not None or model.org is None or model.revision is not None:
        raise InvalidError(f"{text[:300]!r} is not a model of a hub", hint=_HINT)
    repo = f"{model.org}/{model.name}"
    if model.file is not None:
        if tag or format == "safetensors":
            raise InvalidError(
                f"{text[:300]!r} names one GGUF file, which has neither a tag nor another format", hint=_HINT
            )
        return Wanted(model, repo, format="gguf")
    latest = tag.lower() == _LATEST
    if format == "gguf" or (format is None and _QUANTIZATION.match(tag)):
        if tag and not latest and not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", tag):
            raise InvalidError(f"{tag[:100]!r} is not a quantization", hint="For example Q4_K_M.")
        return Wanted(model, repo, tag, "" if latest else tag, "gguf")
    if tag and not latest:
        model = parse_model(f"{name}@{tag}", exists=lambda _: False)
    return Wanted(model, repo, tag, None, format)


def gguf_file(names: Iterable[str], quantization: str, repo: str) -> str:
    """Choose the file of a quantization among the names in a repository; of a split one, the first part.

    Without a quantization it is Q4_K_M, else Q8_0, else the first by name, as with llama.cpp's `-hf`.

    Raises:
        InvalidError: there is no such file. Details: `files`, those that there are.
    """
    found = sorted(
        name
        for name in names
        if name.endswith(".gguf") and "mmproj" not in name.lower() and not _LATER_PART.search(name)
    )
    for wanted in (quantization,) if quantization else _USUAL:
        matching = [name for name in found if _is_of(name, wanted)]
        if matching:
            return min(matching, key=len)
    if found and not quantization:
        return found[0]
    what = f"GGUF file of {quantization}" if quantization else "GGUF file"
    raise InvalidError(
        f"{repo} has no {what}",
        hint=f"It has {', '.join(found[:20])}." if found else "Name a repository with GGUF files, or another format.",
        details={"files": found[:100]},
    )


def with_file(wanted: Wanted, file: str) -> Wanted:
    """Return `wanted` with its GGUF file chosen."""
    return replace(wanted, model=replace(wanted.model, file=file), quantization=None)


def _is_of(name: str, quantization: str) -> bool:
    return re.search(rf"(?:^|[-._/]){re.escape(quantization)}(?:[-._/]|\Z)", name, re.IGNORECASE) is not None
