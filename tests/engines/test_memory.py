"""When GPU memory counts as back: never by a guess."""

from typing import Any

import pytest

from garrison.engines import registry
from garrison.engines.memory import GIB, Gpu, MemoryUse, Release, Sample, Verdict, judge_release

MIB = 1024**2
OWN = frozenset({10, 11})
STOP = Release(settle_seconds=0.5, seconds=30.0)


def sample(at: float, *gpus: Gpu) -> Sample:
    return Sample(at, gpus)


def gpu(used: float, by_pid: dict[int, float] | None = None, uuid: str = "GPU-a") -> Gpu:
    """Amounts in GiB."""
    numbered = None if by_pid is None else {pid: int(amount * GIB) for pid, amount in by_pid.items()}
    return Gpu(uuid, int(used * GIB), numbered)


def state(*after: Sample, before: Sample, **options: Any) -> str:
    return judge_release(options.pop("release", STOP), OWN, before, after, **options).state


class TestByProcess:
    BEFORE = sample(0.0, gpu(20.6, {10: 12.0, 11: 4.0, 99: 4.0}))

    def test_it_is_freed_once_it_has_been_so_for_a_moment(self) -> None:
        gone = gpu(4.6, {99: 4.0})
        assert state(sample(1.0, gone), before=self.BEFORE) == "waiting"
        assert state(sample(1.0, gone), sample(1.4, gone), before=self.BEFORE) == "waiting"
        assert state(sample(1.0, gone), sample(1.5, gone), before=self.BEFORE) == "freed"

    def test_a_process_that_is_left_holds_its_memory(self) -> None:
        left = gpu(8.6, {11: 4.0, 99: 4.0})
        verdict = judge_release(STOP, OWN, self.BEFORE, [sample(1.0, left), sample(5.0, left)])
        assert (verdict.state, verdict.remaining) == ("waiting", {"GPU-a": 4 * GIB})
        assert verdict.reason == "4.0 GiB of GPU-a are not back"

    def test_a_killed_process_that_is_no_longer_listed_may_still_hold_it(self) -> None:
        unlisted = gpu(20.6, {99: 4.0})
        assert state(sample(1.0, unlisted), sample(5.0, unlisted), before=self.BEFORE) == "waiting"

    def test_another_process_may_take_memory_meanwhile(self) -> None:
        taken = gpu(14.6, {99: 4.0, 77: 10.0})
        assert state(sample(1.0, taken), sample(2.0, taken), before=self.BEFORE) == "freed"

    def test_another_process_may_give_memory_back_meanwhile(self) -> None:
        left = gpu(8.6, {11: 8.0})
        assert state(sample(1.0, left), sample(2.0, left), before=self.BEFORE) == "waiting"

    def test_memory_that_comes_back_and_goes_again_starts_the_wait_anew(self) -> None:
        gone, back = gpu(4.6, {99: 4.0}), gpu(16.6, {10: 12.0, 99: 4.0})
        after = (sample(1.0, gone), sample(1.2, back), sample(1.4, gone), sample(1.7, gone))
        assert state(*after, before=self.BEFORE) == "waiting"
        assert state(*after, sample(1.9, gone), before=self.BEFORE) == "freed"

    def test_it_is_stuck_when_the_time_is_over(self) -> None:
        left = gpu(8.6, {11: 4.0, 99: 4.0})
        verdict = judge_release(STOP, OWN, self.BEFORE, [sample(29.0, left), sample(30.0, left)])
        assert (verdict.state, verdict.remaining) == ("stuck", {"GPU-a": 4 * GIB})

    def test_every_gpu_counts(self) -> None:
        before = sample(0.0, gpu(8.0, {10: 8.0}), gpu(8.0, {11: 8.0}, "GPU-b"))
        half = sample(1.0, gpu(0.0, {}), gpu(8.0, {11: 8.0}, "GPU-b"))
        verdict = judge_release(STOP, OWN, before, [half, sample(3.0, *half.gpus)])
        assert (verdict.state, verdict.remaining) == ("waiting", {"GPU-b": 8 * GIB})

    def test_a_gpu_of_others_is_not_waited_for(self) -> None:
        before = sample(0.0, gpu(8.0, {10: 8.0}), gpu(9.0, {99: 8.5}, "GPU-b"))
        after = (gpu(0.0, {}), gpu(70.0, {99: 69.5}, "GPU-b"))
        assert state(sample(1.0, *after), sample(2.0, *after), before=before) == "freed"

    def test_a_gpu_that_cannot_be_read_is_not_free(self) -> None:
        verdict = judge_release(STOP, OWN, self.BEFORE, [sample(1.0), sample(9.0)])
        assert (verdict.state, verdict.reason) == ("waiting", "GPU-a could not be read")

    def test_an_engine_that_held_nothing_has_nothing_to_give_back(self) -> None:
        before = sample(0.0, gpu(4.0, {10: 0.0001, 99: 4.0}))
        after = gpu(4.0, {99: 4.0})
        assert state(sample(1.0, after), sample(2.0, after), before=before) == "freed"


class TestByTotals:
    """In a container the driver's numbers of processes are the host's, or there are none."""

    IDLE = sample(-60.0, gpu(1.0))
    BEFORE = sample(0.0, gpu(17.0, {4711: 16.0}))

    def test_without_a_reading_from_before_the_start_nothing_is_known(self) -> None:
        nothing = gpu(0.0, {})
        verdict = judge_release(STOP, OWN, self.BEFORE, [sample(1.0, nothing), sample(9.0, nothing)])
        assert verdict == Verdict("unknown", reason="what the engine holds on GPU-a cannot be measured")

    @pytest.mark.parametrize("by_pid", [None, {4712: 1.0}])
    def test_the_total_falls_by_what_the_engine_took(self, by_pid: dict[int, float] | None) -> None:
        half, all_of_it = gpu(9.0, by_pid), gpu(1.03, by_pid)
        assert state(sample(1.0, half), sample(2.0, half), before=self.BEFORE, idle=self.IDLE) == "waiting"
        assert state(sample(1.0, all_of_it), sample(2.0, all_of_it), before=self.BEFORE, idle=self.IDLE) == "freed"

    def test_a_total_that_never_rose_is_not_waited_for(self) -> None:
        before = sample(0.0, gpu(1.0))
        after = gpu(40.0)
        assert state(sample(1.0, after), sample(2.0, after), before=before, idle=self.IDLE) == "freed"


class TestSleep:
    BEFORE = sample(0.0, gpu(70.0, {10: 69.5}))
    RELEASE = Release(keeps_bytes=4 * GIB)

    @pytest.mark.parametrize(("left", "expected"), [(1.5, "freed"), (4.0, "freed"), (20.0, "waiting")])
    def test_a_context_may_stay_and_weights_may_not(self, left: float, expected: str) -> None:
        after = gpu(left + 0.5, {10: left})
        assert state(sample(1.0, after), sample(2.0, after), before=self.BEFORE, release=self.RELEASE) == expected

    def test_vllm_says_what_may_stay(self) -> None:
        control = registry.engine("vllm").sleep_control("0.33.0")
        assert control is not None
        assert {level.release for level in control.levels} == {self.RELEASE}


class TestWhichMemory:
    @pytest.mark.parametrize(
        ("name", "argv", "environ", "device", "expected"),
        [
            ("vllm", (), {}, "cuda", MemoryUse("gpu")),
            ("vllm", (), {}, "cpu", MemoryUse("host")),
            ("vllm", (), {"CUDA_VISIBLE_DEVICES": "1, GPU-abc"}, None, MemoryUse("gpu", ("1", "GPU-abc"))),
            ("vllm", (), {"CUDA_VISIBLE_DEVICES": "0,-1,1"}, None, MemoryUse("gpu", ("0",))),
            ("vllm", (), {"CUDA_VISIBLE_DEVICES": ""}, None, MemoryUse("host")),
            ("vllm", (), {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, None, MemoryUse("host")),
            ("llama_cpp", (), {}, "cuda", MemoryUse("gpu")),
            ("llama_cpp", ("--device", "none"), {}, "cuda", MemoryUse("host")),
            ("llama_cpp", ("-dev", "CUDA0"), {"LLAMA_ARG_DEVICE": "none"}, "cuda", MemoryUse("gpu")),
            ("llama_cpp", (), {"LLAMA_ARG_DEVICE": "none"}, "cuda", MemoryUse("host")),
            ("llama_cpp", (), {}, "cpu", MemoryUse("host")),
            ("mlx_lm", (), {}, "cpu", MemoryUse("host")),
            ("mlx_lm", (), {"CUDA_VISIBLE_DEVICES": "1"}, "cuda", MemoryUse("gpu", ("1",))),
            ("sim", (), {}, None, MemoryUse("host")),
        ],
    )
    def test_of_each_engine(
        self,
        name: str,
        argv: tuple[str, ...],
        environ: dict[str, str],
        device: str | None,
        expected: MemoryUse,
    ) -> None:
        found = registry.engine(name).memory_use(argv, environ, device)
        assert found == expected
        assert found.release == Release()
