from dataclasses import replace
from typing import Any

import pytest

from garrison.launch.doctor.report import Check, EngineFact, GpuFact, MachineFacts, checks

GIB = 1024**3
GPU = GpuFact("H200", 143_771, 143_000, 35)
WELL = MachineFacts(
    system="Debian GNU/Linux 12, kernel 6.1",
    machine="x86_64, 16 CPUs",
    python="3.11.2",
    supported_system=True,
    memory_total=128 * GIB,
    memory_available=100 * GIB,
    driver="575.1",
    cuda="12.9",
    gpus=(GPU,),
    models_root="/models",
    disk_free=500 * GIB,
    disk_total=1000 * GIB,
    models_root_writable=True,
    shm_total=64 * GIB,
    hugepages="transparent: madvise",
    endpoint="127.0.0.1:8000",
    port=None,
    engines=(EngineFact("vllm", "/opt/vllm", "0.32.0"),),
    hub_url="https://hub.example",
    hub_asked=True,
    hub=None,
    clock_skew=0.4,
    open_files=65536,
    processes=65536,
    locked_memory=2**62,
)
UNKNOWN: dict[str, Any] = {
    "memory_total": None, "memory_available": None, "driver": None, "cuda": None, "gpus": (), "shm_total": None,
    "hugepages": None, "hub_asked": False, "clock_skew": None, "open_files": None, "processes": None,
    "locked_memory": None,
}  # fmt: skip

# what differs from a machine that is well: the line's name, its status, a part of its value, a part of its remedy
TABLE: dict[str, tuple[dict[str, Any], str, str, str, str]] = {
    "other system": ({"supported_system": False}, "system", "warn", "Debian", "Linux"),
    "little memory": ({"memory_available": GIB}, "memory", "warn", "1.0 GiB available", "Stop"),
    "no driver": ({"driver": None, "gpus": ()}, "NVIDIA driver", "ok", "CPU", ""),
    "driver is broken": (
        {"driver": None, "gpus": (), "gpu_problem": "mismatch"}, "NVIDIA driver", "fail", "mismatch", "nvidia-smi",
    ),
    "driver without GPUs": ({"gpus": ()}, "GPU", "fail", "none", "dmesg"),
    "GPU in use": ({"gpus": (replace(GPU, memory_free_mib=10),)}, "GPU 0", "warn", "10 MiB free", "nvidia-smi"),
    "second GPU in use": ({"gpus": (GPU, replace(GPU, memory_free_mib=0))}, "GPU 1", "warn", "0 MiB free", "nvidia"),
    "GPU that tells nothing": ({"gpus": (GpuFact("GB10", None, None, None),)}, "GPU 0", "ok", "GB10", ""),
    "disk full": ({"disk_free": GIB}, "disk", "fail", "1.0 GiB free", "GARRISON_MODELS_DIR"),
    "disk small": ({"disk_free": 10 * GIB}, "disk", "warn", "10.0 GiB free", "models list"),
    "models not writable": ({"models_root_writable": False}, "disk", "fail", "/models cannot be written", "MODELS_DIR"),
    "shm small": ({"shm_total": 64 * 1024**2}, "shared memory", "warn", "64.0 MiB", "--shm-size"),
    "no shm": ({"shm_total": None}, "shared memory", "skipped", "no /dev/shm", ""),
    "port taken": ({"port": "pid 5 holds it", "port_hint": "Stop pid 5."}, "port", "warn", "pid 5", "Stop pid 5."),
    "port taken, no hint": ({"port": "pid 5 holds it"}, "port", "warn", "pid 5", "--port"),
    "no engine": (
        {"engines": (EngineFact("vllm", None, None),)}, "engines", "fail", "simulator", "garrison engine install",
    ),
    "engine does not run": (
        {"engines": (EngineFact("mlx_lm", "/x/mlx", None, "no such module"),)}, "mlx_lm", "fail", "no such module",
        "garrison engine install mlx_lm",
    ),
    "hub away": ({"hub": "ConnectError"}, "hub", "warn", "https://hub.example: ConnectError", "Air-gapped"),
    "hub not asked": ({"hub_asked": False}, "hub", "skipped", "offline", ""),
    "clock ahead": ({"clock_skew": 3600.0}, "clock", "fail", "3600 s ahead of", "chrony"),
    "clock behind": ({"clock_skew": -61.0}, "clock", "fail", "61 s behind", "chrony"),
    "clock not compared": ({"clock_skew": None}, "clock", "skipped", "not checked", ""),
    "few open files": ({"open_files": 1024}, "open files", "warn", "1024", "ulimit -n"),
    "few processes": ({"processes": 100}, "processes", "warn", "100", "ulimit -u"),
    "locked memory small": ({"locked_memory": 64 * 1024}, "locked memory", "ok", "64 KiB", ""),
}  # fmt: skip


def line(facts: MachineFacts, name: str) -> Check:
    return next(check for check in checks(facts) if check.name == name)


@pytest.mark.parametrize(("change", "name", "status", "value", "remedy"), TABLE.values(), ids=TABLE)
def test_line(change: dict[str, Any], name: str, status: str, value: str, remedy: str) -> None:
    found = line(replace(WELL, **change), name)
    assert found.status == status
    assert value in found.value
    assert remedy in (found.remedy or "")


@pytest.mark.parametrize("change", [row[0] for row in TABLE.values()] + [UNKNOWN], ids=[*TABLE, "nothing known"])
def test_every_red_and_yellow_line_names_its_remedy_and_no_green_one_does(change: dict[str, Any]) -> None:
    for check in checks(replace(WELL, **change)):
        assert (check.remedy is not None) == (check.status in ("warn", "fail")), check
        assert check.value


def test_a_machine_that_is_well_is_green() -> None:
    assert {check.status for check in checks(WELL)} == {"ok"}


def test_what_is_not_known_is_neither_red_nor_green() -> None:
    unknown = {check.name for check in checks(replace(WELL, **UNKNOWN)) if check.status == "skipped"}
    assert unknown == {"memory", "shared memory", "huge pages", "hub", "clock"}
    assert {check.status for check in checks(replace(WELL, **UNKNOWN))} == {"ok", "skipped"}


def test_the_page_has_every_line_the_issue_asks_for() -> None:
    assert [check.name for check in checks(WELL)] == [
        "system", "python", "memory", "NVIDIA driver", "GPU 0", "disk", "shared memory", "huge pages", "port", "vllm",
        "hub", "clock", "open files", "processes", "locked memory",
    ]  # fmt: skip


def test_driver_and_cuda_versions() -> None:
    assert line(WELL, "NVIDIA driver").value == "575.1, CUDA 12.9"


def test_json() -> None:
    assert line(WELL, "clock").to_json() == {
        "name": "clock", "status": "ok", "value": "0 s ahead of the hub's", "remedy": None,
    }  # fmt: skip
