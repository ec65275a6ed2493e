"""The keys of a database: checked in memory, changed in the store."""

import asyncio
import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NoReturn, TypeVar

from garrison.access.book import KeyBook, Refusal, make_book
from garrison.access.changes import KeyChange, NewKey, changed, kind_for, made, overlap_end
from garrison.access.identity import Identity
from garrison.access.key import Issued, Key
from garrison.access.stored import key_of, key_to_json, spec_of
from garrison.access.tokens import TokenHasher, new_token, prefix_of
from garrison.base.clock import Clock, SystemClock
from garrison.base.errors import ConflictError, GarrisonError, NotFoundError
from garrison.base.logs import logger
from garrison.net.thread_pool import ThreadPool
from garrison.store.key_store import KeyRow, KeyStore, KeyTable
from garrison.store.records import Event

__all__ = ["Keys"]

T = TypeVar("T")

_FRESH_SECONDS = 0.3
_LOOK_SECONDS = 1.0
_WRITE_SECONDS = 60.0
_ATTEMPTS = 5

_log = logger(__name__)


class Keys:
    """`KeyOperations` on a store, and the check of tokens.

    Args:
        store: is called on `pool`, in order.
        pool: has one thread, so that what was read earlier does not replace what was read later.
        config_keys: management keys of the settings.
        on_change: is called with each new book.
    """

    def __init__(
        self,
        store: KeyStore,
        hasher: TokenHasher,
        *,
        pool: ThreadPool,
        clock: Clock | None = None,
        config_keys: Sequence[str] = (),
        on_change: Callable[[KeyBook], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._hasher = hasher
        self._pool = pool
        self._clock = clock or SystemClock()
        self._config_keys = tuple(config_keys)
        self._on_change = on_change
        self._book = self._latest = make_book(KeyTable(-1, ()), hasher, self._config_keys)
        self._used: dict[int, datetime] = {}
        self._stale = False
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")

    # --- checking

    @property
    def book(self) -> KeyBook:
        """The keys as they were last read."""
        return self._book

    def authenticate(self, token: str | None) -> Identity | Refusal:
        """Return whose token this is, or why it is not accepted. It waits for nothing."""
        now = self._clock.now()
        found = self._book.check(token, now)
        if isinstance(found, Identity) and found.key_id is not None:
            self._used[found.key_id] = now
        return found

    # --- keeping up

    async def load(self) -> KeyBook:
        """Read the keys. Until then only those of the settings are known.

        Raises:
            GarrisonError: the store cannot be read.
        """
        self._adopt(await self._pool.run(self._read, "read the keys"))
        if lost := self._book.unusable:
            _log.warning("keys were made with another key secret and are refused", keys=[one.id for one in lost])
        return self._book

    async def refresh(self) -> bool:
        """Read the keys again if another process changed them; return whether it did.

        Raises:
            GarrisonError: the store cannot be read.
        """
        if await self._pool.run(self._store.keys_revision, "look for changed keys") == self._book.revision:
            return False
        await self.load()
        return True

    async def fresh(self) -> None:
        """Return when the changes that other processes made before are known, but at the latest after a moment.

        Callers share one look at the store, as there may be many with a token that nobody knows.
        """
        loop = asyncio.get_running_loop()
        asked = loop.time()
        with contextlib.suppress(TimeoutError, GarrisonError):
            async with asyncio.timeout(_FRESH_SECONDS), self._looking:
                if self._looked_at <= asked:
                    self._looked_at = loop.time()
                    await self.refresh()

    async def write_last_used(self) -> None:
        """Write when keys were used since the last call.

        Raises:
            GarrisonError: the store cannot be written; the times are kept for the next call.
        """
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._pool.run(lambda: self._store.touch_keys(used), "write when keys were used")
        except BaseException:
            self._used = used | self._used
            raise

    async def run(self) -> NoReturn:
        """Follow changes by other processes each second, and write when keys were used each minute, until cancelled.

        While the store cannot be read, the keys stay as they were, which is logged once.
        """
        due = self._clock.monotonic() + _WRITE_SECONDS
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self.refresh()
                if self._clock.monotonic() >= due:
                    due = self._clock.monotonic() + _WRITE_SECONDS
                    await self.write_last_used()
            except GarrisonError as error:
                if not self._stale:
                    _log.warning("keys cannot be read or written, and stay as they were", error=error.message)
                self._stale = True
            else:
                self._stale = False

    # --- operations

    async def list_keys(self) -> list[Key]:
        await self.load()
        return [self._with_last_use(key) for key in self._book.keys.values()]

    async def get_key(self, id: int) -> Key:
        await self.load()
        return self._with_last_use(self._key(self._row(id)))

    async def create_key(self, new: NewKey) -> Issued:
        now = self._clock.now()
        token = new_token(kind_for(new.permissions))
        key = made(new, prefix_of(token), now)
        row = self._row_of(key, token)
        event = _event("created", key, now, after=key)
        stored = await self._write(lambda: self._store.create_key(row, [event]), "create a key", new=lambda made: made)
        return Issued(self._key(stored), token)

    async def update_key(self, id: int, change: KeyChange, *, revision: int | None = None) -> Key:
        now = self._clock.now()

        def changed_row(row: KeyRow) -> tuple[KeyRow, Event] | None:
            before = self._key(row)
            after = changed(before, change, now)
            if after is before:
                return None
            following = replace(
                row,
                name=after.name,
                spec=spec_of(after),
                expires_at=after.expires_at,
                updated=now,
                revision=after.revision,
            )
            return following, _event("changed", after, now, before=before, after=after)

        return await self._change(id, revision, changed_row)

    async def rotate_key(self, id: int, overlap: float = 0.0, *, revision: int | None = None) -> Issued:
        now = self._clock.now()
        until = overlap_end(overlap, now)
        tokens: dict[str, str] = {}

        def rotated(row: KeyRow) -> tuple[KeyRow, Event]:
            before = self._key(row)
            token = tokens.setdefault("new", new_token(before.kind))
            following = replace(
                row,
                digest=self._hasher.digest(token).hex(),
                prefix=prefix_of(token),
                secret=self._hasher.name,
                # A token that was digested with another secret cannot be recognised beside the new one.
                previous_digest=row.digest if before.usable else None,
                previous_prefix=row.prefix if before.usable else None,
                rotates_until=until if before.usable else None,
                updated=now,
                revision=row.revision + 1,
            )
            return following, _event("rotated", before, now, before=before, after=self._key(following))

        key = await self._change(id, revision, rotated)
        return Issued(key, tokens["new"])

    async def delete_key(self, id: int, *, revision: int | None = None) -> Key:
        row = await self._current(id, revision)
        key = self._key(row)
        event = _event("deleted", key, self._clock.now(), before=key)
        if not await self._write(lambda: self._store.delete_key(id, [event]), "delete a key", gone=row):
            raise _not_found(id)
        self._used.pop(id, None)
        return key

    # --- inside

    async def _change(
        self, id: int, revision: int | None, change: Callable[[KeyRow], tuple[KeyRow, Event] | None]
    ) -> Key:
        """Save what `change` makes of the key on record, again if another process changed it in between."""
        for _ in range(_ATTEMPTS):
            row = await self._current(id, revision)
            found = change(row)
            if found is None:
                return self._key(row)
            following, event = found
            if await self._save(row, following, event):
                return self._with_last_use(self._key(following))
        raise ConflictError(f"key {id} is being changed by others all the time", hint="Nothing was changed; try again.")

    async def _save(self, before: KeyRow, after: KeyRow, event: Event) -> bool:
        save = functools.partial(self._store.save_key, after, [event])
        return await self._write(save, "change a key", gone=before, new=lambda _: after)

    async def _current(self, id: int, revision: int | None) -> KeyRow:
        """Return the key on record, if it has the revision that the caller saw."""
        await self.refresh()
        row = self._row(id)
        if revision is not None and row.revision != revision:
            raise ConflictError(
                f"key {id} was changed meanwhile: it has revision {row.revision}, not {revision}",
                hint="Nothing was changed; look at it again.",
                details={"revision": row.revision},
            )
        return row

    async def _write(
        self,
        call: Callable[[], T],
        what: str,
        *,
        gone: KeyRow | None = None,
        new: Callable[[T], KeyRow | None] = lambda _: None,
    ) -> T:
        """Call the store and follow what it did, so that the change counts when this returns.

        Args:
            gone, new: the rows that a successful call removes and adds. All are read again only if another process
                wrote too, or the call did nothing.
        """

        def write() -> tuple[T, KeyBook]:
            result = call()
            before, revision = self._latest, self._store.keys_revision()
            if result and revision == before.revision + 1 and (gone is None or before.rows.get(gone.id) == gone):
                self._latest = before.following(revision, gone=gone, new=new(result))
            else:
                self._read()
            return result, self._latest

        result, book = await self._pool.run(write, what)
        self._adopt(book)
        return result

    def _read(self) -> KeyBook:
        """Read all keys, on the thread, where a large book is made without holding up the loop."""
        self._latest = make_book(self._store.keys(), self._hasher, self._config_keys)
        return self._latest

    def _adopt(self, book: KeyBook) -> None:
        before, self._book = self._book, book
        if book.revision != before.revision:
            self._on_change(book)

    def _row(self, id: int) -> KeyRow:
        if (row := self._book.rows.get(id)) is None:
            raise _not_found(id)
        return row

    def _row_of(self, key: Key, token: str) -> KeyRow:
        return KeyRow(
            name=key.name,
            digest=self._hasher.digest(token).hex(),
            prefix=key.prefix,
            secret=self._hasher.name,
            spec=spec_of(key),
            created=key.created,
            updated=key.updated,
            expires_at=key.expires_at,
        )

    def _key(self, row: KeyRow) -> Key:
        return key_of(row, self._hasher.name)

    def _with_last_use(self, key: Key) -> Key:
        times = [at for at in (self._used.get(key.id), self._book.rows[key.id].last_used) if at is not None]
        return replace(key, last_used=max(times, default=None))


def _event(kind: str, key: Key, at: datetime, *, before: Key | None = None, after: Key | None = None) -> Event:
    shown = [None if one is None else key_to_json(one) for one in (before, after)]
    if kind == "created" and shown[1] is not None:
        del shown[1]["id"]  # the store assigns it when it writes the event
    return Event(at=at, kind=kind, subject_kind="key", subject_name=key.name, before=shown[0], after=shown[1])


def _not_found(id: int) -> NotFoundError:
    return NotFoundError(f"there is no key {id}", hint="`garrison keys list` shows all.", details={"key": id})
