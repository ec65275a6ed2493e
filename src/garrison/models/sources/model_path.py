"""Where in a directory on disk the model is that was asked for."""

from pathlib import Path

from garrison.base.errors import InvalidError, ModelInvalidError
from garrison.models.gguf_choice import choose_gguf
from garrison.models.names import ModelName
from garrison.models.validate import list_files

__all__ = ["path_in"]


def path_in(directory: Path, model: ModelName) -> Path | None:
    """The directory itself, or the GGUF file in it that was named, which need not exist; None if it holds none of the
    quantization that was asked for."""
    if model.quantization is None:
        return directory / model.file if model.file else directory
    try:
        return directory / choose_gguf(list_files(directory), model.quantization, str(directory))
    except (InvalidError, ModelInvalidError):
        return None
