"""The commands of an installation, decided from values."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from garrison.base.children import SAFE_PYTHON
from garrison.engines.install.package_sources import PackageSources
from garrison.engines.install.recipes import Recipe

__all__ = ["Tools", "alias_metadata", "build_variables", "create_command", "install_command", "remaining_requirements"]


@dataclass(frozen=True, slots=True)
class Tools:
    """`python` is the interpreter for new environments; without `uv`, venv and pip are used."""

    python: Path
    uv: Path | None = None


def create_command(tools: Tools, environment: Path) -> tuple[str, ...]:
    """The command that creates an empty environment."""
    if tools.uv is not None:
        return (str(tools.uv), "venv", "--no-project", "--python", str(tools.python), str(environment))
    return (str(tools.python), SAFE_PYTHON, "-m", "venv", str(environment))


def install_command(
    tools: Tools,
    environment: Path,
    recipe: Recipe,
    sources: PackageSources,
    requirements: Sequence[str],
    *,
    alone: bool = False,
) -> tuple[str, ...]:
    """The command that installs `requirements`; with `alone`, without their dependencies."""
    python = str(environment / "bin" / "python")
    if tools.uv is not None:
        # As pip does. Otherwise each process of an engine compiles its thousands of modules when it starts, and where
        # it may not write the result, vLLM takes 150 s instead of 60 s.
        argv = [str(tools.uv), "pip", "install", "--compile-bytecode", "--python", python]
        if recipe.torch_backend is not None and not sources.names_any:
            argv += ["--torch-backend", recipe.torch_backend]
    else:
        argv = [python, SAFE_PYTHON, "-m", "pip", "install", "--progress-bar", "off"]
    if sources.offline:
        argv += ["--no-index"]
    if recipe.notice is not None:
        argv += ["--verbose"]  # otherwise a build of many minutes prints nothing
    if alone:
        argv += ["--no-deps"]
    return (*argv, *requirements)


def build_variables(recipe: Recipe, environ: Mapping[str, str], cpus: int, memory_bytes: int) -> dict[str, str]:
    """Variables for a build from source; none if nothing is built.

    llama.cpp's build would start all its compilers at once, and each uses up to 2 GiB.
    """
    if not recipe.cmake_args:
        return {}
    jobs = environ.get("LLAMA_CPP_BUILD_JOBS") or str(max(1, min(cpus, memory_bytes // (2 << 30))))
    cmake_args = " ".join((*recipe.cmake_args, *environ.get("CMAKE_ARGS", "").split()))
    return {"CMAKE_ARGS": cmake_args, "LLAMA_CPP_BUILD_JOBS": jobs}


def remaining_requirements(metadata: str, left_out: frozenset[str]) -> list[str]:
    """The requirements in a distribution's metadata, without extras and `left_out`; markers are kept."""
    required = HeaderParser().parsestr(metadata).get_all("Requires-Dist") or []
    return [line for line in required if not _is_extra(line) and _name(line) not in left_out]


def alias_metadata(name: str, version: str, stands_beside: str) -> dict[str, str]:
    """The files of a distribution that consists only of metadata: file name to content."""
    directory = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: Names the build of {stands_beside}\n"
    files = {f"{directory}/METADATA": metadata, f"{directory}/INSTALLER": "garrison\n"}
    record = "".join(f"{path},,\n" for path in (*files, f"{directory}/RECORD"))
    return files | {f"{directory}/RECORD": record}


def _is_extra(requirement: str) -> bool:
    return re.search(r";.*\bextra\s*==", requirement) is not None


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""
