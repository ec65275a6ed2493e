"""Several threads on one store, and several processes on one database."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from store_samples import at, event, key, lease, resource

from garrison.store.fleet_store import FleetStore

THREADS = 6
EACH = 5


def test_versions_have_no_gap_and_no_double(store: FleetStore):
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(store.put, [resource()]) for _ in range(THREADS * EACH)]:
            done.result()
    assert [one.version for one in store.versions(key())] == list(range(1, THREADS * EACH + 1))
    assert store.revision() == THREADS * EACH


def test_of_those_who_ask_at_once_one_gets_the_lease(store: FleetStore):
    with ThreadPoolExecutor(THREADS) as pool:
        for turn in range(EACH):
            answers = list(pool.map(lambda n, s=str(turn): store.acquire(lease(f"{s}-{n}", s), at(0)), range(THREADS)))
            (winner,) = [number for number, answer in enumerate(answers) if answer is None]
            assert {answer.token for answer in answers if answer} == {f"{turn}-{winner}"}


def test_a_follower_misses_no_event(store: FleetStore):
    """Ids become visible in their order, though many write at once."""
    with ThreadPoolExecutor(THREADS) as pool:
        writing = [
            pool.submit(store.add_events, [event(name=str(number)), event(name=str(number))])
            for number in range(THREADS * EACH)
        ]
        read, last = [], 0
        while len(read) < 2 * len(writing):
            ended = all(one.done() for one in writing)
            found = store.events(after_id=last, limit=7)
            read += [one.id for one in found]
            last = read[-1] if read else 0
            assert found or not ended, "events came that were not read"
        assert [one.exception() for one in writing] == [None] * len(writing)
    assert read == sorted(one.id for one in store.events(limit=1000))


ASKER = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from store_samples import at, lease
from garrison.store.sql.store import open_store
store = open_store(sys.argv[1] if "://" in sys.argv[1] else Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
won = [n for n in range(20) if store.acquire(lease(f"{sys.argv[3]}-{n}", f"s{n}"), at(0)) is None]
print(*won)
store.close()
"""


@pytest.mark.system
def test_of_processes_that_ask_at_once_one_gets_each_lease(place, sql_store, request):
    support = str(request.path.parent)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", ASKER, str(place), support, str(number)], stdin=-1, stdout=-1, stderr=-1, text=True
        )
        for number in range(2)
    ]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    done = [child.communicate(timeout=60) for child in children]
    assert [err for _, err in done if err] == []
    won = [sorted(map(int, out.split())) for out, _ in done]
    assert sorted(n for numbers in won for n in numbers) == list(range(20))
    holders = {one.token for one in sql_store.leases()}
    assert holders == {f"{number}-{n}" for number, numbers in enumerate(won) for n in numbers}
