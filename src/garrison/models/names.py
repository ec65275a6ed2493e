"""Parse what people type for a model: a name, a name with a revision, a path, one GGUF file of a repository.

Qwen/Qwen2.5-0.5B-Instruct            org and name
Qwen/Qwen2.5-0.5B-Instruct@main       with a branch, a tag or a commit
Qwen2.5-0.5B-Instruct                 a name; the organisation comes from the settings or is unknown
Qwen/Qwen2.5-GGUF/q4_k_m.gguf         one file of a repository
Qwen/Qwen2.5-GGUF:Q4_K_M              the file of a quantization, as llama.cpp's -hf finds it
/models/mine, ./mine, ~/mine, mine/   a path; also any directory or .gguf file that exists
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from os.path import exists as _path_exists
from pathlib import Path

from garrison.base.errors import InvalidError

__all__ = [
    "RESERVED",
    "ModelName",
    "hash12",
    "model_from_directory",
    "parse_model",
    "safe_element",
    "safe_revision",
    "slug",
]

RESERVED = frozenset({"hub", ".staging", ".locks"})
"""Directory names under the models root that are not models."""

_MAX_ELEMENT_BYTES = 200  # room for `.bak.<time>` within the 255 of a file name
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LATEST = "latest"
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]*\Z")


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model that was asked for.

    Attributes:
        name: one safe path element; the directory below the models root.
        org: the organisation; None for a bare name and for a path.
        given_id: the id on the hub if it is not `org/name` (`VLLM_MODEL_ID`).
        revision: branch, tag or commit; None means the default branch.
        file: one GGUF file of the repository, relative to its root.
        quantization: of the GGUF file, whose name only the repository tells; empty for the usual one.
        path: set if a path was given; then nothing is looked up by name.
    """

    name: str
    org: str | None = None
    revision: str | None = None
    file: str | None = None
    path: Path | None = None
    given_id: str | None = None
    quantization: str | None = None

    @property
    def model_id(self) -> str:
        """`org/name`, the bare name, or the absolute path."""
        if self.path is not None:
            return str(self.path)
        if self.given_id is not None:
            return self.given_id
        return f"{self.org}/{self.name}" if self.org else self.name

    @property
    def slug(self) -> str:
        return slug(self.model_id)

    @property
    def hash12(self) -> str:
        return hash12(self.model_id)

    @property
    def directory(self) -> str:
        """Name of the model's directory. Each GGUF file of a repository has its own, so that none replaces another."""
        if self.quantization is not None:
            return f"{self.name}--{self.quantization or _LATEST}"
        if self.file is None:
            return self.name
        return f"{self.name}--{_UNSAFE.sub('-', self.file.removesuffix('.gguf'))}"

    @property
    def cache_directory(self) -> str:
        """Name of the repository in a Hugging Face cache: `models--org--name`."""
        return "models--" + self.model_id.replace("/", "--")

    def __str__(self) -> str:
        text = self.model_id if self.file is None else f"{self.model_id}/{self.file}"
        if self.quantization is not None:
            text += f":{self.quantization or _LATEST}"
        return f"{text}@{self.revision}" if self.revision else text


def parse_model(
    text: str,
    *,
    org: str | None = None,
    revision: str | None = None,
    exists: Callable[[str], bool] = _path_exists,
) -> ModelName:
    """Parse what was typed for a model.

    Args:
        org: organisation of a bare name (`model_org` of the settings).
        revision: used when `text` names none.
        exists: checks the disk; a relative path counts as one only if it exists.

    Raises:
        InvalidError: it is neither a path nor a usable name; the message says which rule it breaks.
    """
    if not text.strip():
        raise InvalidError("the model name is empty", hint="Give ORG/NAME, a name, or the path of a model directory.")
    if _CONTROL.search(text):
        raise InvalidError(f"the model name {text!r} contains control characters", hint="Type the name by hand.")
    if _is_path(text, exists):
        return _from_path(text, revision)
    bare, at, asked = text.partition("@")
    bare, colon, tag = bare.partition(":")
    model = _from_name(bare, org)
    if colon:
        model = replace(model, quantization=_quantization(tag, model, text))
    return replace(model, revision=safe_revision(asked) if at else revision and safe_revision(revision))


def _quantization(tag: str, model: ModelName, text: str) -> str:
    if model.file is not None or not _TAG.fullmatch(tag):
        raise InvalidError(
            f"{text[:300]!r} is not ORG/NAME:QUANTIZATION",
            hint="As in Qwen/Qwen2.5-7B-Instruct-GGUF:Q4_K_M. A branch, tag or commit is written @REVISION.",
        )
    return "" if tag.lower() == _LATEST else tag.upper()


def model_from_directory(name: str, *, model_id: str | None, org: str | None, revision: str | None) -> ModelName:
    """The model of the `vllm-*` commands, where the directory and the id are named separately.

    Args:
        name: `VLLM_MODEL`, a single safe path element.
        model_id: `VLLM_MODEL_ID`; derived from `org` when None.

    Raises:
        InvalidError: a rule is broken, or neither `model_id` nor `org` is given.
    """
    safe_element(name)
    if model_id is None and org is None:
        raise InvalidError(
            "VLLM_MODEL_ID or VLLM_MODEL_ORG must be set",
            hint="The model id is VLLM_MODEL_ID, or VLLM_MODEL_ORG/VLLM_MODEL.",
        )
    model_id = model_id or f"{org}/{name}"
    parts = model_id.split("/")
    if len(parts) > 2:
        raise InvalidError(
            f"VLLM_MODEL_ID must be ORG/NAME; it is {model_id!r}", hint="As in Qwen/Qwen2.5-0.5B-Instruct."
        )
    for part in parts:
        safe_element(part, "each part of the model id")
    return ModelName(
        name=name,
        org=parts[0] if len(parts) == 2 else None,
        revision=revision and safe_revision(revision),
        given_id=model_id,
    )


def safe_revision(text: str) -> str:
    """Return `text` if it can be a branch, tag or commit, and part of a path.

    Raises:
        InvalidError: it cannot.
    """
    if not _REVISION.match(text) or ".." in text or len(text) > _MAX_ELEMENT_BYTES:
        raise InvalidError(
            f"{text[:300]!r} is not a revision", hint="Give a branch, a tag or a commit, as in ORG/NAME@main."
        )
    return text


def safe_element(value: str, what: str = "VLLM_MODEL") -> str:
    """Return `value` if it can be the name of a directory below the models root.

    The rule is documented for `VLLM_MODEL`: a single path element, no `/`, no `\\`, not `.` or `..`, no control
    characters. Names that the layout uses are rejected too.

    Raises:
        InvalidError: it cannot; the message names `what` and the rule.
    """
    if value in ("", ".", "..") or "/" in value or "\\" in value or _CONTROL.search(value):
        rule = "must be a single safe path element: no /, no \\, not . or .., no control characters"
    elif value in RESERVED:
        rule = f"must not be one of {', '.join(sorted(RESERVED))}, which are reserved in the models root"
    elif len(value.encode()) > _MAX_ELEMENT_BYTES:
        rule = f"must be at most {_MAX_ELEMENT_BYTES} bytes long"
    else:
        return value
    raise InvalidError(
        f"{what} {rule}; it is {value[:300]!r}", hint="Give the name of a directory, as in Qwen2.5-0.5B-Instruct."
    )


def slug(model_id: str) -> str:
    """The model id as part of a file name: unsafe characters become `-`. `hash12` tells two equal slugs apart."""
    return _UNSAFE.sub("-", model_id).strip("-")[:120]


def hash12(model_id: str) -> str:
    """The first 12 hex digits of the SHA-256 of the model id, as in the name of the env file."""
    return hashlib.sha256(model_id.encode()).hexdigest()[:12]


def _is_path(text: str, exists: Callable[[str], bool]) -> bool:
    if text.startswith(("/", "./", "../", "~")) or text in (".", ".."):
        return True
    return (text.endswith(("/", ".gguf")) or text.count("/") > 0) and exists(text)


def _from_path(text: str, revision: str | None) -> ModelName:
    # absolute(), not resolve(): a symlink to the current version must stay one.
    try:
        path = Path(text).expanduser().absolute()
    except RuntimeError:
        raise InvalidError(f"there is no home directory for {text!r}", hint="Give the full path.") from None
    if ".." in path.parts:
        path = path.resolve()
    return ModelName(name=path.name or "root", revision=revision, path=path)


def _from_name(text: str, org: str | None) -> ModelName:
    parts = text.split("/")
    file = None
    if len(parts) > 2 and text.endswith(".gguf"):
        file = "/".join(safe_element(part, "each part of the file name") for part in parts[2:])
        parts = parts[:2]
    if len(parts) > 2:
        raise InvalidError(
            f"{text!r} is neither ORG/NAME nor an existing path",
            hint="Write a path with ./ or / in front, a hub model as ORG/NAME.",
        )
    name = safe_element(parts[-1], "the model name")
    if len(parts) == 2:
        org = parts[0]
    if org is not None:
        safe_element(org, "the organisation")
    return ModelName(name=name, org=org, file=file)
