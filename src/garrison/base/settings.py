"""Every setting, once. The reference page and `garrison config show` are made from this table.

A value comes from the first of: a flag, `GARRISON_<NAME>`, the seed's own variable, the config file, the default.
The table is plain dataclasses: pydantic-settings alone takes many times as long to import as an interpreter takes to
start, and `vllm-preflight` runs before every start of a server.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self

from garrison.base import values
from garrison.base.config_file import ConfigFile, read_config_file
from garrison.base.errors import InvalidError
from garrison.base.home import expanded, home_directory
from garrison.base.mistyped import mistyped_variables
from garrison.base.server_settings import ServerSettings
from garrison.base.setting import Setting, from_file, parse, row_of, setting

__all__ = ["SOURCES", "Origin", "Settings", "secret_variables", "seed_variables"]

SOURCES = ("flox", "local", "hf-cache", "r2", "hf-hub")
LOG_FORMATS = ("json", "console")
LOG_LEVELS = ("debug", "info", "warning", "error")
GPU_CONDITIONS = ("temperature", "memory", "utilization")

Origin = str
"""Where a value came from: `flag`, the variable's name, the config file's path, or `default`."""


_FLAG = values.flag
_WORD = values.word_flag
_TEXT = values.text()
_PATH = values.path
_POSITIVE = values.integer(1)


def _default_data_dir() -> Path:
    if shared := os.environ.get("XDG_DATA_HOME"):
        return expanded(shared) / "garrison"
    if (home := home_directory()) is not None:
        return home / ".local" / "share" / "garrison"
    raise InvalidError(
        "this user has no home directory, so there is no place for Garrison's data",
        hint="Set GARRISON_DATA_DIR to a directory that this user may write to, or set HOME.",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings(ServerSettings):
    """The values in force. `origins` says for each name where its value came from."""

    data_dir: Path = field(
        default_factory=_default_data_dir,
        metadata={
            "group": "general",
            "help": "Where engines, models and state live; `garrison` under `XDG_DATA_HOME` when unset.",
            "parse": _PATH,
        },
    )

    engine_host: str = setting(
        "endpoint",
        "Address an engine binds to.",
        values.host,
        "127.0.0.1",
        seeds=("VLLM_HOST",),
        seed_default="0.0.0.0",
        former="host",
    )
    engine_port: int = setting(
        "endpoint", "Port an engine listens on.", values.integer(1, 65535), 8000, seeds=("VLLM_PORT",), former="port"
    )

    dry_run: bool = setting(
        "preflight", "Report what would happen; signal nothing.", _FLAG, False, seeds=("VLLM_DRY_RUN",)
    )
    skip_gpu_check: bool = setting("preflight", "Skip all GPU checks.", _FLAG, False, seeds=("VLLM_SKIP_GPU_CHECK",))
    min_free_gpu_gb: float = setting(
        "preflight",
        "Free memory that each GPU must have, in GiB.",
        values.number(0),
        4.0,
        seeds=("VLLM_MIN_FREE_GPU_GB",),
    )
    max_gpu_temp_c: int = setting(
        "preflight", "Highest permitted temperature of a GPU, in °C.", _POSITIVE, 85, seeds=("VLLM_MAX_GPU_TEMP_C",)
    )
    max_gpu_util_pct: int = setting(
        "preflight", "Highest permitted utilization of a GPU, in percent.", values.integer(0, 100), 95,
        seeds=("VLLM_MAX_GPU_UTIL_PCT",),
    )  # fmt: skip
    gpu_fail_on: tuple[str, ...] = setting(
        "preflight", "GPU conditions that are fatal: temperature, memory, utilization.",
        values.csv(GPU_CONDITIONS), ("temperature",), seeds=("VLLM_GPU_FAIL_ON",),
    )  # fmt: skip
    gpu_devices: tuple[str, ...] = setting(
        "preflight", "GPUs to check, by index or UUID; all when empty, none for `none`.", values.csv(), (),
        seeds=("VLLM_GPU_DEVICES", "CUDA_VISIBLE_DEVICES"), when_empty={"CUDA_VISIBLE_DEVICES": "none"},
    )  # fmt: skip
    allow_other_uid_kill: bool = setting(
        "preflight", "Stop a vLLM that runs as another user.", _FLAG, False, seeds=("VLLM_ALLOW_OTHER_UID_KILL",)
    )
    stop_timeout: int = setting(
        "preflight", "Seconds from SIGTERM to SIGKILL, and again until the port is free.", values.integer(0), 15,
        seeds=("VLLM_STOP_TIMEOUT",),
    )  # fmt: skip
    process_signatures: tuple[str, ...] = setting(
        "preflight", "Further command-line signatures that mean vLLM.", values.csv(), (),
        seeds=("VLLM_PROCESS_SIGNATURES",),
    )  # fmt: skip
    preflight_lockfile: str = setting(
        "preflight", "Lock file; `{port}` stands for the port.", _TEXT, "/tmp/vllm-preflight.{port}.lock",
        seeds=("VLLM_PREFLIGHT_LOCKFILE",),
    )  # fmt: skip
    preflight_json: bool = setting(
        "preflight", "Print one JSON object on standard output.", _FLAG, False, seeds=("VLLM_PREFLIGHT_JSON",)
    )
    preflight_proxy_child: bool = setting(
        "preflight", "Stay the downstream command's parent, until it has bound the port and after.", _FLAG, True,
        seeds=("VLLM_PREFLIGHT_PROXY_CHILD",),
    )  # fmt: skip
    start_bind_timeout: float | None = setting(
        "preflight", "Seconds for the downstream command to bind the port; when unset, as long as it makes progress.",
        values.number(above=0), None, seeds=("VLLM_START_BIND_TIMEOUT",),
    )  # fmt: skip
    start_bind_poll: float = setting(
        "preflight", "Seconds between two checks of the port.", values.number(above=0), 0.2,
        seeds=("VLLM_START_BIND_POLL",),
    )  # fmt: skip
    progress_window: float = setting(
        "start", "Seconds without log output and CPU use after which a start counts as hung.",
        values.number(above=0), 300.0,
    )  # fmt: skip
    ready_timeout: float | None = setting(
        "start",
        "Seconds for an engine to become ready; when unset, as long as it makes progress.",
        values.number(above=0),
    )

    model: str | None = setting("model", "Model directory name: one safe path element.", _TEXT, seeds=("VLLM_MODEL",))
    model_org: str | None = setting("model", "Organisation part of the model id.", _TEXT, seeds=("VLLM_MODEL_ORG",))
    model_id: str | None = setting("model", "Model id, `org/name`.", _TEXT, seeds=("VLLM_MODEL_ID",))
    model_revision: str | None = setting(
        "model", "Branch, tag or commit on the hub.", _TEXT, seeds=("VLLM_MODEL_REVISION",)
    )
    models_dir: Path | None = setting(
        "model", "Where models live; `models` under the data directory when unset.", _PATH, seeds=("VLLM_MODELS_DIR",)
    )
    model_sources: tuple[str, ...] = setting(
        "model",
        "Sources, in the order in which they are tried.",
        values.csv(SOURCES),
        SOURCES,
        seeds=("VLLM_MODEL_SOURCES",),
    )
    model_env_file: Path | None = setting(
        "model", "The env file between resolve and serve.", _PATH, seeds=("VLLM_MODEL_ENV_FILE",)
    )
    flox_env: Path | None = setting("model", "The Flox environment, for the `flox` source.", _PATH, seeds=("FLOX_ENV",))
    flox_env_cache: Path | None = setting(
        "model", "Directory of env files and of the engine's config.", _PATH, seeds=("FLOX_ENV_CACHE",)
    )
    r2_bucket: str | None = setting("model", "Bucket of the `r2` source.", _TEXT, seeds=("R2_BUCKET",))
    r2_models_prefix: str | None = setting(
        "model", "Key prefix of models in the bucket.", _TEXT, seeds=("R2_MODELS_PREFIX",)
    )
    r2_endpoint_url: str | None = setting(
        "model", "Endpoint of the S3-compatible store.", _TEXT, seeds=("R2_ENDPOINT_URL",)
    )
    hf_endpoint: str | None = setting(
        "model", "Address of another hub than the public one.", _TEXT, seeds=("HF_ENDPOINT",)
    )
    hf_token: str | None = setting(
        "model", "Token for gated models.", values.token, seeds=("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"), secret=True
    )
    resolve_lock_timeout: int = setting(
        "model",
        "Seconds to wait for the lock of a model.",
        values.integer(0),
        300,
        seeds=("VLLM_RESOLVE_LOCK_TIMEOUT",),
    )
    skip_tokenizer_check: bool = setting(
        "model", "Accept a model without tokenizer files.", _FLAG, False, seeds=("VLLM_SKIP_TOKENIZER_CHECK",)
    )
    keep_logs: bool = setting(
        "model", "Keep the log of a successful download.", _FLAG, False, seeds=("VLLM_KEEP_LOGS",)
    )

    tensor_parallel_size: int | None = setting(
        "vllm-serve", "GPUs that each layer is split over.", _POSITIVE, seeds=("VLLM_TENSOR_PARALLEL_SIZE",)
    )
    pipeline_parallel_size: int | None = setting(
        "vllm-serve", "GPUs that the layers are distributed over.", _POSITIVE, seeds=("VLLM_PIPELINE_PARALLEL_SIZE",)
    )
    kv_cache_dtype: str | None = setting(
        "vllm-serve", "Type of the KV cache.", values.text(whitespace=False), seeds=("VLLM_KV_CACHE_DTYPE",)
    )
    max_model_len: int | None = setting(
        "vllm-serve", "Longest sequence, in tokens.", _POSITIVE, seeds=("VLLM_MAX_MODEL_LEN",)
    )
    max_num_batched_tokens: int | None = setting(
        "vllm-serve", "Most tokens in one batch.", _POSITIVE, seeds=("VLLM_MAX_NUM_BATCHED_TOKENS",)
    )
    served_model_name: str | None = setting(
        "vllm-serve", "Model name in answers.", _TEXT, seeds=("VLLM_SERVED_MODEL_NAME",)
    )
    prefix_caching: bool = setting(
        "vllm-serve", "Automatic prefix caching.", _WORD, False, seeds=("VLLM_PREFIX_CACHING",)
    )
    engine_config_file: Path | None = setting(
        "vllm-serve", "The engine's own config file.", _PATH, seeds=("VLLM_CONFIG_FILE",), former="config_file"
    )
    env_file_trusted: bool = setting(
        "vllm-serve", "Run the env file as shell code instead of parsing it as data.", _WORD, False,
        seeds=("VLLM_ENV_FILE_TRUSTED",),
    )  # fmt: skip

    strict_flags: bool = setting(
        "vllm-serve", "Refuse extra flags that a variable sets, instead of ignoring them.", _FLAG, False,
        seeds=("VLLM_STRICT_FLAGS",),
    )  # fmt: skip

    database_url: str | None = setting(
        "fleet", "The database, `sqlite:///path` or `postgresql://user@host/database`; `garrison.db` in the data directory when unset.",
        values.secret, secret=True,
    )  # fmt: skip
    retention: int = setting(
        "fleet", "Days that history is kept: events, observations, ended commands, superseded versions.", _POSITIVE, 90
    )

    log_format: str | None = setting(
        "log", "Log of programs that run for long, on standard error: `json` or `console`; none when unset.",
        values.choice(LOG_FORMATS),
    )  # fmt: skip
    log_level: str = setting(
        "log", "Least level that is logged: debug, info, warning, error.", values.choice(LOG_LEVELS), "info"
    )

    origins: Mapping[str, Origin] = field(default_factory=dict, compare=False, repr=False)
    warnings: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def table(cls) -> list[Setting]:
        """Every row, in the order of this file."""
        return [row_of(item) for item in fields(cls) if item.metadata]

    @classmethod
    def load(
        cls,
        environ: Mapping[str, str],
        *,
        groups: Iterable[str] | None = None,
        flags: Mapping[str, Any] | None = None,
        seed_defaults: bool = False,
    ) -> Self:
        """Read the settings of `groups` (all when None); the others keep their defaults and are not validated.

        Args:
            flags: values from the command line, already typed; None means not given.
            seed_defaults: take the seed's defaults, as the `vllm-*` commands do.

        Raises:
            InvalidError: a value breaks its rule; the message names the variable and the rule.
        """
        given = {name: value for name, value in (flags or {}).items() if value is not None}
        wanted = None if groups is None else set(groups)
        rows = cls.table()
        former = {row.former for row in rows if row.former}
        file = read_config_file(environ, {row.name for row in rows}, former)
        chosen: dict[str, Any] = {}
        origins: dict[str, Origin] = {}
        names = {name for row in rows for name in (row.env, row.former_env) if name is not None}
        warnings = mistyped_variables(environ, names)
        for row in rows:
            if row.name in given:
                chosen[row.name], origins[row.name] = given[row.name], "flag"
                continue
            if wanted is not None and row.group not in wanted:
                continue
            found = _variable(row, environ) or _line(row, file)
            if found is not None:
                chosen[row.name], origins[row.name] = found.value, found.origin
                warnings += found.warnings
            elif seed_defaults and row.seed_default is not None:
                chosen[row.name] = row.seed_default
        return cls(**chosen, origins=origins, warnings=tuple(warnings))

    @property
    def models_root(self) -> Path:
        return self.models_dir or self.data_dir / "models"

    @property
    def run_dir(self) -> Path:
        """Files of running commands, private to the user."""
        return self.data_dir / "run"

    @property
    def engine_records(self) -> Path:
        """Records of the engines that Garrison started, private to the user."""
        return self.run_dir / "engines"

    @property
    def database(self) -> str | Path:
        """The argument of `store.sql.store.open_store`: a URL, or the path of a SQLite file."""
        return self.database_url or self.data_dir / "garrison.db"


@cache
def seed_variables() -> frozenset[str]:
    """The `VLLM_*` variables that Garrison reads. They are removed from an engine's environment: vLLM owns that prefix
    and gives some of them another meaning (`VLLM_PORT` is the first port of its internal pool)."""
    return frozenset(seed for row in Settings.table() for seed in row.seeds if seed.startswith("VLLM_"))


@cache
def secret_variables() -> frozenset[str]:
    """Garrison's own variables for secrets. No engine needs them, so none gets them. A seed's variable (`HF_TOKEN`) may
    be the engine's too and is kept."""
    return frozenset(row.env for row in Settings.table() if row.secret)


class _Found(NamedTuple):
    value: Any
    origin: Origin
    warnings: tuple[str, ...] = ()


def _variable(row: Setting, environ: Mapping[str, str]) -> _Found | None:
    for variable in filter(None, (row.env, row.former_env, *row.seeds)):
        raw = environ.get(variable, "")
        if variable in environ and not raw.strip():
            raw = row.when_empty.get(variable, raw)
        if raw != "":
            former = f"{variable} is now {row.env}; the old name goes in the next release"
            warnings = (former,) if variable == row.former_env else ()
            return _Found(parse(row, variable, raw), variable, warnings)
    return None


def _line(row: Setting, file: ConfigFile) -> _Found | None:
    """The row's line in the config file. `name:` without a value counts as no line."""
    key = next((key for key in (row.name, row.former) if key and file.get(key) is not None), None)
    if key is None:
        return None
    former = f"{file.path}: {key} is now {row.name}; the old name goes in the next release"
    value = from_file(row, f"{file.where(key)}: {key}", file.get(key))
    return _Found(value, file.path, (former,) if key == row.former else ())
