"""`vllm-resolve-model`: find or fetch the model, write the env file for `vllm-serve`. The contract is the seed's."""

import json as json_module
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from garrison.base.errors import InvalidError, UsageError
from garrison.base.settings import Settings
from garrison.cli.outermost import outermost, warned

if TYPE_CHECKING:
    from garrison.models.files.progress import Progress

__all__ = ["main", "run"]

_HELP = """\
usage: vllm-resolve-model [--json]

Find the model in the sources, in order; fetch it if none has it on disk; check it; and write an env file for
vllm-serve. Progress is reported on standard error.

  --json      one JSON object on standard output: model, model_id, revision, path, source, env_file, tried
  -h, --help  this text

required:
  VLLM_MODEL                 Name of the model's directory: a single safe path element.
  VLLM_MODELS_DIR            Where models live, and the Hugging Face cache.
  VLLM_MODEL_ID              Model id, ORG/NAME; or VLLM_MODEL_ORG, then it is ORG/VLLM_MODEL.
  FLOX_ENV_CACHE             Directory of the env file; or VLLM_MODEL_ENV_FILE, the file itself.

optional:
  VLLM_MODEL_SOURCES         Sources in order. Default: flox,local,hf-cache,r2,hf-hub
  VLLM_MODEL_REVISION        Branch, tag or commit.
  FLOX_ENV                   The Flox environment, for the source flox.
  R2_BUCKET, R2_MODELS_PREFIX, R2_ENDPOINT_URL
                             An S3-compatible store, for the source r2; credentials in AWS_* or ~/.aws/credentials.
  HF_ENDPOINT, HF_TOKEN      Another hub; a token for gated models.
  VLLM_RESOLVE_LOCK_TIMEOUT  Seconds to wait for the lock of the model. Default: 300
  VLLM_SKIP_TOKENIZER_CHECK  1 accepts a model without tokenizer files. Default: 0
  VLLM_KEEP_LOGS             1 keeps the log of a successful download. Default: 0

exit codes:
  0   done                          12  network, credentials or hub error
  1   bad or missing variable       13  another command holds the lock
  10  no source has the model       14  not enough space on the disk
  11  found, incomplete or corrupt  64  bad command line
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The console script. `argv` is without the program's name."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    json = "--json" in arguments

    def call() -> int:
        if "-h" in arguments or "--help" in arguments:
            print(_HELP, end="")
            return 0
        if unknown := [argument for argument in arguments if argument != "--json"]:
            raise UsageError(
                f"vllm-resolve-model has no option {unknown[0]}",
                hint="The model is named by VLLM_MODEL; `vllm-resolve-model --help` lists the variables.",
            )
        settings = warned(Settings.load(os.environ, groups=("general", "model"), seed_defaults=True))
        _require(settings)
        from garrison.cli.views.transfer import choose

        with choose(json_lines=False) as progress:
            answer = run(settings, None, progress=progress, allow_gguf=False)
        if json:
            print(json_module.dumps(answer))
        else:
            print(f"vllm-resolve-model: wrote {answer['env_file']}", file=sys.stderr)
        return 0

    return outermost(call, json=json)


def run(
    settings: Settings,
    model: str | None,
    *,
    progress: "Progress",
    offline: bool = False,
    verify: bool = False,
    skip_tokenizer: bool | None = None,
    allow_gguf: bool = True,
    allow_patterns: tuple[str, ...] = (),
    hub_caches: tuple[Path, ...] = (),
) -> dict[str, Any]:
    """Resolve `model` (None: the model that the settings name) and write its env file.

    Shared by `vllm-resolve-model` and `garrison resolve`.

    Returns:
        `{"ok": true, "model", "model_id", "revision", "path", "source", "hf_home", "env_file", "tried"}`, JSON-ready.

    Raises:
        GarrisonError: as `resolve` does, and `InvalidError` when the env file cannot be written.
    """
    from garrison.models.envfile import env_file_path, variables, write_env_file
    from garrison.models.request import ResolveRequest
    from garrison.models.resolve import resolve

    request = ResolveRequest.from_settings(
        settings,
        model,
        offline=offline,
        verify=verify,
        skip_tokenizer=skip_tokenizer,
        allow_gguf=allow_gguf,
        allow_patterns=allow_patterns,
        hub_caches=hub_caches,
    )
    resolved = resolve(request, progress=progress)
    env_file = env_file_path(settings, request.layout, request.model)
    write_env_file(env_file, variables(request.model, resolved))
    return {"ok": True, **resolved.to_json(), "env_file": str(env_file)}


def _require(settings: Settings) -> None:
    missing = [
        name
        for name, value in (("VLLM_MODEL", settings.model), ("VLLM_MODELS_DIR", settings.models_dir))
        if value is None
    ]
    if settings.model_id is None and settings.model_org is None:
        missing.append("VLLM_MODEL_ID or VLLM_MODEL_ORG")
    if settings.flox_env_cache is None and settings.model_env_file is None:
        missing.append("FLOX_ENV_CACHE or VLLM_MODEL_ENV_FILE")
    if missing:
        raise InvalidError(
            f"not set: {', '.join(missing)}",
            hint="Export them; `vllm-resolve-model --help` lists the variables.",
            details={"missing": missing},
        )
