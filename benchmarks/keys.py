"""What checking a key costs, among 10, 1,000 and 10,000 keys.

    python benchmarks/keys.py [--quick] [--rounds 9] [--json FILE]

The bare side digests the same token with the same function, which any check must do. A check is what a server does for
each request: from the headers to the caller, and whether that one may use the model. Both run in one process, in turns;
medians of the rounds are shown. No database is asked. Reading all keys is what a start costs, and a change by another
process; it is done on a thread. A change by this process reads none of the others.
"""

import argparse
import hashlib
import json
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from garrison.access.authorize import Action, ActionKind, authorize
from garrison.access.book import KeyBook, Refusal, make_book
from garrison.access.changes import NewKey, made
from garrison.access.credentials import token_of
from garrison.access.permissions import Grants, Permissions
from garrison.access.stored import spec_of
from garrison.access.tokens import KeyKind, TokenHasher, new_token, prefix_of
from garrison.store.key_store import KeyRow
from garrison.store.sql.keys import create
from garrison.store.sql.store import SqlStore, open_store

SECRET = secrets.token_bytes(32)
HASHER = TokenHasher(SECRET)
NOW = datetime.now(UTC)
ACTION = Action(ActionKind.INFER, model="qwen", instance="qwen", instance_id=1)


def a_key(number: int) -> tuple[str, KeyRow]:
    """Return a token and the row of its key, which is limited to some instances."""
    token = new_token(KeyKind.INFERENCE)
    only = Grants(frozenset({"qwen", "phi", f"i{number}"}), models=frozenset({"gpt"}))
    key = made(NewKey(name=f"key {number}", permissions=Permissions(only=only)), prefix_of(token), NOW)
    row = KeyRow(
        name=key.name, digest=HASHER.digest(token).hex(), prefix=key.prefix, secret=HASHER.name, spec=spec_of(key),
        created=NOW, updated=NOW,
    )  # fmt: skip
    return token, row


def stored(store: SqlStore, count: int) -> list[str]:
    """Store keys, in one transaction for the sake of time, and return their tokens."""
    made_keys = [a_key(number) for number in range(count)]
    with store._database.write() as connection:
        for _, row in made_keys:
            create(connection, row)
    return [token for token, _ in made_keys]


def check(book: KeyBook, headers: list[dict[str, str]]) -> None:
    for one in headers:
        found = book.check(token_of(one), datetime.now(UTC))
        assert not isinstance(found, Refusal)
        assert authorize(found, ACTION)


def refuse(book: KeyBook, headers: list[dict[str, str]]) -> None:
    for one in headers:
        assert book.check(token_of(one), datetime.now(UTC)) is Refusal.UNKNOWN


def bare(tokens: list[str]) -> None:
    for token in tokens:
        hashlib.blake2b(token.encode(), digest_size=32, key=SECRET).digest()


def seconds(work: Callable[[], None]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def reading(store: SqlStore, rounds: int) -> float:
    """Return the seconds that reading all keys takes, and making a book of them."""

    def read() -> None:
        make_book(store.keys(), HASHER)

    return statistics.median(seconds(read) for _ in range(rounds))


def measured(count: int, checks: int, rounds: int, directory: Path) -> dict[str, float]:
    store = open_store(directory / f"{count}.db")
    try:
        tokens = stored(store, count)
        book = make_book(store.keys(), HASHER)
        used = [tokens[number * 7 % count] for number in range(checks)]
        right = [{"authorization": f"Bearer {token}"} for token in used]
        wrong = [{"authorization": f"Bearer {new_token(KeyKind.INFERENCE)}"} for _ in used]
        found = [
            (seconds(lambda: check(book, right)), seconds(lambda: refuse(book, wrong)), seconds(lambda: bare(used)))
            for _ in range(rounds)
        ]
        right_us, wrong_us, bare_us = (statistics.median(times) / checks * 1e6 for times in zip(*found, strict=True))
        ratio = statistics.median(one[0] / one[2] for one in found)
        return {
            "check_us": right_us, "refusal_us": wrong_us, "digest_us": bare_us, "ratio": ratio,
            "read_all_ms": reading(store, 3) * 1e3,
        }  # fmt: skip
    finally:
        store.close()


def main() -> None:
    shell = argparse.ArgumentParser(description="What checking a key costs.")
    shell.add_argument("--rounds", type=int, default=9)
    shell.add_argument("--quick", action="store_true", help="a smoke test: 2 short rounds, up to 1,000 keys")
    shell.add_argument("--json", type=Path, help="write the figures here")
    args = shell.parse_args()
    rounds, checks = (2, 1000) if args.quick else (args.rounds, 20_000)
    figures = {}
    with tempfile.TemporaryDirectory() as directory:
        for count in (10, 1000) if args.quick else (10, 1000, 10_000):
            found = figures[count] = measured(count, checks, rounds, Path(directory))
            print(
                f"{count:>6,} keys: a check {found['check_us']:.2f} µs ({found['ratio']:.2f} times the digest alone), "
                f"a refusal {found['refusal_us']:.2f} µs, reading all {found['read_all_ms']:.1f} ms",
                flush=True,
            )
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
