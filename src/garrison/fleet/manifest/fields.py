"""Types of the values in a manifest, with their limits, and the two kinds of mapping that many keys share."""

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator
from pydantic.functional_validators import AfterValidator

from garrison.net.endpoint import Secret

__all__ = ["Flag", "Integer", "Interval", "Keys", "LabelText", "Name", "Port", "Rank", "SecretModel", "Text",
           "Timeout", "Variable", "Word", "schema_of"]  # fmt: skip

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?\Z")
_SECONDS = {None: 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "h": 3600.0}
_VARIABLE = {"type": "string", "pattern": r"\$\{"}


def _plain(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("contains a control character")
    return text


def _name(text: str) -> str:
    if text != text.strip():
        raise ValueError("a name cannot begin or end with white space")
    return _plain(text)


def _word(text: str) -> str:
    """Allow tabs and newlines: a program's argument may have several lines."""
    _plain(re.sub(r"[\t\n]", " ", text))
    return text


def _integer(value: Any) -> Any:
    """Accept digits as text, since a substituted variable is text: `port: "${PORT:-8000}"`."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value) else value


def _flag(value: Any) -> Any:
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        match = _DURATION.match(value.strip())
        if match is None:
            raise ValueError("invalid duration; write seconds as a number, or text such as 500ms, 30s, 5m, 1h")
        return float(match[1]) * _SECONDS[match[2]]
    # In Python a boolean is an int, and a large int does not fit into a float.
    return float(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1e9 else value


def _label_text(value: Any) -> Any:
    """Accept `rack: 7` and `edge: true` as text."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) and abs(value) < 10**18 else value


Text = Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_plain)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_name)]
Word = Annotated[str, AfterValidator(_word)]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=200)]
LabelText = Annotated[Annotated[str, AfterValidator(_plain)], BeforeValidator(_label_text)]
Flag = Annotated[bool, BeforeValidator(_flag), WithJsonSchema({"anyOf": [{"type": "boolean"}, _VARIABLE]})]


def schema_of(kind: str, low: float, high: float, pattern: str) -> WithJsonSchema:
    return WithJsonSchema(
        {"anyOf": [{"type": kind, "minimum": low, "maximum": high}, {"type": "string", "pattern": pattern}]}
    )


_DIGITS = r"^[0-9]+$|\$\{"
_TIME = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h)?$|\$\{"
Port = Annotated[int, BeforeValidator(_integer), Field(ge=1, le=65535), schema_of("integer", 1, 65535, _DIGITS)]
Integer = BeforeValidator(_integer)
"""Accepts digits as text, since a substituted variable is text."""
Rank = Annotated[int, BeforeValidator(_integer), Field(ge=1, le=65536), schema_of("integer", 1, 65536, _DIGITS)]
Timeout = Annotated[float, BeforeValidator(_seconds), Field(ge=0.05, le=86400), schema_of("number", 0.05, 86400, _TIME)]
Interval = Annotated[float, BeforeValidator(_seconds), Field(ge=0.1, le=86400), schema_of("number", 0.1, 86400, _TIME)]


class Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SecretModel(Keys):
    """A reference to a secret, which is read when needed: exactly one of `env`, `file` and `command`."""

    env: Variable | None = Field(None, description="Name of an environment variable.")
    file: Text | None = Field(None, description="Path of a file, relative to the manifest.")
    command: list[Word] | None = Field(
        None, min_length=1, description="A program and its arguments; its output is the secret."
    )

    @model_validator(mode="after")
    def _one(self) -> "SecretModel":
        if (self.env is not None) + (self.file is not None) + (self.command is not None) != 1:
            raise ValueError("give exactly one of env, file, command")
        return self

    def reference(self) -> Secret:
        """Return the reference as a value."""
        if self.env is not None:
            return Secret("env", self.env)
        if self.file is not None:
            return Secret("file", self.file)
        return Secret("command", tuple(self.command or ()))
