"""Shared libraries that engines need from the system, and the packages that contain them.

A wheel cannot carry them all: on a minimal Debian the CPU build of vLLM installs, answers `--version`, and dies when it
starts, because libnuma is missing.
"""

import re

__all__ = ["MISSING", "remedy"]

MISSING = re.compile(r"(?<![\w.+-])(lib[\w.+-]{1,100}\.so[.\d]{0,20}): cannot open shared object file")
"""The loader's message; the group is the library."""

_DEBIAN = {
    "libnuma.so.1": "libnuma1",
    "libgomp.so.1": "libgomp1",
    "libstdc++.so.6": "libstdc++6",
    "libGL.so.1": "libgl1",
    "libcurl.so.4": "libcurl4",
    "libssl.so.3": "libssl3",
}


def remedy(library: str) -> str:
    """The next step when `library` is missing."""
    if library.startswith("libcuda.so"):
        return "Install the NVIDIA driver, or the engine's build for the CPU: --device cpu."
    package = _DEBIAN.get(library)
    if package is not None:
        return f"Install it; on Debian and Ubuntu, apt-get install {package}."
    return f"Install the system package with {library}; on Debian and Ubuntu, `apt-file search {library}` names it."
