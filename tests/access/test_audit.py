"""The audit log: what is kept of a call, what is hidden, and that nothing is lost."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from garrison.access.audit import AuditFilter, AuditLog
from garrison.access.audit_entry import Outcome, shown
from garrison.access.audited_keys import AuditedKeys
from garrison.access.changes import KeyChange, NewKey
from garrison.access.identity import anonymous, config_key, owner
from garrison.base.errors import ConflictError, LockedError, NotFoundError
from garrison.base.redaction import know_secret
from garrison.net.thread_pool import ThreadPool
from garrison.store.sql.store import open_store
from garrison.testing.clock import FakeClock
from garrison.testing.keys import MemoryKeys
from garrison.testing.store import MemoryStore
from garrison.testing.thread_pool import DirectPool
from garrison.testing.virtual_loop import LoopClock, VirtualLoop

START = datetime(2026, 1, 1, tzinfo=UTC)
ADA = owner(1000)


def a_log(store=None, clock=None) -> AuditLog:
    return AuditLog(store or MemoryStore(), pool=DirectPool(), clock=clock or FakeClock(START), node="main")


async def record(log: AuditLog, name: str = "qwen", error: BaseException | None = None) -> None:
    with log.call(ADA, "instances.start", ("instance", name), request_id="r1", peer="::1") as call:
        call.before, call.after = {"state": "stopped"}, {"state": "running"}
        if error is not None:
            raise error


class TestCalls:
    async def test_who_what_before_after_and_outcome_are_kept(self):
        log = a_log()
        await record(log)
        (row,) = (await log.page()).calls
        assert (row.at, row.who, row.name, row.uid, row.key_id) == (START, "owner", "uid 1000", 1000, None)
        assert (row.action, row.subject_kind, row.subject_name) == ("instances.start", "instance", "qwen")
        assert (row.before, row.after) == ({"state": "stopped"}, {"state": "running"})
        assert (row.status, row.code, row.request_id, row.peer, row.node) == (200, "ok", "r1", "::1", "main")

    @pytest.mark.parametrize(
        ("error", "status", "code"),
        [
            (ConflictError("x"), 409, "conflict"),
            (NotFoundError("x"), 404, "not-found"),
            (ValueError("x"), 500, "internal"),
            (asyncio.CancelledError(), 499, "cancelled"),
        ],
    )
    async def test_a_call_that_fails_is_kept_with_its_error(self, error, status, code):
        log = a_log()
        with pytest.raises(type(error)):
            await record(log, error=error)
        (row,) = (await log.page()).calls
        assert (row.status, row.code) == (status, code)

    async def test_callers_are_told_apart(self):
        log = a_log()
        for who in (ADA, config_key(2), anonymous(infers=True, manages=True)):
            with log.call(who, "x", ("stack", "lab")) as call:
                call.outcome = Outcome(201, "ok")
        found = (await log.page()).calls
        assert [(one.who, one.name) for one in found] == [
            ("anonymous", "anonymous"), ("config", "management_keys 2"), ("owner", "uid 1000"),
        ]  # fmt: skip
        assert {one.status for one in found} == {201}


class TestPages:
    async def test_they_lead_through_the_log_without_a_gap(self):
        clock = FakeClock(START)
        log = a_log(clock=clock)
        for number in range(7):
            await record(log, str(number))
            clock.advance(1)
        names, following = [], None
        while True:
            page = await log.page(limit=3, before_id=following)
            names.append([one.subject_name for one in page.calls])
            if (following := page.next) is None:
                break
            await record(log, "later")
        assert names == [["6", "5", "4"], ["3", "2", "1"], ["0"]]

    async def test_they_can_be_narrowed(self):
        log = a_log()
        await record(log, "a")
        await record(log, "b")
        chosen = AuditFilter(subject=("instance", "a"), action="instances.start", since=START)
        assert [one.subject_name for one in (await log.page(chosen)).calls] == ["a"]
        assert (await log.page(AuditFilter(since=START + timedelta(seconds=1)))).calls == ()
        assert (await log.page(AuditFilter(key_id=1))).calls == ()

    async def test_the_size_of_a_page_is_bounded(self):
        log = a_log()
        for _ in range(1002):
            await record(log)
        assert [len((await log.page(limit=limit)).calls) for limit in (-5, 10**9)] == [1, 1000]


class TestRedaction:
    def test_secrets_are_hidden_by_name_by_value_and_by_option(self):
        know_secret("correct-horse")
        found = shown(
            {
                "environment": {"HF_TOKEN": "abcdefgh", "PATH": "/bin"},
                "command": ["vllm", "serve", "--api-key", "open-sesame", "--port", "1"],
                "text": "say correct-horse",
                "told": "open-sesame",
                "token": "grs-mgmt-" + "ab" * 32,
                "line": "x grs-inf-" + "cd" * 32,
                "prefix": "grs-inf-3f9a2c",
                "api_key": {"env": "NAME"},
                "tokens_per_minute": 5,
            }
        )
        assert found == {
            "environment": {"HF_TOKEN": "***", "PATH": "/bin"},
            "command": ["vllm", "serve", "--api-key", "***", "--port", "1"],
            "text": "say ***",
            "told": "***",
            "token": "***",
            "line": "x grs-inf-***",
            "prefix": "grs-inf-3f9a2c",
            "api_key": "***",
            "tokens_per_minute": 5,
        }

    def test_large_and_deep_documents_are_cut(self):
        deep: dict = {}
        inner = deep
        for _ in range(5000):
            inner["a"] = inner = {}
        assert len(json.dumps(shown(deep))) < 200
        found = shown({"name": "qwen", "big": ["x" * 100] * 1000, "long": "y" * 100_000})
        assert found["name"] == "qwen"
        assert found["truncated"] > 32 * 1024
        assert len(json.dumps(found)) < 32 * 1024
        assert shown(None) is None


class Failing(MemoryStore):
    down = True

    def add_audit(self, rows):
        if self.down:
            raise LockedError("the database is being written by another program")
        super().add_audit(rows)


class TestWriting:
    def test_a_store_that_fails_is_tried_again(self):
        async def main(loop):
            store = Failing()
            log = a_log(store, LoopClock(loop))
            for number in range(3):
                await record(log, str(number))
            assert not await log.flush(12)
            store.down = False
            await record(log, "3")
            assert await log.flush(12)
            return [one.subject_name for one in store.audit()], log.dropped

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            assert runner.run(main(runner.get_loop())) == (["3", "2", "1", "0"], 0)

    def test_what_waits_is_bounded_and_losses_are_counted(self):
        async def main(loop):
            store = Failing()
            log = a_log(store, LoopClock(loop))
            for number in range(10_003):
                log.put(_row(number))
            await asyncio.sleep(1)
            lost = log.dropped
            store.down = False
            assert await log.flush(12)
            return lost, len(store.audit(limit=20_000)), store.audit(limit=1)[0].subject_name

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            assert runner.run(main(runner.get_loop())) == (3, 10_000, "10002")

    def test_a_close_that_cannot_write_says_how_much_is_lost(self):
        async def main(loop):
            log = a_log(Failing(), LoopClock(loop))
            await record(log)
            await record(log)
            return await log.close(7)

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            assert runner.run(main(runner.get_loop())) == 2

    async def test_on_a_real_database_and_threads(self, tmp_path):
        store, pool = open_store(tmp_path / "garrison.db"), ThreadPool("audit")
        log = AuditLog(store, pool=pool, node="main")
        for number in range(1200):
            await record(log, str(number))
        assert await log.close(30) == 0
        assert [one.subject_name for one in store.audit(limit=2000)] == [str(number) for number in range(1199, -1, -1)]
        pool.close(5)
        store.close()


async def test_verbs_on_keys_are_recorded_with_what_they_change():
    keys = MemoryKeys()
    log = a_log(keys.store)
    verbs = AuditedKeys(keys, log, ADA, request_id="r9")
    issued = await verbs.create_key(NewKey(name="ci"))
    number = issued.key.id
    await verbs.list_keys()
    await verbs.get_key(number)
    await verbs.update_key(number, KeyChange(enabled=False))
    rotated = await verbs.rotate_key(number, 60)
    with pytest.raises(ConflictError):
        await verbs.update_key(number, KeyChange(name="x"), revision=1)
    await verbs.delete_key(number)
    with pytest.raises(NotFoundError):
        await verbs.delete_key(number)
    rows = (await log.page()).calls[::-1]
    assert [(one.action, one.subject_name, one.status) for one in rows] == [
        ("keys.create", "1", 201), ("keys.list", "", 200), ("keys.get", "1", 200), ("keys.update", "1", 200),
        ("keys.rotate", "1", 200), ("keys.update", "1", 409), ("keys.delete", "1", 204), ("keys.delete", "1", 404),
    ]  # fmt: skip
    assert (rows[3].before["enabled"], rows[3].after["enabled"]) == (True, False)
    assert (rows[0].before, rows[0].after["name"]) == (None, "ci")
    assert (rows[6].before["name"], rows[6].after) == ("ci", None)
    assert not [one for one in (issued.token, rotated.token) if one in repr(rows)]


def _row(number):
    from garrison.access.audit_entry import audit_row

    return audit_row(
        ADA, "x", ("stack", str(number)), at=START, before=None, after=None, outcome=Outcome(200, "ok")
    )  # fmt: skip
