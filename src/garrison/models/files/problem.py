"""A fault of a model's file, as a value: resolve tries the next source, other commands raise it."""

from dataclasses import dataclass
from typing import Any

from garrison.base.errors import ModelInvalidError

__all__ = ["Problem"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault.

    Attributes:
        file: the file at fault, as the user would type it.
        reason: completes the sentence "FILE …", e.g. `is empty`.
        hint: the next step.
    """

    file: str
    reason: str
    hint: str = "Copy or download the file again."

    def __str__(self) -> str:
        return f"{self.file} {self.reason}"

    def error(self) -> ModelInvalidError:
        details: dict[str, Any] = {"file": self.file, "reason": self.reason}
        return ModelInvalidError(str(self), hint=self.hint, details=details)
