"""The console script `vllm-serve`: exec `vllm serve` with checked arguments. The contract is the seed's."""

import os
import sys

from garrison.base.errors import EngineMissingError, UsageError
from garrison.cli.outermost import outermost, warned

__all__ = ["main"]

_HELP = """\
Usage: vllm-serve [--print-cmd | --dry-run] [-- engine arguments]

Load the env file of vllm-resolve-model, check the variables, exec `vllm serve`.

  --print-cmd   print the argv to standard error, then exec
  --dry-run     print the argv to standard error and exit 0
  -h, --help    show this

Required: VLLM_HOST VLLM_PORT VLLM_TENSOR_PARALLEL_SIZE VLLM_PIPELINE_PARALLEL_SIZE VLLM_KV_CACHE_DTYPE
  VLLM_MAX_MODEL_LEN VLLM_MAX_NUM_BATCHED_TOKENS VLLM_SERVED_MODEL_NAME
  FLOX_ENV_CACHE, a directory, and VLLM_MODEL_ID or VLLM_MODEL_ORG with VLLM_MODEL, unless VLLM_MODEL_ENV_FILE is set
Optional: VLLM_MODEL_ENV_FILE, VLLM_PREFIX_CACHING (false), VLLM_CONFIG_FILE, VLLM_ENV_FILE_TRUSTED (false),
  VLLM_STRICT_FLAGS (0)
"""


def main() -> int:
    return outermost(_run, json=False)


def _run() -> int:
    arguments = sys.argv[1:]
    own, extra = (
        (arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :])
        if "--" in arguments
        else (arguments, [])
    )
    if "-h" in own or "--help" in own:
        print(_HELP, end="")
        return 0
    if unknown := [token for token in own if token not in ("--print-cmd", "--dry-run")]:
        raise UsageError(f"unknown option {unknown[0]!r}", hint="Engine arguments go after --: vllm-serve -- --flag")
    _serve(extra, print_command="--print-cmd" in own, dry_run="--dry-run" in own)
    return 0


def _serve(extra: list[str], *, print_command: bool, dry_run: bool) -> None:
    from garrison.base.children import child_environment
    from garrison.base.redaction import shown_command
    from garrison.base.settings import Settings
    from garrison.engines.executable import locate
    from garrison.engines.registry import engine
    from garrison.launch.vllm_serve import environment, plan

    settings = warned(
        Settings.load(os.environ, groups=("general", "endpoint", "model", "vllm-serve"), seed_defaults=True)
    )
    made = plan(settings, os.environ, extra)
    for warning in made.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if print_command or dry_run:
        print(f"CMD: {shown_command(('vllm', *made.argv))}", file=sys.stderr)
    if dry_run:
        return
    located = locate(engine("vllm"), data_dir=settings.data_dir, environ=os.environ)
    sys.stderr.flush()
    child = child_environment(environment(os.environ, made.variables))
    try:
        os.execve(located.path, [str(located.path), *made.argv], child)  # noqa: S606 - replacing this process with the engine is the job; no shell is involved
    except OSError as error:
        raise EngineMissingError(f"cannot run {located.path}: {error.strerror}", hint="Install vLLM again.") from None
