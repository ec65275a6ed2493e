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

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from garrison.base.documents import Document, read_document
from garrison.base.errors import InvalidError
from garrison.base.home import expanded
from garrison.base.presence import is_dir, is_file
from garrison.base.problems import Problems
from garrison.engines.options import to_args
from garrison.launch.manifest_problems import (
    EMPTY,
    add_invalid,
    add_misread_names,
    add_wrong_engine,
    add_wrong_options,
    options_engine,
)
from garrison.launch.spec import AdapterSpec, LaunchSpec

__all__ = ["DEFAULT_FILES", "ServeManifest", "default_manifest", "load_manifest"]

DEFAULT_FILES = ("serve.yaml", "garrison.yaml")
"""What is read from a directory; the first one wins. `garrison.yaml` may be the manifest of a stack."""

_Text = Annotated[str, Field(min_length=1)]
_OF_A_STACK = {"stack", "targets", "instances"}
_Scalar = str | int | float | bool


class ServeManifest(BaseModel):
    """The keys of the file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: _Text = Field(description="A name (`org/name`, `org/name@revision`), a directory or a file.")
    engine: _Text = Field("vllm", description="`vllm`, `llama_cpp`, `mlx_lm` or `sim`.")
    executable: _Text | None = Field(None, description="Your own engine instead of an installed one.")
    host: _Text | None = Field(None, description="Address to bind; `127.0.0.1` when omitted.")
    port: int | None = Field(None, ge=1, le=65535, description="Port to listen on; 8000 when omitted.")
    served_model_name: _Text | None = Field(None, description="Model name in answers; the model's id when omitted.")
    options: dict[str, _Scalar | list[_Scalar | dict[str, Any]] | dict[str, Any]] = Field(
        default_factory=dict, description="The engine's own flags without the dashes, in order."
    )
    args: list[str] = Field(default_factory=list, description="Engine arguments, verbatim, after the options.")
    env: dict[str, str] = Field(default_factory=dict, description="Variables for the engine.")
    adapters: dict[str, _Text] = Field(
        default_factory=dict, description="Name to directory, or to the name of an imported adapter."
    )
    runtime_lora: bool = Field(False, description="Allow loading and unloading adapters while the engine runs.")
    max_loras: int | None = Field(None, ge=1, description="Adapters in one batch.")
    max_lora_rank: int | None = Field(None, ge=1, description="The highest adapter rank to allow.")
    api_key_env: _Text | None = Field(None, description="The variable that holds the key that clients must send.")
    stack: _Text | None = Field(
        None, description="Name of the stack, where a server runs it; the directory's name when omitted."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_empty_value(cls, value: Any) -> Any:
        """A key without a value was meant to have one: the default must not take its place."""
        if value is None:
            raise PydanticCustomError(EMPTY, "has no value")
        return value


def default_manifest(directory: Path) -> Path | None:
    """The manifest that `garrison serve` reads in `directory`; None if there is none."""
    return next((directory / name for name in DEFAULT_FILES if is_file(directory / name)), None)


def load_manifest(path: Path, *, host: str = "127.0.0.1", port: int = 8000, engine: str | None = None) -> LaunchSpec:
    """Read the file, or `serve.yaml` or else `garrison.yaml` in the directory.

    Args:
        host, port: the defaults of the manifest's.
        engine: takes the place of the manifest's.

    Raises:
        InvalidError: the file cannot be read, or lines are wrong; the message has file, line and column of up to ten
            errors.
    """
    file = (default_manifest(path) or path / DEFAULT_FILES[-1]) if is_dir(path) else path
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidError(f"cannot read the manifest {file}: {reason}", hint="Name it with --file.") from None
    manifest = _validate(read_document(text, str(file)), engine)
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
        InvalidError: a value that no argument can stand for.
    """
    return to_args(options, options_engine(engine).catalogue())


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


def _validate(document: Document, engine: str | None) -> ServeManifest:
    """Return what the document says. `engine`: as for `load_manifest`."""
    content = document.content
    if not isinstance(content, dict):
        raise InvalidError(f"{document.name} has no `key: value` lines", hint="Start with `model: org/name`.")
    if "model" not in content and content.keys() & _OF_A_STACK:
        raise InvalidError(
            f"{document.name} declares a stack, not one server to start",
            hint=f"`garrison up`, `plan` and `apply` read it. `garrison serve` needs `model:`, and prefers "
            f"{DEFAULT_FILES[0]} where both are in one directory.",
        )
    problems = Problems()
    add_misread_names(problems, document)
    if isinstance(env := content.get("env"), dict):
        content = content | {"env": {key: _env_text(document, key, value) for key, value in env.items()}}
    manifest = None
    try:
        manifest = ServeManifest.model_validate(content)
    except ValidationError as error:
        add_invalid(problems, document, error, ServeManifest)
    named = content.get("engine", "vllm")
    if isinstance(named, str) and named:
        add_wrong_engine(problems, document, named)
    if isinstance(options := content.get("options"), dict):
        add_wrong_options(problems, document, options, _known_engine(engine or named))
    problems.refuse()
    assert manifest is not None
    return manifest


def _env_text(document: Document, name: str, value: Any) -> Any:
    """Accept numbers: `UMASK: 022` means the text that is written. A boolean has no obvious text; it is refused."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return document.scalars.get(("env", name), str(value))


def _known_engine(name: Any) -> str:
    """`name`, or the default where it is wrong, which is another error."""
    try:
        return options_engine(name).name if isinstance(name, str) else "vllm"
    except InvalidError:
        return "vllm"
