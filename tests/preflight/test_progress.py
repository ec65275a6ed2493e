from garrison.base.identity import ProcessId
from garrison.preflight.downstream.progress import Progress, observe
from garrison.processes.process import Process


def table(**cpu: int) -> dict[int, Process]:
    return {int(name[1:]): Process(ProcessId(int(name[1:]), 1), 1, 0, cpu=ticks) for name, ticks in cpu.items()}


def look(before: Progress, now: float, **cpu: int) -> Progress:
    snapshot = table(**cpu)
    return observe(before, [process.id for process in snapshot.values()], snapshot, now)


def test_cpu_use_and_new_processes_are_signs_of_life() -> None:
    progress = look(Progress(0, {}), 1, p10=5)
    assert progress.silent_for(1) == 0
    assert look(progress, 3, p10=6).silent_for(3) == 0
    assert look(progress, 3, p10=5, p11=0).silent_for(3) == 0


def test_silence_and_departure_are_not() -> None:
    progress = look(Progress(0, {}), 1, p10=5, p11=9)
    assert look(progress, 4, p10=5, p11=9).silent_for(4) == 3
    assert look(progress, 4, p10=5).silent_for(4) == 3
