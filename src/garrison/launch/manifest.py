"""`garrison.yaml` for one server: model, engine, options, adapters.

    model: Qwen/Qwen2.5-0.5B-Instruct
    engine: vllm
    port: 8000
    options:                    # the engine's own flags, in this order
      max-model-len: 4096
      enforce-eager: true       # --enforce-eager; false gives --no-enforce-eager
    adapters:
      sql: /models/adapters/sql

Relative paths are relative to the manifest.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from garrison.base.documents import Document, inside, read_document
from garrison.base.errors import InvalidError
from garrison.base.home import expanded
from garrison.engines import registry
from garrison.engines.options import to_args
from garrison.launch.spec import AdapterSpec, LaunchSpec

__all__ = ["ServeManifest", "load_manifest"]

_Scalar = str | int | float | bool


class ServeManifest(BaseModel):
    """The keys of the file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str = Field(min_length=1, description="A name (`org/name`, `org/name@revision`), a directory or a file.")
    engine: str = Field("vllm", description="`vllm`, `llama_cpp`, `mlx_lm` or `sim`.")
    executable: str | None = Field(None, description="Your own engine instead of an installed one.")
    host: str | None = Field(None, description="Address to bind; `127.0.0.1` when omitted.")
    port: int | None = Field(None, ge=1, le=65535, description="Port to listen on; 8000 when omitted.")
    served_model_name: str | None = Field(None, description="Model name in answers; the model's id when omitted.")
    options: dict[str, _Scalar | list[_Scalar | dict[str, Any]] | dict[str, Any] | None] = Field(
        default_factory=dict, description="The engine's own flags without the dashes, in order."
    )
    args: list[str] = Field(default_factory=list, description="Engine arguments, verbatim, after the options.")
    env: dict[str, str] = Field(default_factory=dict, description="Variables for the engine.")
    adapters: dict[str, str] = Field(
        default_factory=dict, description="Name to directory, or to the name of an imported adapter."
    )
    runtime_lora: bool = Field(False, description="Allow loading and unloading adapters while the engine runs.")
    max_loras: int | None = Field(None, ge=1, description="Adapters in one batch.")
    max_lora_rank: int | None = Field(None, ge=1, description="The highest adapter rank to allow.")
    api_key_env: str | None = Field(None, description="The variable that holds the key that clients must send.")
    stack: str | None = Field(
        None, min_length=1, description="Name of the stack, where a server runs it; the directory's name when omitted."
    )

    @field_validator("env", mode="before")
    @classmethod
    def _env_text(cls, value: Any) -> Any:
        """Accept numbers: `VLLM_CPU_KVCACHE_SPACE: 1` means the text `1`. A boolean has no obvious text; refuse it."""
        if not isinstance(value, dict):
            return value
        return {
            key: str(item) if isinstance(item, int | float) and not isinstance(item, bool) else item
            for key, item in value.items()
        }


def load_manifest(path: Path, *, host: str = "127.0.0.1", port: int = 8000, engine: str | None = None) -> LaunchSpec:
    """Read the file, or `garrison.yaml` in the directory.

    Args:
        host, port: the defaults of the manifest's.
        engine: takes the place of the manifest's.

    Raises:
        InvalidError: the file cannot be read, or a line is wrong; the message has file, line and column.
    """
    file = path / "garrison.yaml" if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidError(f"cannot read the manifest {file}: {reason}", hint="Name it with --file.") from None
    manifest = _validate(read_document(text, str(file)))
    engine = engine or manifest.engine
    directory = file.absolute().parent
    return LaunchSpec(
        model=_beside(directory, manifest.model),
        engine=engine,
        executable=None if manifest.executable is None else _program(directory, manifest.executable),
        host=manifest.host or host,
        port=manifest.port or port,
        served_name=manifest.served_model_name,
        args=(*option_args(manifest.options, engine), *manifest.args),
        env=manifest.env,
        adapters=tuple(AdapterSpec(name, _adapter(directory, where)) for name, where in manifest.adapters.items()),
        runtime_lora=manifest.runtime_lora,
        max_loras=manifest.max_loras,
        max_lora_rank=manifest.max_lora_rank,
        api_key_env=manifest.api_key_env,
    )


def option_args(options: Mapping[str, Any], engine: str) -> tuple[str, ...]:
    """Turn `{"max-model-len": 4096, "enforce-eager": True}` into `("--max-model-len", "4096", "--enforce-eager")`, in
    the forms that the catalogue of `engine` gives for each; see `engines.options`.

    Raises:
        InvalidError: two spellings of one option, or the model, which has a key of its own.
    """
    if clash := [name for name in options if name.lstrip("-") == "model"]:
        raise InvalidError(f"options: {clash[0]} is not an option here", hint="Name the model with the key `model`.")
    # The simulator takes vLLM's flags, and has no catalogue of its own.
    return to_args(options, registry.engine("vllm" if engine == "sim" else engine).catalogue())


def _beside(directory: Path, text: str) -> str:
    """Resolve an explicit relative path against the manifest's directory; anything else may be a name and is kept."""
    if text.startswith(("./", "../")) or text in (".", ".."):
        return str((directory / text).resolve())
    return str(expanded(text)) if text.startswith("~") else text


def _program(directory: Path, text: str) -> Path:
    """Resolve a path against the manifest's directory. A name without a slash is looked up on PATH."""
    return (directory / expanded(text)).absolute() if "/" in text else Path(text)


def _adapter(directory: Path, text: str) -> str:
    """Resolve a path against the manifest's directory. The name of an imported adapter has no slash."""
    return str((directory / expanded(text)).resolve()) if "/" in text or text in (".", "..") else text


def _validate(document: Document) -> ServeManifest:
    if not isinstance(document.content, dict):
        raise InvalidError(f"{document.name} has no `key: value` lines", hint="Start with `model: org/name`.")
    if "model" not in document.content and document.content.keys() & {"stack", "targets", "instances"}:
        raise InvalidError(
            f"{document.name} declares a stack, not one server to start",
            hint="`garrison up`, `plan` and `apply` read it; `garrison serve` needs a manifest with `model:`.",
        )
    try:
        return ServeManifest.model_validate(document.content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _located(document, first["loc"], first["type"], first["msg"]) from None


def _located(document: Document, path: tuple[str | int, ...], kind: str, text: str) -> InvalidError:
    if kind not in ("missing", "extra_forbidden"):
        path, _, _ = inside(document.content, path)
    where = document.where(tuple(map(str, path)) if kind == "invalid_key" else path)
    key = ".".join(str(part) for part in path)
    if kind == "missing":
        return InvalidError(f"{where}: key {key!r} is missing", hint=f"Add a line `{key}: …`.")
    if kind == "extra_forbidden":
        known = list(ServeManifest.model_fields)
        close = difflib.get_close_matches(str(path[-1]), known, 1)
        hint = f"Did you mean {close[0]!r}?" if close else "Known keys: " + ", ".join(known)
        return InvalidError(f"{where}: unknown key {key!r}", hint=hint)
    if path[0] == "options" and len(path) > 1:
        text = "an option is text, a number, true, false, null, a list of these, or a mapping"
    return InvalidError(f"{where}: {key}: {text[:1].lower()}{text[1:]}", hint="Fix this line.")
