"""Opening a database: new, old, newer, foreign, damaged, and by several processes at once."""

import json
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import alembic.command
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text
from store_samples import (
    action,
    an_agent,
    an_api_key,
    an_audited_call,
    at,
    command,
    done,
    event,
    key,
    lease,
    resource,
    save,
    seen,
    stack,
    usage_batch,
    used,
)

from garrison.base.errors import DeniedError, InvalidError
from garrison.store.records import Event, StackRecord
from garrison.store.sql.address import parse_address
from garrison.store.sql.schema import REVISION, VERSION_TABLE, metadata
from garrison.store.usage_store import UsageBy

MIGRATIONS = Path(__file__).parents[3] / "src" / "garrison" / "store" / "migrations"
RELEASED = sorted((Path(__file__).parents[1] / "fixtures").glob("*.sql"))

OPENER = """
import sys
from pathlib import Path
from garrison.store.sql.store import open_store
place = sys.argv[1]
sys.stdin.readline()
store = open_store(place if "://" in place else Path(place))
print(store.identity())
"""


def statement(place, words: str) -> None:
    engine = create_engine(parse_address(place).url)
    with engine.begin() as connection:
        connection.exec_driver_sql(words)
    engine.dispose()


def test_the_program_knows_its_last_migration():
    scripts = ScriptDirectory(str(MIGRATIONS))
    assert scripts.get_heads() == [REVISION]


def test_the_migrations_make_what_the_schema_says(place, opened):
    opened(place)
    engine = create_engine(parse_address(place).url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_a_missing_column_would_be_noticed(place, opened):
    opened(place).close()
    statement(place, "ALTER TABLE contents DROP COLUMN digest")
    engine = create_engine(parse_address(place).url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert len(compare_metadata(context, metadata)) == 1
    engine.dispose()


@pytest.mark.parametrize("dump", RELEASED, ids=lambda path: path.stem)
def test_a_database_of_a_released_program_is_brought_up(dump: Path, tmp_path: Path, opened):
    """The dump was written by that program: see `write_fixture` at the end of this file."""
    path = tmp_path / "garrison.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(dump.read_text(encoding="utf-8"))
    connection.close()
    store = opened(path)
    assert store.stack("cabinet") == stack(version=1)
    assert store.targets() == [seen("edge", "sql")]
    assert store.resources() == [resource(version=1)]
    assert store.unfinished("cabinet") == [(command(), [done(action(0)), action(1)])]
    assert store.leases() == [lease()]
    assert [one.kind for one in store.events()] == ["drift", "applied"]
    assert [one.kind for one in store.events(subject=("adapter", "edge/sql"))] == ["drift", "applied"]
    assert store.content("/a", "stamp") == "digest"
    assert store.identity() == "0" * 32
    assert store.stack("cabinet", at=["edge"]).declaration == {
        "é": 1, "targets": {}, "adapters": [], "models": [],
    }  # fmt: skip
    assert [(one.stack, one.target) for one in store.declared(["edge"])] == [("cabinet", "edge")]
    assert store.targets_at(["http://edge:8000"]) == store.targets()
    assert store.touch({"edge": at(60)}) == []
    assert store.targets()[0].last_seen == at(60)
    changes = store.changes(-1)
    assert (set(changes.stacks), set(changes.targets)) == ({"cabinet"}, {"edge"})
    store.put([resource()])
    assert len(store.versions(key())) == 2
    with_keys = dump.stem >= "0005"
    assert store.keys().rows == ((an_api_key(id=1),) if with_keys else ())
    assert store.keys_revision() == with_keys
    assert store.audit() == ([an_audited_call(id=1)] if with_keys else [])
    assert store.usage(at().date(), at().date(), by=UsageBy) == ([used()] if dump.stem >= "0006" else [])
    assert store.agents() == ([an_agent()] if dump.stem >= "0007" else [])


_PLACES = [("cabinet", "a", "x"), (None, "a", "y"), (None, "a", None), ("cabinet", None, None), (None, None, None)]
"""Stack, target and name of events of a program that knew no subjects."""


def test_the_first_release_is_upgraded_on_either_database(place, opened):
    """A whole declaration becomes parts that can be asked for one by one."""
    body = {
        "stack": "cabinet",
        "targets": {"a": {"base_url": "http://a:8000"}, "b": {"base_url": "http://b:8000", "timeout": 9.0}},
        "adapters": [{"target": "b", "lora_name": "x"}, {"target": "a", "lora_name": "x"}],
        "models": [],
        "policy": {"interval": 30.0},
        "hooks": [],
    }
    address = parse_address(place)
    if address.path is not None:
        address.path.parent.mkdir(exist_ok=True)
    engine = create_engine(address.url)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "0001")
        connection.execute(
            text("INSERT INTO stacks VALUES ('cabinet', :body, '2026-01-01 00:00:00', 3, NULL, false)"),
            {"body": json.dumps(body)},
        )
        for name, spec in body["targets"].items():
            connection.execute(
                text(
                    "INSERT INTO targets VALUES (:name, :spec, '2026-01-01 00:00:00', 'reachable', NULL, '', NULL, "
                    "'2026-01-01 00:00:05', '2026-01-01 00:00:07', NULL, '[]', '{}')"
                ),
                {"name": name, "spec": json.dumps(spec)},
            )
        for number, (stack_name, target, name) in enumerate(_PLACES, 1):
            connection.execute(
                text(
                    "INSERT INTO events (id, at, kind, stack, target, name) "
                    "VALUES (:id, '2026-01-01 00:00:00', 'drift', :stack, :target, :name)"
                ),
                {"id": number, "stack": stack_name, "target": target, "name": name},
            )
    engine.dispose()
    store = opened(place)
    assert store.stack("cabinet").declaration == body
    for number, (stack_name, target, name) in enumerate(_PLACES, 1):
        made = Event(at=at(), kind="drift", stack=stack_name, target=target, name=name)
        found = store.events(subject=(made.subject_kind, made.subject_name))
        assert [one.id for one in found] == [number], "the upgrade decides as a new event does"
    narrow = store.stack("cabinet", at=["b"]).declaration
    assert narrow == body | {"targets": {"b": body["targets"]["b"]}, "adapters": body["adapters"][:1]}
    assert [one.name for one in store.targets_at(["http://b:8000"])] == ["b"]
    assert [(one.last_seen.second, one.last_checked.second) for one in store.targets()] == [(5, 7), (5, 7)]
    assert store.to_tidy() == ["a", "b"], "an upgraded fleet is tidied once, whole"
    assert store.changes(-1).targets == {"a", "b"}
    before = store.revision()
    store.declare(StackRecord(name="cabinet", declaration=body, at=at()), [], command("c9"), [])
    assert store.changes(before).targets == set(), "the parts are written as the upgrade wrote them"


def test_there_is_a_dump_of_each_revision():
    revisions = [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()]
    assert sorted(revisions) == [path.stem for path in RELEASED]


def test_an_upgrade_that_fails_leaves_what_was_there(place, opened, monkeypatch):
    upgrade = alembic.command.upgrade

    def upgrade_and_fail(*arguments):
        upgrade(*arguments)
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(alembic.command, "upgrade", upgrade_and_fail)
        with pytest.raises(ZeroDivisionError):
            opened(place)
    engine = create_engine(parse_address(place).url)
    assert inspect(engine).get_table_names() == []
    engine.dispose()
    assert opened(place).stacks() == []


def test_a_newer_database_is_refused_and_left_as_it_is(place, opened):
    opened(place).close()
    statement(place, f"UPDATE {VERSION_TABLE} SET version_num = '0907'")
    with pytest.raises(
        InvalidError, match=f"at revision 0907, this program knows revisions up to {REVISION}"
    ) as caught:
        opened(place)
    assert "newer Garrison" in caught.value.hint
    statement(place, f"UPDATE {VERSION_TABLE} SET version_num = '{REVISION}'")
    assert opened(place).stacks() == []


def test_a_database_of_something_else_is_refused(place, opened):
    if isinstance(place, Path):
        place.parent.mkdir()
    statement(place, "CREATE TABLE events (id integer)")
    with pytest.raises(InvalidError, match="not a database of Garrison: it has a foreign table 'events'"):
        opened(place)


@pytest.mark.service
def test_a_server_database_may_hold_other_tables(postgresql, opened):
    place = postgresql.database()
    statement(place, "CREATE TABLE invoices (id integer)")
    assert opened(place).stacks() == []


@pytest.mark.parametrize("content", [b"this is no database " * 50, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_refused_and_kept(content: bytes, tmp_path: Path, opened):
    path = tmp_path / "garrison.db"
    path.write_bytes(content)
    with pytest.raises(InvalidError, match="not a SQLite database, or is damaged") as caught:
        opened(path)
    assert "backup" in caught.value.hint
    assert path.read_bytes() == content


def test_the_file_is_its_owners_alone(tmp_path: Path, opened):
    path = tmp_path / "deep" / "er" / "garrison.db"
    old = os.umask(0)
    try:
        store = opened(path)
        store.add_events([event()])
    finally:
        os.umask(old)
    files = [one for one in path.parent.iterdir() if not one.name.startswith(".")]
    assert {one.name for one in files} == {"garrison.db", "garrison.db-wal", "garrison.db-shm"}
    assert {stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()} == {0o600}


def test_a_directory_in_the_way_is_said(tmp_path: Path, opened):
    with pytest.raises(InvalidError, match="cannot be created: Is a directory"):
        opened(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidError, match="cannot be created"):
        opened(tmp_path / "file" / "garrison.db")


def test_a_directory_that_may_not_be_written_is_said(tmp_path: Path, opened):
    tmp_path.chmod(0o500)
    own = os.geteuid()
    os.seteuid(own or 65534)  # root may write anywhere
    try:
        with pytest.raises(DeniedError, match="cannot be opened for writing"):
            opened(tmp_path / "garrison.db")
    finally:
        os.seteuid(own)
        tmp_path.chmod(0o700)


def test_a_database_made_from_a_dump_is_put_into_wal_mode_when_that_is_possible(tmp_path: Path, opened):
    path = tmp_path / "garrison.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(RELEASED[-1].read_text(encoding="utf-8"))
        connection.execute("BEGIN IMMEDIATE")
        opened(path, wait=0.1).close()
        connection.rollback()
    connection.close()
    assert path.read_bytes()[18:20] == b"\1\1"
    opened(path).close()
    assert path.read_bytes()[18:20] == b"\2\2"


@pytest.mark.system
def test_opening_what_is_up_to_date_imports_neither_alembic_nor_psycopg(tmp_path: Path, run, opened):
    path = tmp_path / "garrison.db"
    opened(path)
    program = (
        "import sys; from pathlib import Path; from garrison.store.sql.store import open_store;"
        "open_store(Path(sys.argv[1])).close(); print(sorted({'alembic', 'psycopg'} & set(sys.modules)))"
    )
    done = run("-c", program, path)
    assert (done.out, done.err) == ("[]\n", "")


@pytest.mark.system
def test_processes_that_open_a_new_database_at_once_all_succeed(place):
    children = [
        subprocess.Popen([sys.executable, "-c", OPENER, str(place)], stdin=-1, stdout=-1, stderr=-1, text=True)
        for _ in range(3)
    ]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    done = [child.communicate(timeout=60) for child in children]
    assert [err for _, err in done if err] == []
    assert len({out for out, _ in done}) == 1


def write_fixture(path: Path) -> None:
    """How a dump is made when a revision is released: `python -c` with this function, once, by that program."""
    from garrison.store.sql.store import open_store

    database = path.with_suffix(".db")
    store = open_store(database)
    store.declare(stack(), [seen("edge", "sql")], command(), [action(0), action(1)], [event()])
    save(store, done(action(0)), [resource()], [event("drift")])
    store.acquire(lease(), lease().acquired_at)
    store.put_content("/a", "stamp", "digest")
    store.create_key(an_api_key())
    store.add_audit([an_audited_call()])
    store.add_usage([usage_batch(used())], at())
    store.beat(an_agent())
    store.close()
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE meta SET identity = ?", ("0" * 32,))
        connection.commit()
        path.write_text("\n".join(connection.iterdump()) + "\n", encoding="utf-8")
    connection.close()
    database.unlink()
