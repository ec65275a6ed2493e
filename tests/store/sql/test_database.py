"""What only a real database can do to us: kill -9 while writing, another writer, a full disk, a server that goes."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event
from store_samples import action, at, command, key, lease, resource, seen, stack, target
from store_samples import event as sample_event

from garrison.base.errors import DeniedError, DiskFullError, InvalidError, LockedError, UnreachableError
from garrison.store.records import ActionState, CommandState, Operation
from garrison.store.sql import leases, retention
from garrison.store.sql.address import parse_address

WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from store_samples import *
from garrison.store.sql.store import open_store
store = open_store(sys.argv[1] if "://" in sys.argv[1] else Path(sys.argv[1]))
for n in range(100_000):
    id = f"c{n}"
    actions = [action(seq, id) for seq in range(20)]
    store.declare(stack(command=id), [target(f"t{n}")], command(id), actions, [event(command=id)])
    print("declared", n, flush=True)
    save(store, done(actions[0]), [resource(f"r{n}-{m}", command=id) for m in range(20)], [event(command=id)])
    print("done", n, flush=True)
"""
WRITES = 25


@pytest.mark.system
@pytest.mark.parametrize("last", ["declared", "done"])
def test_kill_9_leaves_whole_transactions_and_all_that_were_acknowledged(place, opened, request, last):
    support = str(request.path.parents[1])
    with subprocess.Popen([sys.executable, "-c", WRITER, str(place), support], stdout=-1, text=True) as child:
        for line in child.stdout:
            if line == f"{last} {WRITES}\n":
                break
        child.send_signal(signal.SIGKILL)
        said = [line, *child.stdout]
    store = opened(place)
    newest = int(said[-1].split()[1])
    begun = store.unfinished("cabinet")
    assert len(begun) - 1 in (newest, newest + 1)
    assert store.stack("cabinet").version == len(begun) == len(store.targets())
    made: dict[str, int] = {}
    for one in store.resources():
        made[one.command] = made.get(one.command, 0) + 1
    assert set(made.values()) == {20}
    for ordered, actions in begun:
        assert len(actions) == 20
        assert (actions[0].state is ActionState.DONE) is (ordered.id in made)
    assert len(store.events(limit=10_000)) == len(begun) + len(made)
    if isinstance(place, Path):
        with create_engine(parse_address(place).url).connect() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
            connection.engine.dispose()


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    return tmp_path / "garrison.db"


def test_what_a_power_cut_would_ask_of_sqlite(sqlite_path: Path, opened):
    """Only a commit that was flushed is there afterwards; nothing here can cut the power, so the switches are read."""
    store = opened(sqlite_path)
    with store._database.write() as connection:
        read = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in
                ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")}  # fmt: skip
    assert read == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}


def test_a_writer_that_does_not_end_is_waited_for_within_bounds(place, opened):
    store, other = opened(place), opened(place, wait=0.2)
    with store._database.write():
        assert other.stacks() == []  # readers do not wait
        with pytest.raises(LockedError) as caught:
            other.add_events([sample_event()])
        assert caught.value.hint
    other.add_events([sample_event()])
    assert len(store.events()) == 1


def test_a_writer_waits_for_one_that_ends(place, opened):
    store, other = opened(place), opened(place)
    with store._database.write():
        writer = threading.Thread(target=other.add_events, args=([sample_event()],))
        writer.start()
        writer.join(0.1)
        assert writer.is_alive()
    writer.join(10)
    assert len(store.events()) == 1


def test_a_heartbeat_waits_for_no_other_writer_of_a_server(postgresql_place, opened):
    store, other = opened(postgresql_place), opened(postgresql_place, wait=0.2)
    store.declare(stack(), [seen("edge", "sql")], command(), [])
    store.acquire(lease("t1"), at(0))
    with store._database.write():
        assert other.touch({"edge": at(60)}) == []
        assert other.renew("t1", at(90), at(0)) is True
        other.release("t1")
    assert store.targets()[0].last_seen == at(60)
    assert store.leases() == []


def test_a_renewal_under_way_is_waited_for_and_counts(postgresql_place, opened):
    """The lease has expired, and is just being renewed: it is not taken behind the renewal's back."""
    store, other = opened(postgresql_place), opened(postgresql_place)
    store.acquire(lease("t1", until=0), at(0))
    found = []
    taker = threading.Thread(target=lambda: found.append(other.acquire(lease("t2"), at(0))))
    with store._database.write(ordered=False) as connection:
        assert leases.renew(connection, "t1", at(30), at(0)) is True
        taker.start()
        taker.join(0.3)
        assert taker.is_alive()
    taker.join(10)
    assert [one.token for one in found] == ["t1"]


@pytest.fixture
def postgresql_place(postgresql) -> str:
    return postgresql.database()


def test_other_writers_get_in_while_old_history_is_deleted(place, opened, monkeypatch):
    store, other = opened(place), opened(place, wait=0.2)
    store.put([resource(operation=Operation.UPDATED) for _ in range(2001)])
    written = []

    def pause(_seconds: float) -> None:
        other.add_events([sample_event(at=at(days=10))])
        written.append(len(store.versions(key())))

    monkeypatch.setattr(retention.time, "sleep", pause)
    assert store.prune(at(days=5)) == 2000
    assert [count for count in written if 1 < count < 2001] == [1501, 1001, 501]
    assert len(other.events()) == len(written)


def test_deleting_old_history_costs_what_it_deletes(tmp_path: Path, opened, monkeypatch):
    """Instructions of SQLite's machine, which do not depend on what else the computer does."""
    monkeypatch.setattr(retention.time, "sleep", lambda _seconds: None)

    def cost(versions: int) -> float:
        store = opened(tmp_path / f"{versions}.db")
        commands = [f"c{number}" for number in range(versions // 10)]
        for one in commands:
            store.begin(command(one), [action(0, one)])
            store.finish(command(one, state=CommandState.SUCCEEDED, ended_at=at(0)))
        store.put([resource(f"r{n % 10}", command=commands[n // 10]) for n in range(versions)])
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        def watch(connection, *_: object) -> None:
            connection.set_progress_handler(count, 100)

        event.listen(store._database._engine, "checkout", watch)
        assert store.prune(at(days=5)) == versions - 10 + 2 * (len(commands) - 1)
        return steps / versions

    assert cost(4000) < 1.5 * cost(1000)


def test_what_runs_is_found_without_reading_all_that_ever_ran(tmp_path: Path, opened):
    store = opened(tmp_path / "garrison.db")
    store.begin(command(), [action(0)])
    asked = []

    def note(_connection, _cursor, statement: str, parameters, *_: object) -> None:
        asked.append((statement, parameters))

    event.listen(store._database._engine, "before_cursor_execute", note)
    store.begun()
    store.unfinished()
    store.unfinished("cabinet")
    store.unreachable(["edge"])
    event.remove(store._database._engine, "before_cursor_execute", note)
    with store._database.read() as connection:
        for statement, parameters in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            steps = [row[3] for row in plan]
            assert not [one for one in steps if one.startswith("SCAN") and "INDEX ix_" not in one], steps
            assert not [one for one in steps if "ix_commands_stack_number" in one], steps
    assert len(asked) >= 5


def test_a_reader_sees_one_state_of_the_database(place, opened):
    store, other = opened(place), opened(place)
    with store._database.read() as connection:
        count = "SELECT count(*) FROM events"
        assert connection.exec_driver_sql(count).scalar() == 0
        other.add_events([sample_event()])
        assert connection.exec_driver_sql(count).scalar() == 0
    assert len(store.events()) == 1


def test_a_failed_transaction_leaves_nothing(place, opened):
    store = opened(place)

    def fail():
        with store._database.write() as connection:
            connection.exec_driver_sql("UPDATE meta SET revision = 77")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.revision() == 0


def test_what_is_owned_cannot_be_deleted(place, opened):
    """The database itself refuses, should retention ever be wrong."""
    store = opened(place)
    store.put([resource()])
    with pytest.raises(Exception, match="refused a row"), store._database.write() as connection:
        connection.exec_driver_sql("DELETE FROM resources")
    assert len(store.resources()) == 1


def test_a_full_disk_is_said_and_nothing_is_half_written(sqlite_path: Path, opened):
    store = opened(sqlite_path)
    pages = "PRAGMA max_page_count = 60"
    event.listen(store._database._engine, "checkout", lambda connection, *_: connection.execute(pages).close())
    store.begin(command(), [])
    with pytest.raises(DiskFullError) as caught:
        store.declare(
            stack(),
            [target(f"t{number}", detail="x" * 1000) for number in range(500)],
            command("c2"),
            [action(0, "c2")],
        )
    assert str(sqlite_path) in caught.value.message
    assert store.stack("cabinet") is None
    assert [one.id for one in store.commands()] == ["c1"]
    store.touch(dict.fromkeys(["edge"], at(1)))


def test_a_file_damaged_while_open_is_said(sqlite_path: Path, opened):
    store = opened(sqlite_path)
    store.add_events([sample_event()] * 50)
    store.close()
    content = bytearray(sqlite_path.read_bytes())
    content[100:] = b"\xff" * (len(content) - 100)
    sqlite_path.write_bytes(content)
    with pytest.raises(InvalidError, match="damaged"):
        opened(sqlite_path).events()


@pytest.mark.service
class TestServer:
    @pytest.fixture
    def server(self, postgresql):
        yield postgresql
        if not postgresql.running:
            postgresql.start()

    def test_a_restart_in_between_is_not_noticed(self, server, opened):
        store = opened(server.database())
        store.add_events([sample_event()])
        server.stop()
        server.start()
        assert len(store.events()) == 1

    def test_while_it_is_down_that_is_said(self, server, opened):
        place = server.database()
        store = opened(place)
        server.stop()
        for asking in (store.stacks, lambda: store.add_events([sample_event()]), lambda: opened(place)):
            with pytest.raises(UnreachableError, match="cannot be reached") as caught:
                asking()
            assert "GARRISON_DATABASE_URL" in caught.value.hint
        server.start()
        assert store.events() == []

    def test_a_session_that_is_cut_in_a_transaction_is_said(self, server, opened):
        store = opened(server.database())

        def write_and_be_cut():
            with store._database.write() as connection:
                connection.exec_driver_sql("UPDATE meta SET revision = 77")
                pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
                server.sql(f"SELECT pg_terminate_backend({pid})")
                connection.exec_driver_sql("SELECT 1")

        with pytest.raises(UnreachableError):
            write_and_be_cut()
        assert store.revision() == 0

    def test_a_database_that_is_not_there(self, server, opened):
        with pytest.raises(InvalidError, match="does not exist") as caught:
            opened(server.url("nobody"))
        assert "createdb" in caught.value.hint

    def test_a_user_that_may_not(self, server, opened):
        server.database("guarded")
        server.sql("DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN")
        with pytest.raises(DeniedError, match="permission denied"):
            opened(server.url("guarded", user="guest"))

    def test_the_sessions_have_their_deadlines(self, server, opened):
        store = opened(server.database(), wait=7)
        with store._database.read() as connection:
            shown = {name: connection.exec_driver_sql(f"SHOW {name}").scalar() for name in
                     ("lock_timeout", "statement_timeout", "application_name", "timezone", "transaction_isolation",
                      "transaction_read_only")}  # fmt: skip
        assert shown == {
            "lock_timeout": "7s", "statement_timeout": "1min", "application_name": "garrison", "timezone": "UTC",
            "transaction_isolation": "repeatable read", "transaction_read_only": "on",
        }  # fmt: skip
