"""Select the files of a repository that an engine needs: many hold the same weights in several formats."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from garrison.base.errors import InvalidError

__all__ = ["select_files"]

_OTHER_ENGINES = ("*.h5", "*.msgpack", "*.ot", "*.onnx", "*.onnx_data", "*.tflite", "*.mlmodel", "*.mlpackage/*")
_OTHER_DIRECTORIES = ("original/", "metal/", "onnx/", "openvino/", "coreml/", "runs/")
_PICKLES = (".bin", ".pt", ".pth")
_SPLIT = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<total>\d{5})\.gguf\Z")


def select_files(names: Iterable[str], *, file: str | None = None, patterns: Sequence[str] = ()) -> list[str]:
    """Return the names to fetch, sorted.

    Args:
        file: one GGUF file; all parts of a split one are selected.
        patterns: shell patterns that replace the default choice.

    Raises:
        InvalidError: the repository holds only GGUF models, more than one, and `file` names none.
    """
    present = sorted(name for name in names if not _hidden(name))
    if file is not None:
        return [name for name in present if name == file or _same_split(name, file)]
    if patterns:
        return [name for name in present if any(fnmatchcase(name, pattern) for pattern in patterns)]
    wanted = [name for name in present if not _for_others(name)]
    safe_places = {_place(name) for name in wanted if name.endswith(".safetensors")}
    wanted = [name for name in wanted if not (name.endswith(_PICKLES) and _place(name) in safe_places)]
    if any(re.match(r"model.*\.safetensors\Z", name) for name in wanted):
        wanted = [name for name in wanted if not re.match(r"consolidated.*\.safetensors", name)]
    return _without_spare_gguf(wanted)


def _without_spare_gguf(wanted: list[str]) -> list[str]:
    gguf = [name for name in wanted if name.endswith(".gguf")]
    if any(name.endswith((".safetensors", *_PICKLES)) for name in wanted):
        return [name for name in wanted if name not in gguf]
    models = sorted({(match["stem"] if (match := _SPLIT.match(name)) else name) for name in gguf})
    if len(models) > 1:
        raise InvalidError(
            f"the repository contains {len(models)} GGUF models", hint=f"Name one, as in ORG/NAME/{gguf[0]}.",
            details={"files": gguf},
        )  # fmt: skip
    return wanted


def _hidden(name: str) -> bool:
    # Names that lead out of the directory are not skipped here: staging rejects them with an error.
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def _for_others(name: str) -> bool:
    return name.startswith(_OTHER_DIRECTORIES) or any(fnmatchcase(name, pattern) for pattern in _OTHER_ENGINES)


def _place(name: str) -> str:
    return name.rpartition("/")[0]


def _same_split(name: str, file: str) -> bool:
    mine, asked = _SPLIT.match(name), _SPLIT.match(file)
    return mine is not None and asked is not None and mine.groups() == asked.groups()
