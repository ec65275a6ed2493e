import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from garrison.preflight.gpu.gpus import GpuProcess
from garrison.preflight.gpu.nvidia_smi import NvidiaSmiProbe, parse_smi_gpus, parse_smi_processes
from garrison.preflight.gpu.probe import ProbeError

CSV = (
    "0, GPU-6f0c, NVIDIA H200, 143771, 143110, 3, 27, 0, P0, 0x0000000000000001\n"
    "1, GPU-7a1d, NVIDIA A10G, 23028, 22000, 500, [N/A], [Not Supported], P8, Not Active\n"
)
APPS = "GPU-6f0c, 4321, 70000\nGPU-6f0c, 4322, [N/A]\n\n"


def test_fields_and_values_that_are_not_there() -> None:
    first, second = parse_smi_gpus(CSV, parse_smi_processes(APPS))
    assert (first.index, first.uuid, first.name) == (0, "GPU-6f0c", "NVIDIA H200")
    assert (first.memory_total_mib, first.memory_free_mib, first.memory_used_mib) == (143771, 143110, 3)
    assert (first.temperature_c, first.utilization_pct, first.pstate) == (27, 0, "P0")
    assert (first.clocks_event_reasons_active, first.throttle_reasons) == ("0x0000000000000001", ("idle",))
    assert first.processes == (GpuProcess(4321, 70000), GpuProcess(4322, None))
    assert (second.temperature_c, second.utilization_pct, second.clocks_event_reasons_active) == (None, None, None)


@pytest.mark.parametrize("text", ["what is this\n", "0, GPU, x\n", "a, b, c, d, e, f, g, h, i, j\n"])
def test_other_output_is_no_reading(text: str) -> None:
    with pytest.raises(ProbeError):
        parse_smi_gpus(text)


class Smi:
    def __init__(self, *answers: tuple[int, str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, arguments: Sequence[str]) -> tuple[int, str]:
        self.asked.append(arguments[0])
        return self.answers.pop(0)


def test_an_older_driver_is_asked_by_the_older_name() -> None:
    smi = Smi((2, 'Field "clocks_event_reasons.active" is not a valid field to query.'), (0, CSV), (0, APPS))
    assert len(NvidiaSmiProbe(smi).read()) == 2
    assert "clocks_event_reasons" in smi.asked[0]
    assert "clocks_throttle_reasons" in smi.asked[1]


def test_no_devices_is_a_reading_of_none() -> None:
    assert NvidiaSmiProbe(Smi((6, "No devices were found\n"))).read() == ()


def test_no_driver_is_no_reading() -> None:
    answer = (9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\nMore.\n")
    with pytest.raises(ProbeError, match="exit 9: NVIDIA-SMI has failed"):
        NvidiaSmiProbe(Smi(answer, answer)).read()


def test_processes_that_cannot_be_listed_are_left_out() -> None:
    assert NvidiaSmiProbe(Smi((0, CSV), (1, "no"))).read()[0].processes == ()


@pytest.mark.system
def test_the_executable_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + "/usr/bin:/bin")
    with pytest.raises(ProbeError, match="not installed"):
        NvidiaSmiProbe().read()
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncase $1 in *query-gpu*) printf '%s' '{CSV}';; *) printf '%s' '{APPS}';; esac\n")
    program.chmod(0o755)
    assert [one.uuid for one in NvidiaSmiProbe().read()] == ["GPU-6f0c", "GPU-7a1d"]
