from pathlib import Path

import pytest

from garrison.base.errors import DiskFullError, EngineMissingError, FetchError, GarrisonError
from garrison.engines.install.failure import explain_failure
from garrison.engines.install.package_sources import PackageSources
from garrison.engines.install.recipes import recipe

ROWS = [
    ("error: failed to write: No space left on device (os error 28)", DiskFullError, "Free some space"),
    ("The virtual environment was not created successfully because ensurepip is not available.", EngineMissingError,
     "python3-venv"),
    ("× No solution found when resolving dependencies:\n╰─▶ Because there is no version of torch==2.13.0+cpu",
     FetchError, "--extra-index-url"),
    ("ERROR: No matching distribution found for torch==2.13.0+cpu", FetchError, "--find-links"),
    ("error: Request failed after 3 retries\n Caused by: dns error: failed to lookup address", FetchError, "--offline"),
    ("CMake Error: CMAKE_CXX_COMPILER not set, after EnableLanguage", EngineMissingError, "build-essential"),
    ("ImportError: libnuma.so.1: cannot open shared object file: No such file or directory", EngineMissingError,
     "apt-get install libnuma1"),
    ("something nobody foresaw", EngineMissingError, "/data/x.log"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "error", "hint"), ROWS, ids=[row[0][:40] for row in ROWS])
def test_reasons(text: str, error: type[GarrisonError], hint: str) -> None:
    vllm = recipe("vllm", "cpu", has_nvidia=False, is_macos=False)
    found = explain_failure(vllm, "installing", 1, Path("/data/x.log"), text.splitlines(), PackageSources())
    assert type(found) is error
    assert hint in str(found.hint)
    assert found.details["log_tail"] == text.splitlines()


def test_offline_the_directory_is_the_only_place_to_look() -> None:
    vllm = recipe("vllm", "cpu", has_nvidia=False, is_macos=False)
    tail = ["No matching distribution found for torch"]
    found = explain_failure(vllm, "installing", 1, Path("/x.log"), tail, PackageSources(offline=True))
    assert found.hint is not None
    assert "--extra-index-url" not in found.hint
