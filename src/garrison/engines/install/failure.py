"""Why an installation failed, from the last lines of its log."""

import re
from pathlib import Path

from garrison.base.errors import DiskFullError, EngineMissingError, FetchError, GarrisonError
from garrison.engines.install.package_sources import PackageSources
from garrison.engines.install.recipes import Recipe
from garrison.engines.system_libraries import MISSING, remedy

__all__ = ["explain_failure"]

_NO_NETWORK = re.compile(
    r"error sending request|dns error|Temporary failure in name resolution|Failed to establish a new connection|"
    r"NewConnectionError|ConnectTimeout|Read timed out|Connection refused|tls handshake|CERTIFICATE_VERIFY_FAILED",
    re.IGNORECASE,
)
_NOT_FOUND = re.compile(
    r"No solution found|No matching distribution found|was not found in the|there is no version of|unsatisfiable|"
    r"Could not find a version",
)
_NO_COMPILER = re.compile(r"No CMAKE_C(XX)?_COMPILER|CMAKE_CXX_COMPILER not set|command 'g?cc' failed: No such file")
_NO_TOOLKIT = re.compile(r"Could not find nvcc|CUDA Toolkit not found|No CMAKE_CUDA_COMPILER", re.IGNORECASE)


def explain_failure(
    recipe: Recipe, step: str, status: int, log: Path, tail: list[str], sources: PackageSources
) -> GarrisonError:
    """The error for a step that exited with `status`. Details: `log`, `log_tail`, `step`."""
    text = "\n".join(tail)
    details = {"engine": recipe.engine, "step": step, "status": status, "log": str(log), "log_tail": tail}
    what = f"{recipe.engine} could not be installed: {step} ended with {status}"
    if "No space left on device" in text or "os error 28" in text:
        return DiskFullError(f"{what}: no space left", hint=f"Free some space; the log is {log}", details=details)
    if missing := MISSING.search(text):
        library = missing[1]
        return EngineMissingError(f"{what}: {library} is missing", hint=remedy(library), details=details)
    if "ensurepip is not available" in text:
        hint = "Install python3-venv with the system's package manager, or uv, and run this again."
        return EngineMissingError(f"{what}: this Python cannot create environments", hint=hint, details=details)
    if _NO_TOOLKIT.search(text):
        hint = "Install the CUDA toolkit, or use --device cpu."
        return EngineMissingError(f"{what}: there is no CUDA compiler", hint=hint, details=details)
    if _NO_COMPILER.search(text):
        hint = "Install a C++ compiler (Debian: build-essential), or give a built wheel with --find-links."
        return EngineMissingError(f"{what}: there is no C++ compiler", hint=hint, details=details)
    if _NOT_FOUND.search(text):
        return FetchError(f"{what}: a package was not found", hint=_where_to_look(recipe, sources), details=details)
    if _NO_NETWORK.search(text):
        hint = "Check the network and the proxy, or install from a directory with --find-links DIR --offline."
        return FetchError(f"{what}: the package index cannot be reached", hint=hint, details=details)
    last = next((line for line in reversed(tail) if line.strip()), "no output")
    return EngineMissingError(f"{what}: {last.strip()}", hint=f"The whole log is {log}", details=details)


def _where_to_look(recipe: Recipe, sources: PackageSources) -> str:
    if sources.offline:
        return "Put the missing distribution into a directory given with --find-links."
    if recipe.torch_backend is not None:
        return (
            "PyTorch's CPU build is on PyTorch's own index: give its address with --extra-index-url, or a directory "
            "with the wheel with --find-links."
        )
    return "Check the version; --find-links DIR and --extra-index-url add places to look."
