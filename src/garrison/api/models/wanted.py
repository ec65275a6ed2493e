"""What a download asks for: llamactl's `org/model[:tag]`, parsed. Pure."""

import re
from dataclasses import dataclass, replace
from typing import Literal

from garrison.base.errors import InvalidError
from garrison.models.names import ModelName, parse_model

__all__ = ["Format", "Wanted", "wanted_of", "with_file"]

Format = Literal["gguf", "safetensors"]

_HINT = "Write ORG/MODEL, ORG/MODEL:TAG or ORG/MODEL/FILE.gguf."
_QUANTIZATION = re.compile(r"(UD-)?([IT]?Q\d\w*|B?F16|F32|MXFP4\w*)\Z", re.IGNORECASE)
_LATEST = "latest"


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


def with_file(wanted: Wanted, file: str) -> Wanted:
    """Return `wanted` with its GGUF file chosen."""
    return replace(wanted, model=replace(wanted.model, file=file), quantization=None)
