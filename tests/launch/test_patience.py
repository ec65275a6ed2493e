import pytest

from garrison.launch.run.patience import CpuWatch, Life, Patience, verdict

BY_PROGRESS = Patience(progress_window=300)
DEADLINE = Patience(progress_window=300, deadline=60)

TABLE = {
    "just started": (BY_PROGRESS, Life(0, 0, 0), None),
    "an hour, and it writes": (BY_PROGRESS, Life(3600, 5, 3600), None),
    "an hour, silent, and it works": (BY_PROGRESS, Life(3600, 3600, 5), None),
    "silent and idle, not long enough": (BY_PROGRESS, Life(3600, 299.9, 299.9), None),
    "silent and idle": (BY_PROGRESS, Life(3600, 300, 300), "wrote nothing and used no CPU for 300 s"),
    "silent long, idle short": (BY_PROGRESS, Life(3600, 900, 299), None),
    "idle long, silent short": (BY_PROGRESS, Life(3600, 299, 900), None),
    "before the deadline": (DEADLINE, Life(59.9, 0, 0), None),
    "at the deadline, busy": (DEADLINE, Life(60, 0, 0), "was not ready within 60 s"),
    "hung before the deadline": (Patience(5, 60), Life(10, 5, 5), "wrote nothing and used no CPU for 5 s"),
    "both: the deadline was asked for": (Patience(5, 60), Life(60, 60, 60), "was not ready within 60 s"),
    "fraction": (Patience(300, 0.5), Life(1, 0, 0), "was not ready within 0.5 s"),
}


@pytest.mark.parametrize(("patience", "life", "said"), TABLE.values(), ids=TABLE)
def test_verdict(patience: Patience, life: Life, said: str | None) -> None:
    assert verdict(patience, life) == said


CPU = {
    "idle": ([(10, 0.0), (20, 0.0)], 0),
    "wakes up now and then": ([(10, 0.1), (20, 0.2), (30, 0.3)], 0),
    "a twentieth of a core": ([(10, 0.5)], 10),
    "one core, then nothing": ([(10, 10.0), (20, 10.0), (30, 10.0)], 10),
    "works again": ([(10, 0.0), (20, 0.0), (30, 9.0)], 30),
    "samples shorter than ten seconds are gathered": ([(n, n * 1.0) for n in range(1, 10)], 0),
    "gathered to ten seconds": ([(n, n * 1.0) for n in range(1, 12)], 10),
    "a process of it ended": ([(10, 50.0), (20, 3.0)], 20),
}


@pytest.mark.parametrize(("samples", "last_work"), CPU.values(), ids=CPU)
def test_cpu_watch(samples: list[tuple[float, float]], last_work: float) -> None:
    watch = CpuWatch(0)
    for now, seconds in samples:
        watch.saw(now, seconds)
    assert watch.last_work == last_work
