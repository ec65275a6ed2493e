"""The argv of `vllm serve`, from the env file that `vllm-resolve-model` wrote and from variables.

Names, order and files are the seed's contract.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from garrison.base.errors import InvalidError
from garrison.base.files import write_atomic
from garrison.base.presence import exists, is_dir, is_file
from garrison.base.settings import Settings, secret_variables, seed_variables
from garrison.engines.argv import flag_of, is_flag
from garrison.models.envfile import env_file_path, identity, read_env_file
from garrison.models.layout import Layout
from garrison.models.names import ModelName, model_from_directory

__all__ = ["Extras", "Plan", "argv", "environment", "guard", "plan"]

_REQUIRED = (
    ("engine_host", "VLLM_HOST"),
    ("engine_port", "VLLM_PORT"),
    ("tensor_parallel_size", "VLLM_TENSOR_PARALLEL_SIZE"),
    ("pipeline_parallel_size", "VLLM_PIPELINE_PARALLEL_SIZE"),
    ("kv_cache_dtype", "VLLM_KV_CACHE_DTYPE"),
    ("max_model_len", "VLLM_MAX_MODEL_LEN"),
    ("max_num_batched_tokens", "VLLM_MAX_NUM_BATCHED_TOKENS"),
    ("served_model_name", "VLLM_SERVED_MODEL_NAME"),
)

_GUARDED = {
    "--config": "VLLM_CONFIG_FILE",
    "--host": "VLLM_HOST",
    "--port": "VLLM_PORT",
    "--tensor-parallel-size": "VLLM_TENSOR_PARALLEL_SIZE",
    "-tp": "VLLM_TENSOR_PARALLEL_SIZE",
    "--pipeline-parallel-size": "VLLM_PIPELINE_PARALLEL_SIZE",
    "-pp": "VLLM_PIPELINE_PARALLEL_SIZE",
    "--kv-cache-dtype": "VLLM_KV_CACHE_DTYPE",
    "--max-model-len": "VLLM_MAX_MODEL_LEN",
    "--max-num-batched-tokens": "VLLM_MAX_NUM_BATCHED_TOKENS",
    "--served-model-name": "VLLM_SERVED_MODEL_NAME",
    "--enable-prefix-caching": "VLLM_PREFIX_CACHING",
    "--no-enable-prefix-caching": "VLLM_PREFIX_CACHING",
}
_VALUELESS = {"--enable-prefix-caching", "--no-enable-prefix-caching"}
_SEVERAL_VALUES = {"--served-model-name"}


@dataclass(frozen=True, slots=True)
class Extras:
    """Extra arguments without those that a variable sets."""

    kept: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """`argv` lacks the executable; `variables` are those of the env file."""

    argv: tuple[str, ...]
    variables: Mapping[str, str]
    warnings: tuple[str, ...]


def plan(settings: Settings, environ: Mapping[str, str], extra: Sequence[str]) -> Plan:
    """Check the variables, read the env file, find the config file.

    Raises:
        InvalidError: something is missing or wrong; all missing variables are named at once.
    """
    _require(settings)
    extras = guard(extra, strict=settings.strict_flags)
    variables = _env_file_variables(settings, environ)
    config = config_file(settings)
    return Plan(argv(settings, variables["_VLLM_RESOLVED_MODEL"], config, extras.kept), variables, extras.warnings)


def argv(settings: Settings, model: str, config: Path, extra: Sequence[str]) -> tuple[str, ...]:
    """The arguments in the documented order, without the executable."""
    return (
        "serve",
        model,
        *("--config", str(config)),
        *("--host", settings.engine_host),
        *("--port", str(settings.engine_port)),
        *("--tensor-parallel-size", str(settings.tensor_parallel_size)),
        *("--pipeline-parallel-size", str(settings.pipeline_parallel_size)),
        *("--kv-cache-dtype", str(settings.kv_cache_dtype)),
        *("--max-model-len", str(settings.max_model_len)),
        *("--max-num-batched-tokens", str(settings.max_num_batched_tokens)),
        *("--served-model-name", str(settings.served_model_name)),
        # vLLM's default is on, so omitting the flag would not turn it off.
        "--enable-prefix-caching" if settings.prefix_caching else "--no-enable-prefix-caching",
        *extra,
    )


def guard(extra: Sequence[str], *, strict: bool) -> Extras:
    """Drop the flags that a variable sets: otherwise the server could listen elsewhere than where preflight looked.

    Raises:
        InvalidError: with `strict`, for the first such flag.
    """
    kept: list[str] = []
    warnings: list[str] = []
    position = 0
    while position < len(extra):
        token = extra[position]
        flag = flag_of(token) if is_flag(token) else ""
        position += 1
        if flag not in _GUARDED:
            kept.append(token)
            continue
        if strict:
            raise InvalidError(f"{flag} is set by {_GUARDED[flag]}", hint=f"Set {_GUARDED[flag]} instead of the flag.")
        warnings.append(f"{flag} is ignored, because {_GUARDED[flag]} sets it")
        if "=" in token or flag in _VALUELESS:
            continue
        end = len(extra) if flag in _SEVERAL_VALUES else position + 1
        while position < min(end, len(extra)) and not is_flag(extra[position]):
            position += 1
    return Extras(tuple(kept), tuple(warnings))


def environment(environ: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment and the env file's variables, without those that Garrison reads and vLLM does not."""
    ours = seed_variables() | secret_variables()
    merged = {**environ, **variables}
    return {name: value for name, value in merged.items() if name not in ours and not name.startswith("_VLLM_")}


def config_file(settings: Settings) -> Path:
    """The file named by `VLLM_CONFIG_FILE`, else `vllm-config.yaml` in the cache directory, written on the first run.

    Raises:
        InvalidError: it is not a readable file.
    """
    if settings.engine_config_file is not None:
        path = settings.engine_config_file
    else:
        path = _cache_directory(settings) / "vllm-config.yaml"
        if not exists(path):
            packaged = resources.files("garrison.launch").joinpath("vllm-config.yaml").read_bytes()
            try:
                write_atomic(path, packaged)
            except OSError as error:
                raise InvalidError(
                    f"config file {path} cannot be written: {error.strerror}",
                    hint="Make FLOX_ENV_CACHE writable, or name a file with VLLM_CONFIG_FILE.",
                ) from None
    if not is_file(path) or not os.access(path, os.R_OK):
        raise InvalidError(f"config file {path} cannot be read", hint="Create it, or unset VLLM_CONFIG_FILE.")
    return path


def _require(settings: Settings) -> None:
    missing = [variable for name, variable in _REQUIRED if name not in settings.origins]
    if missing:
        raise InvalidError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set",
            hint="Export them; `vllm-serve --help` lists the variables.",
            details={"missing": missing},
        )


def _cache_directory(settings: Settings) -> Path:
    directory = settings.flox_env_cache
    if directory is None:
        raise InvalidError("FLOX_ENV_CACHE is not set", hint="Set it to the directory of env file and engine config.")
    if not is_dir(directory):
        raise InvalidError(f"FLOX_ENV_CACHE names {directory}, which is not a directory", hint="Create the directory.")
    return directory


def _env_file_variables(settings: Settings, environ: Mapping[str, str]) -> Mapping[str, str]:
    expected: ModelName | None = None
    # With an env file, no model need be named, and half a name is not compared.
    half_named = settings.model_id is None and settings.model_org is None
    if settings.model_id is not None or (settings.model is not None and not (half_named and settings.model_env_file)):
        expected = _expected(settings)
    if settings.model_env_file is not None:
        path = settings.model_env_file
    elif expected is None:
        raise InvalidError(
            "neither VLLM_MODEL_ID nor VLLM_MODEL with VLLM_MODEL_ORG is set", hint="Name the model that was resolved."
        )
    else:
        _cache_directory(settings)
        path = env_file_path(settings, Layout.from_settings(settings), expected)
    if not is_file(path):
        raise InvalidError(f"env file {path} does not exist", hint="Run vllm-resolve-model first.")
    variables = read_env_file(path, trusted=settings.env_file_trusted, environ=environ)
    if not variables.get("_VLLM_RESOLVED_MODEL"):
        raise InvalidError(f"{path} does not define _VLLM_RESOLVED_MODEL", hint="Run vllm-resolve-model again.")
    found = variables.get("_VLLM_MODEL_IDENTITY")
    if expected is not None and found is not None and found != identity(expected):
        raise InvalidError(
            f"{path} is for {found}, but the variables name {identity(expected)}",
            hint="Run vllm-resolve-model again, with the same variables.",
        )
    return variables


def _expected(settings: Settings) -> ModelName:
    if settings.model_id is None and settings.model_org is None:
        raise InvalidError("neither VLLM_MODEL_ID nor VLLM_MODEL_ORG is set", hint="Set one of the two.")
    name = settings.model or str(settings.model_id).rpartition("/")[2]
    return model_from_directory(
        name, model_id=settings.model_id, org=settings.model_org, revision=settings.model_revision
    )
