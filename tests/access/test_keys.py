"""The life of keys: made, checked, changed, rotated, deleted; in memory and on a real database."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison.access.book import Refusal
from garrison.access.changes import KeyChange, NewKey
from garrison.access.identity import Caller, Identity
from garrison.access.key import Key, KeyState
from garrison.access.keys import Keys
from garrison.access.operations import KeyOperations
from garrison.access.permissions import Grants, Limits, Permissions, Scope
from garrison.access.stored import key_from_json, key_of, key_to_json, spec_of
from garrison.access.tokens import KeyKind, TokenHasher
from garrison.base.errors import ConflictError, InvalidError, LockedError, NotFoundError
from garrison.net.thread_pool import ThreadPool
from garrison.store.key_store import KeyRow
from garrison.store.sql.store import open_store
from garrison.testing.clock import FakeClock
from garrison.testing.keys import MemoryKeys
from garrison.testing.store import MemoryStore
from garrison.testing.thread_pool import DirectPool
from garrison.testing.virtual_loop import VirtualLoop

START = datetime(2026, 1, 1, tzinfo=UTC)
MANAGE = Permissions(frozenset({Scope.MANAGE}))
ONLY_QWEN = Permissions(frozenset({Scope.INFERENCE}), Grants(instances=frozenset({"qwen"})))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def keys(clock: FakeClock) -> MemoryKeys:
    return MemoryKeys(clock)


@contextlib.asynccontextmanager
async def on_disk(path: Path, clock: FakeClock, secret: bytes = b"k" * 32) -> AsyncIterator[Keys]:
    store, pool = open_store(path), ThreadPool("keys")
    try:
        yield Keys(store, TokenHasher(secret), pool=pool, clock=clock)
    finally:
        pool.close(5)
        store.close()


def the_protocol_holds(keys: Keys) -> KeyOperations:
    return keys


class TestChecking:
    async def test_a_new_key_works_at_once_and_says_whose_it_is(self, keys):
        limits = Limits(requests_per_minute=5)
        issued = await keys.create_key(NewKey(name="ci", permissions=ONLY_QWEN, limits=limits))
        assert keys.authenticate(issued.token) == Identity(
            caller=Caller.KEY, name="ci", permissions=ONLY_QWEN, limits=limits, key_id=issued.key.id
        )
        assert issued.token.startswith(issued.key.prefix)
        assert issued.token not in repr(issued)

    async def test_anything_else_is_refused(self, keys):
        issued = await keys.create_key(NewKey(name="ci"))
        last = "0" if issued.token[-1] != "0" else "1"
        for token in ("x", issued.token[:-1], issued.token[:-1] + last, issued.token + "0", issued.token.upper()):
            assert keys.authenticate(token) is Refusal.UNKNOWN
        assert keys.authenticate(None) is keys.authenticate("") is Refusal.MISSING

    async def test_it_ends_when_it_expires(self, keys, clock):
        issued = await keys.create_key(NewKey(name="ci", expires_at=START + timedelta(seconds=10)))
        clock.advance(9.999)
        assert isinstance(keys.authenticate(issued.token), Identity)
        clock.advance(0.001)
        assert keys.authenticate(issued.token) is Refusal.EXPIRED
        assert issued.key.state(clock.now()) is KeyState.EXPIRED

    async def test_it_can_be_disabled_and_enabled(self, keys, clock):
        issued = await keys.create_key(NewKey(name="ci"))
        off = await keys.update_key(issued.key.id, KeyChange(enabled=False))
        assert keys.authenticate(issued.token) is Refusal.DISABLED
        assert off.state(clock.now()) is KeyState.DISABLED
        await keys.update_key(issued.key.id, KeyChange(enabled=True))
        assert isinstance(keys.authenticate(issued.token), Identity)

    async def test_a_deleted_key_is_unknown(self, keys):
        issued = await keys.create_key(NewKey(name="ci"))
        assert await keys.delete_key(issued.key.id) == issued.key
        assert keys.authenticate(issued.token) is Refusal.UNKNOWN
        for call in (keys.delete_key, keys.get_key, keys.rotate_key):
            with pytest.raises(NotFoundError):
                await call(issued.key.id)

    async def test_keys_of_the_settings_manage(self, clock):
        keys = Keys(
            MemoryStore(), TokenHasher(b"k" * 32), pool=DirectPool(), clock=clock, config_keys=["first", "second"]
        )
        found = keys.authenticate("second")
        assert isinstance(found, Identity)
        assert (found.caller, found.name) == (Caller.CONFIG, "management_keys 2")
        assert Scope.MANAGE in found.permissions.scopes
        assert keys.book.has_manager(clock.now())
        await keys.create_key(NewKey(name="ci"))
        assert isinstance(keys.authenticate("first"), Identity)

    async def test_it_is_known_whether_anybody_manages(self, keys, clock):
        assert not keys.book.has_manager(clock.now())
        await keys.create_key(NewKey(name="ci"))
        assert not keys.book.has_manager(clock.now())
        issued = await keys.create_key(NewKey(name="a", permissions=MANAGE, expires_at=START + timedelta(seconds=5)))
        assert keys.book.has_manager(clock.now())
        await keys.update_key(issued.key.id, KeyChange(enabled=False))
        assert not keys.book.has_manager(clock.now())
        await keys.update_key(issued.key.id, KeyChange(enabled=True))
        clock.advance(5)
        assert not keys.book.has_manager(clock.now())

    async def test_the_store_is_not_asked(self, keys, monkeypatch):
        issued = await keys.create_key(NewKey(name="ci"))
        for verb in ("keys", "keys_revision", "touch_keys"):
            monkeypatch.setattr(keys.store, verb, lambda *_: pytest.fail("the store was asked"))
        assert isinstance(keys.authenticate(issued.token), Identity)
        assert keys.authenticate("other") is Refusal.UNKNOWN


class TestRotation:
    async def test_the_old_token_works_on_for_a_while(self, keys, clock):
        first = await keys.create_key(NewKey(name="ci", permissions=ONLY_QWEN))
        second = await keys.rotate_key(first.key.id, 60)
        assert second.token != first.token
        assert (second.key.previous_prefix, second.key.prefix) == (first.key.prefix, second.token[:14])
        assert second.key.rotates_until == START + timedelta(seconds=60)
        assert keys.authenticate(first.token) == keys.authenticate(second.token)
        clock.advance(60)
        assert keys.authenticate(first.token) is Refusal.ROTATED
        assert isinstance(keys.authenticate(second.token), Identity)

    async def test_without_overlap_it_ends_at_once(self, keys):
        first = await keys.create_key(NewKey(name="ci"))
        await keys.rotate_key(first.key.id)
        assert keys.authenticate(first.token) is Refusal.ROTATED

    async def test_only_one_old_token_is_kept(self, keys):
        first = await keys.create_key(NewKey(name="ci"))
        second = await keys.rotate_key(first.key.id, 60)
        third = await keys.rotate_key(first.key.id, 60)
        assert keys.authenticate(first.token) is Refusal.UNKNOWN
        assert isinstance(keys.authenticate(second.token), Identity)
        assert isinstance(keys.authenticate(third.token), Identity)

    async def test_an_old_token_dies_with_its_key(self, keys, clock):
        first = await keys.create_key(NewKey(name="ci", expires_at=START + timedelta(seconds=10)))
        await keys.rotate_key(first.key.id, 60)
        await keys.update_key(first.key.id, KeyChange(enabled=False))
        assert keys.authenticate(first.token) is Refusal.DISABLED
        await keys.update_key(first.key.id, KeyChange(enabled=True))
        clock.advance(10)
        assert keys.authenticate(first.token) is Refusal.EXPIRED

    @pytest.mark.parametrize("overlap", [-1, 367 * 86400, float("nan"), float("inf")])
    async def test_an_overlap_is_bounded(self, keys, overlap):
        first = await keys.create_key(NewKey(name="ci"))
        with pytest.raises(InvalidError, match="overlap"):
            await keys.rotate_key(first.key.id, overlap)
        assert isinstance(keys.authenticate(first.token), Identity)


class TestChanges:
    async def test_what_is_not_named_stays(self, keys, clock):
        issued = await keys.create_key(NewKey(name="ci", note="n", permissions=ONLY_QWEN, limits=Limits(concurrent=2)))
        clock.advance(5)
        changed = await keys.update_key(issued.key.id, KeyChange(name=" other "))
        assert (changed.name, changed.note, changed.permissions) == ("other", "n", ONLY_QWEN)
        assert (changed.limits, changed.revision) == (Limits(concurrent=2), 2)
        assert (changed.created, changed.updated) == (START, START + timedelta(seconds=5))
        assert await keys.get_key(issued.key.id) == changed
        found = keys.authenticate(issued.token)
        assert isinstance(found, Identity)
        assert found.name == "other"

    async def test_a_change_of_nothing_is_none(self, keys):
        issued = await keys.create_key(NewKey(name="ci"))
        assert await keys.update_key(issued.key.id, KeyChange(name="ci", enabled=True)) == issued.key
        assert keys.store.keys_revision() == 1

    async def test_an_expiry_can_be_set_and_removed(self, keys):
        soon = START + timedelta(days=1)
        issued = await keys.create_key(NewKey(name="ci", expires_at=soon))
        assert (await keys.update_key(issued.key.id, KeyChange(note="x"))).expires_at == soon
        assert (await keys.update_key(issued.key.id, KeyChange(expires_at=None))).expires_at is None

    async def test_a_priority_is_kept_and_belongs_to_whoever_holds_the_key(self, keys):
        issued = await keys.create_key(NewKey(name="ci", priority=5))
        assert keys.authenticate(issued.token).priority == 5
        await keys.update_key(issued.key.id, KeyChange(note="x"))
        assert keys.authenticate(issued.token).priority == 5
        await keys.update_key(issued.key.id, KeyChange(priority=-1))
        assert keys.authenticate(issued.token).priority == -1
        row = keys.store.keys().rows[0]
        older = replace(row, spec={name: value for name, value in row.spec.items() if name != "priority"})
        assert key_of(older, keys._hasher.name).priority == 0, "a key from before there were any"

    async def test_an_expired_key_can_still_be_changed(self, keys, clock):
        issued = await keys.create_key(NewKey(name="ci", expires_at=START + timedelta(days=1)))
        clock.advance(2 * 86400)
        assert (await keys.update_key(issued.key.id, KeyChange(note="x"))).note == "x"

    async def test_a_manager_may_do_everything_and_an_inference_key_becomes_none(self, keys):
        manager = (await keys.create_key(NewKey(name="a", permissions=MANAGE))).key
        assert (manager.kind, manager.permissions.scopes) == (KeyKind.MANAGEMENT, frozenset(Scope))
        client = (await keys.create_key(NewKey(name="b"))).key
        for number, scope in ((client.id, Scope.MANAGE), (client.id, Scope.READ), (manager.id, Scope.INFERENCE)):
            with pytest.raises(InvalidError, match="stays one"):
                await keys.update_key(number, KeyChange(permissions=Permissions(frozenset({scope}))))

    async def test_a_change_of_another_revision_is_refused(self, keys):
        issued = await keys.create_key(NewKey(name="ci"))
        await keys.update_key(issued.key.id, KeyChange(name="x"), revision=1)
        for call in (
            lambda: keys.update_key(issued.key.id, KeyChange(name="y"), revision=1),
            lambda: keys.rotate_key(issued.key.id, revision=1),
            lambda: keys.delete_key(issued.key.id, revision=1),
        ):
            with pytest.raises(ConflictError, match="has revision 2, not 1"):
                await call()
        assert (await keys.get_key(issued.key.id)).name == "x"
        assert isinstance(keys.authenticate(issued.token), Identity)

    async def test_a_change_by_another_process_in_between_is_not_lost(self, clock):
        class Raced(MemoryStore):
            """Another process writes just before the first save."""

            races = 1

            def save_key(self, row, events=()):
                while self.races:
                    self.races -= 1
                    other = next(one for one in super().keys().rows if one.id == row.id)
                    from dataclasses import replace

                    spec = {**other.spec, "note": "theirs"}
                    assert super().save_key(replace(other, spec=spec, revision=other.revision + 1))
                return super().save_key(row, events)

        keys = MemoryKeys(clock, store=Raced())
        issued = await keys.create_key(NewKey(name="ci"))
        changed = await keys.update_key(issued.key.id, KeyChange(name="ours"))
        assert (changed.name, changed.note, changed.revision) == ("ours", "theirs", 3)

    @pytest.mark.parametrize(
        ("new", "field"),
        [
            (NewKey(name=""), "name"),
            (NewKey(name="  "), "name"),
            (NewKey(name="x" * 101), "name"),
            (NewKey(name="a\nb"), "name"),
            (NewKey(name="a", note="x" * 1001), "note"),
            (NewKey(name="a", expires_at=START), "expires_at"),
            (NewKey(name="a", limits=Limits(concurrent=0)), "limits.concurrent"),
            (NewKey(name="a", priority=101), "priority"),
            (NewKey(name="a", priority=-101), "priority"),
            (NewKey(name="a", permissions=Permissions(frozenset())), "scopes"),
            (NewKey(name="a", permissions=Permissions(frozenset({Scope.INFERENCE}), Grants())), "instance_ids"),
            (NewKey(name="a", permissions=Permissions(frozenset({Scope.MANAGE}), Grants(frozenset("a")))), "instances"),
            (NewKey(name="a", permissions=Permissions(frozenset({Scope.READ}), Grants(frozenset("a")))), "instances"),
            (NewKey(name="a", permissions=Permissions(only=Grants(frozenset({""})))), "instances"),
            (NewKey(name="a", permissions=Permissions(only=Grants(instance_ids=frozenset({0})))), "instance_ids"),
            (NewKey(name="a", permissions=Permissions(only=Grants(frozenset(map(str, range(1001)))))), "instances"),
        ],
    )
    async def test_what_cannot_be_used_is_said(self, keys, new, field):
        with pytest.raises(InvalidError) as caught:
            await keys.create_key(new)
        assert caught.value.details["field"] == field
        assert keys.store.keys().rows == ()

    async def test_every_change_is_in_the_history_without_a_token(self, keys):
        issued = await keys.create_key(NewKey(name="ci"))
        await keys.update_key(issued.key.id, KeyChange(enabled=False))
        rotated = await keys.rotate_key(issued.key.id, 5)
        await keys.delete_key(issued.key.id)
        events = keys.store.events(subject=("key", "ci"))
        assert [one.kind for one in events] == ["deleted", "rotated", "changed", "created"]
        assert (events[2].before["enabled"], events[2].after["enabled"]) == (True, False)
        text = repr(events)
        digests = [keys._hasher.digest(one.token).hex() for one in (issued, rotated)]
        assert not [one for one in (issued.token, rotated.token, *digests) if one in text]


class TestOtherProcesses:
    async def test_a_change_elsewhere_is_seen_by_one_cheap_question(self, clock, tmp_path):
        path = tmp_path / "garrison.db"
        async with on_disk(path, clock) as server, on_disk(path, clock) as command:
            await server.load()
            assert not await server.refresh()
            issued = await command.create_key(NewKey(name="ci"))
            assert server.authenticate(issued.token) is Refusal.UNKNOWN
            assert await server.refresh()
            assert isinstance(server.authenticate(issued.token), Identity)
            await command.delete_key(issued.key.id)
            assert await server.refresh()
            assert server.authenticate(issued.token) is Refusal.UNKNOWN

    async def test_many_who_wait_for_a_change_share_one_look(self, clock, tmp_path, monkeypatch):
        path = tmp_path / "garrison.db"
        async with on_disk(path, clock) as server, on_disk(path, clock) as command:
            await server.load()
            issued = await command.create_key(NewKey(name="ci"))
            looks, ask = [], server._store.keys_revision
            monkeypatch.setattr(server._store, "keys_revision", lambda: (looks.append(1), time.sleep(0.05), ask())[-1])
            await asyncio.gather(*(server.fresh() for _ in range(50)))
            assert isinstance(server.authenticate(issued.token), Identity)
            assert len(looks) <= 2

    async def test_a_store_that_hangs_holds_nobody_up_for_long(self, clock, tmp_path, monkeypatch):
        async with on_disk(tmp_path / "garrison.db", clock) as server:
            await server.load()
            gate = threading.Event()
            monkeypatch.setattr(server._store, "keys_revision", lambda: gate.wait(30) and -1)
            try:
                async with asyncio.timeout(5):
                    await asyncio.gather(*(server.fresh() for _ in range(5)))
            finally:
                gate.set()

    async def test_keys_of_another_secret_are_shown_and_can_be_rotated(self, clock, tmp_path):
        path = tmp_path / "garrison.db"
        async with on_disk(path, clock) as keys:
            issued = await keys.create_key(NewKey(name="ci"))
        async with on_disk(path, clock, secret=b"o" * 32) as keys:
            (key,) = await keys.list_keys()
            assert key.state(clock.now()) is KeyState.UNUSABLE
            assert [one.id for one in keys.book.unusable] == [key.id]
            assert keys.authenticate(issued.token) is Refusal.UNKNOWN
            rotated = await keys.rotate_key(key.id, 60)
            assert rotated.key.state(clock.now()) is KeyState.ACTIVE
            assert isinstance(keys.authenticate(rotated.token), Identity)
            assert keys.authenticate(issued.token) is Refusal.UNKNOWN

    async def test_no_token_is_in_the_database(self, clock, tmp_path):
        path = tmp_path / "garrison.db"
        async with on_disk(path, clock) as keys:
            first = await keys.create_key(NewKey(name="ci"))
            second = await keys.rotate_key(first.key.id, 60)
        content = b"".join(one.read_bytes() for one in tmp_path.iterdir())
        assert first.key.prefix.encode() in content
        for token in (first.token, second.token):
            assert token.rpartition("-")[2][8:].encode() not in content

    async def test_each_new_book_is_told(self, clock):
        books = []
        keys = Keys(MemoryStore(), TokenHasher(b"k" * 32), pool=DirectPool(), clock=clock, on_change=books.append)
        await keys.load()
        issued = await keys.create_key(NewKey(name="ci"))
        await keys.load()
        assert [sorted(book.keys) for book in books] == [[], [issued.key.id]]


class TestLastUse:
    async def test_it_is_shown_at_once_and_written_later(self, keys, clock):
        issued = await keys.create_key(NewKey(name="ci"))
        clock.advance(3)
        keys.authenticate(issued.token)
        assert (await keys.get_key(issued.key.id)).last_used == START + timedelta(seconds=3)
        assert keys.store.keys().rows[0].last_used is None
        await keys.write_last_used()
        assert keys.store.keys().rows[0].last_used == START + timedelta(seconds=3)
        assert keys.store.keys_revision() == 1
        keys.store.touch_keys({issued.key.id: START + timedelta(seconds=9)})
        assert (await keys.list_keys())[0].last_used == START + timedelta(seconds=9)

    async def test_a_refused_token_is_no_use(self, keys):
        issued = await keys.create_key(NewKey(name="ci", enabled=False))
        assert keys.authenticate(issued.token) is Refusal.DISABLED
        assert (await keys.get_key(issued.key.id)).last_used is None

    async def test_what_could_not_be_written_is_written_later(self, keys, clock, monkeypatch):
        def fail(_):
            raise LockedError("the database is being written by another program")

        issued = await keys.create_key(NewKey(name="ci"))
        keys.authenticate(issued.token)
        with monkeypatch.context() as patched:
            patched.setattr(keys.store, "touch_keys", fail)
            with pytest.raises(LockedError):
                await keys.write_last_used()
        await keys.write_last_used()
        assert keys.store.keys().rows[0].last_used == START

    def test_it_is_written_once_a_minute_and_again_after_a_failure(self):
        class Failing(MemoryStore):
            down = False
            writes = 0

            def touch_keys(self, times):
                self.writes += 1
                if self.down:
                    raise LockedError("the database is being written by another program")
                super().touch_keys(times)

        async def main(loop: VirtualLoop) -> tuple[list[int], datetime | None]:
            from garrison.testing.virtual_loop import LoopClock

            store = Failing()
            keys = MemoryKeys(LoopClock(loop), store=store)
            issued = await keys.create_key(NewKey(name="ci"))
            running = asyncio.create_task(keys.run())
            seen = []
            for minute in range(4):
                store.down = minute == 1
                for _ in range(30):
                    keys.authenticate(issued.token)
                    await asyncio.sleep(2.03)
                seen.append(store.writes)
            running.cancel()
            return seen, store.keys().rows[0].last_used

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            seen, last = runner.run(main(runner.get_loop()))
        assert [after - before for before, after in zip([0, *seen], seen, strict=False)] == [1, 1, 1, 1]
        assert last is not None
        assert last > START + timedelta(minutes=3)


PERMISSIONS = st.builds(
    Permissions,
    st.sets(st.sampled_from(Scope), min_size=1).map(frozenset),
    st.none()
    | st.builds(
        Grants,
        st.frozensets(st.text(max_size=3)),
        st.frozensets(st.integers(1, 9)),
        st.frozensets(st.text(max_size=3), min_size=1),
    ),
)
NUMBERS = st.none() | st.integers(1, 10**9)
TIMES = st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
KEYS = st.builds(
    Key,
    id=st.integers(1, 99),
    name=st.text(max_size=5),
    kind=st.sampled_from(KeyKind),
    prefix=st.text(max_size=5),
    created=TIMES,
    updated=TIMES,
    permissions=PERMISSIONS,
    limits=st.builds(Limits, requests_per_minute=NUMBERS, tokens_per_minute=NUMBERS, concurrent=NUMBERS),
    enabled=st.booleans(),
    note=st.text(max_size=5),
    expires_at=st.none() | TIMES,
    previous_prefix=st.none() | st.text(max_size=5),
    rotates_until=st.none() | TIMES,
    last_used=st.none() | TIMES,
    revision=st.integers(1, 9),
    usable=st.booleans(),
)


@given(KEYS)
def test_a_key_survives_json_and_the_database(key: Key):
    assert key_from_json(key_to_json(key)) == key
    row = KeyRow(
        id=key.id, name=key.name, digest="ab", prefix=key.prefix, secret="s", spec=spec_of(key), created=key.created,
        updated=key.updated, expires_at=key.expires_at, previous_prefix=key.previous_prefix,
        rotates_until=key.rotates_until, last_used=key.last_used, revision=key.revision,
    )  # fmt: skip
    assert key_of(row, "s" if key.usable else "other") == key


def test_the_json_is_llamactls_with_more(keys):
    async def main():
        return await keys.create_key(NewKey(name="ci", permissions=ONLY_QWEN, expires_at=START + timedelta(days=1)))

    issued = asyncio.run(main())
    body = key_to_json(issued.key, issued.token)
    seconds = int(START.timestamp())
    assert {name: body[name] for name in list(body)[:8]} == {
        "id": 1, "name": "ci", "user_id": "system", "permission_mode": "per_instance",
        "expires_at": seconds + 86400, "created_at": seconds, "updated_at": seconds, "last_used_at": None,
    }  # fmt: skip
    assert body["key"] == issued.token
    assert "key" not in key_to_json(issued.key)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["create", "edit", "rotate", "delete", "elsewhere"]), st.integers(1, 4))))
def test_a_book_that_followed_its_changes_is_the_one_that_is_read(steps):
    async def main() -> None:
        keys = MemoryKeys()
        other = MemoryKeys(store=keys.store)
        for verb, number in steps:
            with contextlib.suppress(NotFoundError):
                match verb:
                    case "create":
                        await keys.create_key(NewKey(name="ci"))
                    case "edit":
                        await keys.update_key(number, KeyChange(note=str(len(keys.store.events()))))
                    case "rotate":
                        await keys.rotate_key(number, 60)
                    case "delete":
                        await keys.delete_key(number)
                    case "elsewhere":
                        await other.rotate_key(number, 60)
        await keys.create_key(NewKey(name="the last"))
        followed = keys.book
        assert followed.revision == keys.store.keys_revision()
        await keys.load()
        assert followed == keys.book
        assert list(followed.keys) == list(keys.book.keys)

    asyncio.run(main())


async def test_a_new_key_does_not_hide_a_change_by_another_process(keys, clock):
    issued = await keys.create_key(NewKey(name="ci"))
    await MemoryKeys(clock, store=keys.store).update_key(issued.key.id, KeyChange(enabled=False))
    await keys.create_key(NewKey(name="other"))
    assert keys.authenticate(issued.token) is Refusal.DISABLED


async def test_a_change_reads_the_other_keys_only_if_another_process_wrote(keys, clock, monkeypatch):
    reads = []
    read = keys.store.keys
    monkeypatch.setattr(keys.store, "keys", lambda: reads.append(1) or read())
    await keys.load()
    issued = await keys.create_key(NewKey(name="ci"))
    await keys.update_key(issued.key.id, KeyChange(note="x"))
    await keys.rotate_key(issued.key.id)
    assert len(reads) == 1
    await MemoryKeys(clock, store=keys.store).create_key(NewKey(name="theirs"))
    reads.clear()
    await keys.delete_key(issued.key.id)
    assert len(reads) == 1
    assert [key.name for key in keys.book.keys.values()] == ["theirs"]
