"""The cascade, the verdict and the wait for memory, with the probes' twin."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import GpuThresholdError, InvalidError
from garrison.preflight.gpu.check import MemoryHeld, check_gpus, foresee, memory_held, wait_for_release
from garrison.preflight.gpu.gpus import Gpu, GpuProcess
from garrison.preflight.machine import Machine
from garrison.preflight.report import PreflightRequest, Thresholds
from garrison.testing.clock import FakeClock
from garrison.testing.gpus import MemoryGpuProbe

FIT = Gpu(0, "GPU-aaaa", "H", 80_000, 70_000, 10_000, 40, 10, "P0")
HOT = replace(FIT, temperature_c=95)


def request(**fields: Any) -> PreflightRequest:
    return PreflightRequest(host="0.0.0.0", port=8000, lockfile=Path("/tmp/x"), **fields)


def smi(*readings: Any) -> MemoryGpuProbe:
    return MemoryGpuProbe(*readings, source="nvidia-smi")


@pytest.mark.parametrize(
    ("probes", "source"),
    [
        ([MemoryGpuProbe([FIT]), smi(None)], "nvml"),
        ([MemoryGpuProbe(None), smi([FIT])], "nvidia-smi"),
        ([MemoryGpuProbe(None), smi(None)], "unavailable"),
    ],
    ids=["nvml-preferred", "nvidia-smi-fallback", "neither-warns-and-goes-on"],
)
def test_cascade(probes: list[MemoryGpuProbe], source: str) -> None:
    found = check_gpus(request(), probes)
    assert found.source == source
    assert len(found.gpus) == (source != "unavailable")
    assert bool(found.warnings) == (source == "unavailable")


def test_driver_present_without_gpus_is_a_hard_failure() -> None:
    with pytest.raises(InvalidError, match="reports no GPU") as caught:
        check_gpus(request(), [MemoryGpuProbe([]), smi([FIT])])
    assert caught.value.exit_code == 1


def test_a_fatal_threshold() -> None:
    with pytest.raises(GpuThresholdError, match="GPU 0: temperature: 95") as caught:
        check_gpus(request(), [MemoryGpuProbe([HOT])])
    assert caught.value.exit_code == 1
    assert caught.value.details["gpus"][0]["warnings"] == ["temperature: 95 °C, limit 85 °C"]
    assert caught.value.details["gpu_check_source"] == "nvml"


def test_a_gpu_that_is_not_selected_is_not_judged() -> None:
    found = check_gpus(request(gpu_devices=("1",)), [MemoryGpuProbe([HOT, replace(FIT, index=1, uuid="GPU-bbbb")])])
    assert [one.index for one in found.gpus] == [1]
    assert found.problems == ()


@pytest.mark.parametrize("devices", [("-1",), ("none",), ("NoDevFiles",), ("-1", "0")])
@pytest.mark.parametrize("gpus", [[HOT], []], ids=["a hot one", "a driver without any"])
def test_none_selected_warns_and_asks_nothing(devices: tuple[str, ...], gpus: list[Gpu]) -> None:
    found = check_gpus(request(gpu_devices=devices), [MemoryGpuProbe(gpus)])
    assert (found.gpus, found.source, found.warnings) == ((), "skipped", ("no GPU is selected: none was checked",))
    foresee(request(gpu_devices=devices), (), [MemoryGpuProbe(gpus)])


def test_names_after_the_first_that_is_no_device_do_not_count() -> None:
    found = check_gpus(request(gpu_devices=("1", "-1", "0")), [MemoryGpuProbe([HOT, replace(FIT, index=1, uuid="G")])])
    assert [one.index for one in found.gpus] == [1]


@pytest.mark.parametrize("gpus", [[HOT], []], ids=["threshold", "no-gpu"])
def test_a_dry_run_lists_what_would_be_fatal(gpus: list[Gpu]) -> None:
    """The seed's dry run knows the exit codes 0, 2, 3 and 4 alone."""
    assert check_gpus(request(), [MemoryGpuProbe(gpus)], dry_run=True).would_fail


def test_not_fatal_is_a_warning() -> None:
    found = check_gpus(request(thresholds=Thresholds(fail_on=())), [MemoryGpuProbe([HOT])])
    assert found.warnings == ("GPU 0: temperature: 95 °C, limit 85 °C",)


HOLDING = replace(FIT, memory_used_mib=61_000, processes=(GpuProcess(7, 60_000), GpuProcess(9, 500)))
ZOMBIE = replace(HOLDING, processes=(GpuProcess(9, 500),))
FREED = replace(ZOMBIE, memory_used_mib=1_000)


def machine(clock: FakeClock) -> Machine:
    return Machine(lambda _: None, clock=clock)


def test_what_some_pids_hold() -> None:
    assert memory_held([7], [MemoryGpuProbe([HOLDING])]) == MemoryHeld(
        frozenset({7}), {"GPU-aaaa": 60_000}, {"GPU-aaaa": 61_000}
    )
    assert memory_held([8], [MemoryGpuProbe([HOLDING])]) is None
    assert memory_held([7], [MemoryGpuProbe(None)]) is None
    assert memory_held([7], [MemoryGpuProbe([])]) is None


def test_waits_until_the_memory_is_back_and_not_only_the_process_gone() -> None:
    before = memory_held([7], [MemoryGpuProbe([HOLDING])])
    assert before is not None
    clock = FakeClock()
    probe = MemoryGpuProbe([HOLDING], [ZOMBIE], [ZOMBIE], [FREED])
    assert wait_for_release(before, [probe], machine(clock)) == (60_000, True)
    assert clock.monotonic() == pytest.approx(0.75)


def test_gives_up_at_the_deadline_and_says_how_much() -> None:
    before = memory_held([7], [MemoryGpuProbe([HOLDING])])
    assert before is not None
    clock = FakeClock()
    half = replace(ZOMBIE, memory_used_mib=31_000)
    assert wait_for_release(before, [MemoryGpuProbe([half])], machine(clock)) == (30_000, False)
    assert clock.monotonic() == pytest.approx(30)


def test_a_driver_that_goes_away_meanwhile_is_not_released_memory() -> None:
    before = memory_held([7], [MemoryGpuProbe([HOLDING])])
    assert before is not None
    assert wait_for_release(before, [MemoryGpuProbe(None)], machine(FakeClock())) == (0, False)
