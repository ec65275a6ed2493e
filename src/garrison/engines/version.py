"""The version of a program: from the metadata of its distribution, which is fast, or by running it, which is not.

`vllm --version` imports torch and takes up to 20 s; the name of a directory beside it tells the same.
"""

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from garrison.base.children import DIRECTORY, child_environment
from garrison.base.errors import EngineMissingError
from garrison.base.presence import is_missing

__all__ = ["UNKNOWN", "distribution_version", "parse_version", "run_version", "version_of"]

UNKNOWN = "unknown"
_RUN_SECONDS = 180
_LLAMA_BUILD = re.compile(r"\bbuild (\d+)|^version: (\d+) \(", re.MULTILINE)
# Each part starts with a character that cannot occur in the part before, so there is only one way to match a line.
_NUMBERS = re.compile(r"\d+(?:\.\d+)*(?:[-+.]?[A-Za-z][A-Za-z0-9.]*(?:[-+][A-Za-z][A-Za-z0-9.]*)*)?")
_BUILD_DIGITS = 18


def version_of(executable: Path, distributions: Sequence[str], run_with: Sequence[str] | None) -> str:
    """The version of `executable`; `unknown` if neither its metadata nor the program tells.

    Args:
        distributions: names of its possible distributions, the most specific first.
        run_with: arguments that make the program print its version; None if there are none.

    Raises:
        EngineMissingError: there is no such program, or it cannot be run.
    """
    if is_missing(executable):
        raise EngineMissingError(
            f"there is no program {executable}", hint="`garrison engine list` shows the installed engines."
        )
    found = distribution_version(executable, distributions)
    if found is not None:
        return found
    return run_version(executable, run_with) if run_with is not None else UNKNOWN


def distribution_version(executable: Path, distributions: Sequence[str]) -> str | None:
    """The version of the first of `distributions` in the environment of `executable`."""
    for distribution in distributions:
        prefix = distribution.replace("-", "_").lower() + "-"
        for site in _site_packages(executable):
            for entry in sorted(site.glob("*.dist-info")):
                if entry.name.lower().startswith(prefix):
                    return entry.name.removesuffix(".dist-info").split("-", 1)[1]
    return None


def run_version(executable: Path, arguments: Sequence[str]) -> str:
    """Run the program and read the version from its output.

    Raises:
        EngineMissingError: it does not start, fails, or takes longer than three minutes. Details: `output`.
    """
    argv = [str(executable.absolute()), *arguments]
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=_RUN_SECONDS,
            check=False,
            errors="replace",
            env=child_environment(os.environ),
            cwd=DIRECTORY,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineMissingError(
            f"{executable} cannot be run: {error}", hint="Install the engine again: `garrison engine install`."
        ) from None
    if done.returncode != 0:
        tail = (done.stderr or done.stdout).strip().splitlines()[-5:]
        raise EngineMissingError(
            f"{executable} {' '.join(arguments)} ended with {done.returncode}: {tail[-1] if tail else 'no output'}",
            hint="Install the engine again: `garrison engine install`.",
            details={"output": tail},
        )
    return parse_version(done.stdout + "\n" + done.stderr) or UNKNOWN


def parse_version(output: str) -> str | None:
    """`0.32.0+cpu` from vLLM's last line; llama-server's build number, unless it was built without one."""
    if llama := _LLAMA_BUILD.search(output):
        build = (llama[1] or llama[2])[:_BUILD_DIGITS]
        if int(build):
            return build
    for line in reversed(output.strip().splitlines()):
        if line.startswith("version: "):
            return line.split()[1]
        if _NUMBERS.fullmatch(line.strip()):
            return line.strip()
    return None


def _site_packages(executable: Path) -> Iterator[Path]:
    seen: set[Path] = set()
    for path in (executable.absolute(), executable.resolve()):
        inside = [parent for parent in path.parents if parent.name == "site-packages"]
        for site in (*inside, *sorted(path.parent.parent.glob("lib/python3*/site-packages"))):
            if site not in seen:
                seen.add(site)
                yield site
