import pytest

from garrison.base.errors import InvalidError
from garrison.preflight.gpu.gpus import Gpu, GpuProcess, Problem, held_mib, judge, select, throttle_words
from garrison.preflight.report import Thresholds

FIT = Gpu(0, "GPU-aaaa1111", "H", 80_000, 70_000, 10_000, 40, 10, "P0")


def gpu(**fields: object) -> Gpu:
    from dataclasses import replace

    return replace(FIT, **fields)


ROWS = [
    ("memory-below-is-fatal-when-listed", {"memory_free_mib": 4095}, ("memory",), [("memory", True)]),
    ("memory-below-warns-by-default", {"memory_free_mib": 4095}, ("temperature",), [("memory", False)]),
    ("memory-at-the-limit-is-enough", {"memory_free_mib": 4096}, ("memory",), []),
    ("temperature-above-is-fatal-by-default", {"temperature_c": 86}, ("temperature",), [("temperature", True)]),
    ("temperature-above-warns-when-not-listed", {"temperature_c": 86}, (), [("temperature", False)]),
    ("temperature-at-the-limit", {"temperature_c": 85}, ("temperature",), []),
    ("utilization-above-is-fatal-when-listed", {"utilization_pct": 96}, ("utilization",), [("utilization", True)]),
    ("utilization-above-warns-by-default", {"utilization_pct": 96}, ("temperature",), [("utilization", False)]),
    ("utilization-at-the-limit", {"utilization_pct": 95}, ("utilization",), []),
    ("unknown-and-listed-warns", {"temperature_c": None}, ("temperature",), [("temperature", False)]),
    ("unknown-and-not-listed", {"utilization_pct": None}, ("temperature",), []),
]


@pytest.mark.parametrize(("fields", "fail_on", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_thresholds(fields: dict[str, object], fail_on: tuple[str, ...], expected: list[tuple[str, bool]]) -> None:
    problems = judge([gpu(**fields)], Thresholds(fail_on=fail_on))
    assert [(one.condition, one.fatal) for one in problems] == expected


def test_the_message_has_the_value_and_the_limit() -> None:
    (problem,) = judge([gpu(temperature_c=91)], Thresholds())
    assert problem == Problem(0, "temperature", "91 °C, limit 85 °C", True)


TWO = (
    FIT,
    gpu(index=1, uuid="GPU-aabb2222", mig_uuids=("MIG-cccc3333",)),
)


@pytest.mark.parametrize(
    ("devices", "indices"),
    [
        ((), [0, 1]),
        (("1",), [1]),
        (("1", "0"), [1, 0]),
        (("GPU-aabb2222",), [1]),
        (("GPU-aab",), [1]),
        (("GPU-aaaa1111", "0"), [0]),
        (("MIG-cccc3333",), [1]),
        (("MIG-GPU-aabb2222/1/0",), [1]),
        (("-1",), []),
        (("NoDevFiles",), []),
        (("void",), []),
    ],
    ids=str,
)
def test_selection(devices: tuple[str, ...], indices: list[int]) -> None:
    assert [one.index for one in select(TWO, devices)] == indices


@pytest.mark.parametrize("devices", [("2",), ("GPU-aa",), ("GPU-zz",), ("GPU-",), ("all",)], ids=str)
def test_a_device_that_fits_none_or_several(devices: tuple[str, ...]) -> None:
    with pytest.raises(InvalidError) as caught:
        select(TWO, devices)
    assert repr(devices[0]) in caught.value.message
    assert "GPU-aabb2222" in str(caught.value.hint)


def test_held_memory_by_gpu() -> None:
    gpus = [
        gpu(processes=(GpuProcess(7, 100), GpuProcess(8, 50), GpuProcess(9, 1))),
        gpu(index=1, uuid="GPU-b", processes=(GpuProcess(7, None),)),
        gpu(index=2, uuid="GPU-c"),
    ]
    assert held_mib(gpus, {7, 8}) == {"GPU-aaaa1111": 150, "GPU-b": 0}


def test_throttle_words() -> None:
    assert throttle_words(0x1 | 0x40) == ("idle", "hw_thermal_slowdown")
    assert throttle_words(0) == throttle_words(None) == ()


def test_json_has_the_seeds_names_and_ours() -> None:
    assert list(FIT.to_json(["hot"])) == [
        "index",
        "uuid",
        "name",
        "memory_total_mib",
        "memory_free_mib",
        "memory_used_mib",
        "temperature_c",
        "utilization_pct",
        "pstate",
        "clocks_event_reasons_active",
        "throttle_reasons",
        "processes",
        "warnings",
    ]
