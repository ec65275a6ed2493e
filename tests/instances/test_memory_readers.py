"""Readers of memory, on recorded output: nobody here has the hardware."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from garrison.base.procfs import WITHOUT_PROC
from garrison.base.programs import program_output
from garrison.instances.host_memory import AppleMemory, LinuxMemory, PsutilMemory, host_readers, parse_vm_stat
from garrison.instances.memory_reader import GpuMemory, Reading, first_reading, gpu_readers
from garrison.instances.room.values import HOST, Device
from garrison.preflight.gpu import amd_smi
from garrison.preflight.gpu.amd_smi import AmdSmiProbe
from garrison.preflight.gpu.gpus import Gpu, GpuProcess
from garrison.preflight.gpu.probe import ProbeError
from garrison.testing.gpus import MemoryGpuProbe
from garrison.testing.memory_reader import MemoryReadings

MIB, GIB = 1024**2, 1024**3

# ROCm 7: an object around the list, and a warning in front of it.
METRIC = """WARNING: User is missing the following required groups: render
{"gpu_data": [
  {"gpu": 0, "mem_usage": {
    "total_vram": {"value": 196592, "unit": "MB"}, "used_vram": {"value": 17153, "unit": "MB"},
    "free_vram": {"value": 179439, "unit": "MB"}, "total_visible_vram": {"value": 196592, "unit": "MB"},
    "total_gtt": {"value": 1031900, "unit": "MB"}}},
  {"gpu": 1, "mem_usage": {
    "total_vram": {"value": 196592, "unit": "MB"}, "used_vram": {"value": 284, "unit": "MB"}}}
]}"""
# ROCm 6: the list itself.
STATIC = """[
  {"gpu": 0, "asic": {"market_name": "MI300X-O", "vendor_id": "0x1002", "asic_serial": "0xC2FF1FF77417F1D6"}},
  {"gpu": 1, "asic": {"market_name": "N/A", "asic_serial": "0x00000000DEADBEEF"}}
]"""
PROCESSES = """[
  {"gpu": 0, "process_list": [
    {"process_info": {"name": "python3", "pid": 4242, "mem_usage": {"value": 17179869184, "unit": "B"},
      "memory_usage": {"gtt_mem": {"value": 0, "unit": "B"}, "cpu_mem": {"value": 0, "unit": "B"},
                       "vram_mem": {"value": 17179869184, "unit": "B"}}}},
    {"process_info": {"name": "other", "pid": 4243, "mem_usage": {"value": "N/A", "unit": "B"}}}]},
  {"gpu": 1, "process_list": [{"process_info": "No running processes detected"}]}
]"""


def answers(metric: str = METRIC, static: str = STATIC, process: str | None = PROCESSES) -> AmdSmiProbe:
    def run(arguments: Sequence[str]) -> str:
        assert arguments[-1] == "--json"
        found = {"metric": metric, "static": static, "process": process}[arguments[0]]
        if found is None:
            raise ProbeError("exit 1: permission denied")
        return found

    return AmdSmiProbe(run)


def test_amd_gpus_are_named_as_their_runtime_names_them() -> None:
    found = GpuMemory(answers(), "ROCR_VISIBLE_DEVICES").read()
    assert found.devices == (
        Device("GPU-c2ff1ff77417f1d6", 196592 * MIB, 179439 * MIB, index=0),
        Device("GPU-00000000deadbeef", 196592 * MIB, (196592 - 284) * MIB, index=1),
    )
    assert found.held == {"GPU-c2ff1ff77417f1d6": {4242: 16 * GIB, 4243: 0}}
    assert found.variable == "ROCR_VISIBLE_DEVICES"


def test_processes_may_be_hidden() -> None:
    found = answers(process=None).read()
    assert [gpu.processes for gpu in found] == [(), ()]
    assert found[0].name == "MI300X-O"


@pytest.mark.parametrize(
    ("metric", "static"),
    [
        ("ERROR: no driver", STATIC),
        ("{}", STATIC),
        ('{"gpu_data": 3}', STATIC),
        ("[" * 100_000, STATIC),
        (METRIC, "[]"),
        (METRIC, '[{"gpu": 0, "asic": {"asic_serial": "N/A"}}]'),
    ],
)
def test_other_output_of_amd_smi_is_no_gpu(metric: str, static: str) -> None:
    with pytest.raises(ProbeError):
        answers(metric, static).read()


def test_values_that_are_none() -> None:
    metric = '[{"gpu": 0, "mem_usage": {"total_vram": "N/A", "used_vram": {"value": -1}, "free_vram": {"unit": "MB"}}}]'
    found = GpuMemory(answers(metric), "")
    assert found.read().devices == ()


@pytest.mark.system
def test_amd_smi_is_an_absolute_program_with_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "amd-smi"
    program.write_text(f"#!/bin/sh\npwd >&2\ncase $1 in metric) cat <<'X'\n{METRIC}\nX\n;; *) exit 3;; esac\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ProbeError, match="exit 3: /"):
        AmdSmiProbe().read()
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    monkeypatch.setattr(amd_smi, "_SECONDS", 0.3)
    began = time.monotonic()
    with pytest.raises(ProbeError, match="did not end"):
        AmdSmiProbe().read()
    assert time.monotonic() - began < 10
    program.write_text("#!/bin/sh\nyes\n")
    monkeypatch.setattr(amd_smi, "_SECONDS", 20.0)
    with pytest.raises(ProbeError, match="more than"):
        AmdSmiProbe().read()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ProbeError, match="not installed"):
        AmdSmiProbe().read()


@pytest.mark.system
def test_a_program_that_closes_its_output_and_goes_on_is_killed() -> None:
    with pytest.raises(TimeoutError):
        program_output(("/bin/sh", "-c", "exec >&- 2>&-; sleep 600"), seconds=0.3, most_bytes=10)
    assert program_output((sys.executable, "-c", "print(7)"), seconds=20, most_bytes=10) == (0, "7\n")


VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                                     9436.
Pages active:                                 774260.
Pages inactive:                               915780.
Pages speculative:                              1639.
Pages throttled:                                   0.
Pages wired down:                             184732.
Pages purgeable:                               22877.
"Translation faults":                       37287533.
Pages copy-on-write:                         5732353.
File-backed pages:                           1021174.
Pages stored in compressor:                   371034.
Swapouts:                                          0.
"""
VM_STAT_PAGES = 9436 + 915780 + 1639 + 22877


def mac(vm_stat: str = VM_STAT, limit: str | None = "0\n", memory: str = "34359738368\n") -> AppleMemory:
    def run(argv: Sequence[str]) -> str:
        assert argv[0].startswith("/usr/")
        if argv[0] == "/usr/bin/vm_stat":
            return vm_stat
        if argv[-1] == "hw.memsize":
            return memory
        if limit is None:
            raise ProbeError("/usr/sbin/sysctl: exit 1")
        return limit

    return AppleMemory(run)


def test_unified_memory_of_apple() -> None:
    whole = Device(HOST, 32 * GIB, VM_STAT_PAGES * 16384)
    assert mac().read() == Reading((whole,))
    assert mac(limit=None).read() == Reading((whole,))
    assert mac(limit="8192\n").read() == Reading((Device(HOST, 8 * GIB, 8 * GIB),))
    assert parse_vm_stat(VM_STAT.replace("16384", "4096")) == VM_STAT_PAGES * 4096


@pytest.mark.parametrize("text", ["", "no such program", "Mach Virtual Memory Statistics: (page size of x bytes)\n"])
def test_other_output_of_vm_stat_is_no_memory(text: str) -> None:
    with pytest.raises(ProbeError):
        mac(text).read()
    with pytest.raises(ProbeError):
        mac(memory=text).read()


def test_system_memory_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(host_readers()[0], LinuxMemory)
    monkeypatch.setenv(WITHOUT_PROC, "1")
    (found,) = first_reading(host_readers())[0].devices
    assert found.total == psutil.virtual_memory().total
    assert 0 < found.free <= found.total
    monkeypatch.setattr(sys, "platform", "darwin")
    assert [type(one) for one in host_readers()] == [AppleMemory, PsutilMemory]


def test_nvidia_gpus_by_the_same_seam() -> None:
    gpus = [
        Gpu(0, "GPU-a", "card", 81920, 70000, 11920, processes=(GpuProcess(7, 100), GpuProcess(7, 20))),
        Gpu(1, "GPU-b", "card", 81920, None),
    ]
    found = GpuMemory(MemoryGpuProbe(gpus), "CUDA_VISIBLE_DEVICES").read()
    assert found.devices == (Device("GPU-a", 81920 * MIB, 70000 * MIB, index=0),)
    assert found.held == {"GPU-a": {7: 120 * MIB}}


def test_the_first_that_finds_a_device_counts() -> None:
    gpu = Device("GPU-a", 1, 1)
    found, reasons = first_reading([MemoryReadings(None), MemoryReadings([]), MemoryReadings([gpu])])
    assert found.devices == (gpu,)
    assert reasons == ("twin: nothing here", "twin: no device tells its memory")
    assert first_reading([])[0].devices == ()
    assert [one.source for one in gpu_readers()] == ["nvml", "nvidia-smi", "amd-smi"]


@pytest.mark.system
def test_this_machine_has_memory(tmp_path: Path) -> None:
    assert first_reading(host_readers())[0].devices[0].total > 0
    with pytest.raises(ProbeError):
        LinuxMemory(tmp_path).read()
    assert os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") == psutil.virtual_memory().total
