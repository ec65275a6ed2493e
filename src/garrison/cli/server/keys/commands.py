"""`garrison keys`: create, list, show, edit, rotate, delete."""

import contextlib
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from garrison.access.changes import KEEP, KeyChange, NewKey
from garrison.access.permissions import Scope
from garrison.access.stored import key_to_json
from garrison.base.errors import GarrisonError, NotFoundError, UsageError
from garrison.cli.json_answer import answer
from garrison.cli.options import Json, settings
from garrison.cli.options import app as make_app
from garrison.cli.server.client import ServerClient
from garrison.cli.server.keys.http_keys import HttpKeys
from garrison.cli.server.keys.options import (
    Concurrent,
    Expires,
    Inference,
    InstanceIds,
    Instances,
    Manage,
    Models,
    Note,
    Priority,
    Read,
    Requests,
    Tokens,
    changed_limits,
    changed_permissions,
    expiry,
    limits,
    permissions,
)
from garrison.cli.server.options import ServerUrl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from garrison.access.key import Issued, Key
    from garrison.access.operations import KeyOperations
    from garrison.base.settings import Settings

app = make_app("Create, list, show, change, rotate and delete API keys.", no_args_is_help=True)

T = TypeVar("T")
_CLOSE_SECONDS = 10.0
_READ_SECONDS = 2.0

Which = Annotated[str, typer.Argument(metavar="KEY", help="Name, id, or the beginning of the token that is shown.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the token.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="A name for people; several keys may have the same.")],
    inference: Inference = False,
    read: Read = False,
    manage: Manage = False,
    instance: Instances = None,
    instance_id: InstanceIds = None,
    model: Models = None,
    expires: Expires = None,
    note: Note = None,
    requests_per_minute: Requests = None,
    tokens_per_minute: Tokens = None,
    concurrent: Concurrent = None,
    priority: Priority = None,
    quiet: Quiet = False,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """Create a key and print its token, once. A server that runs accepts it at once."""
    new = NewKey(
        name=name,
        permissions=permissions(_scopes(inference, read, manage), instance, instance_id, model),
        limits=limits(requests_per_minute, tokens_per_minute, concurrent),
        priority=priority or 0,
        note=note or "",
        expires_at=expiry(expires, datetime.now(UTC)),
    )

    async def make(keys: "KeyOperations") -> "tuple[Issued, int]":
        issued = await keys.create_key(new)
        try:
            same = [one for one in await keys.list_keys() if one.name == issued.key.name]
        except GarrisonError:  # the token is shown all the same: it is known only now
            same = []
        return issued, len(same)

    issued, same = _run(make, server, changes=True)
    for one in _not_there(instance or (), server):
        print(f"note: there is no instance {one!r} yet; this key is for one that will be named so", file=sys.stderr)
    if same > 1:
        print(f"note: {same} keys are named {name!r} now; commands know this one as {issued.key.id}", file=sys.stderr)
    return _print_issued(issued, quiet=quiet, json=json)


@app.command("list")
def list_(server: ServerUrl = None, json: Json = False) -> int:
    """List all keys. Tokens are not kept, only their beginnings."""
    found = _run(lambda keys: keys.list_keys(), server)
    if json:
        print(answer({"keys": [key_to_json(key) for key in found]}))
        return 0
    from garrison.cli.server.views.keys import show_keys

    show_keys(found, datetime.now(UTC))
    return 0


@app.command()
def show(key: Which, server: ServerUrl = None, json: Json = False) -> int:
    """Show everything about one key but its token."""

    async def find(keys: "KeyOperations") -> "Key":
        return _chosen(await keys.list_keys(), key)

    return _print_key(_run(find, server), json=json)


@app.command()
def edit(
    key: Which,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Another name.")] = None,
    inference: Inference = False,
    read: Read = False,
    manage: Manage = False,
    instance: Instances = None,
    instance_id: InstanceIds = None,
    model: Models = None,
    unrestricted: Annotated[bool, typer.Option("--unrestricted", help="Permit all instances and models.")] = False,
    expires: Expires = None,
    note: Note = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Accept or refuse its token.")] = None,
    requests_per_minute: Requests = None,
    tokens_per_minute: Tokens = None,
    concurrent: Concurrent = None,
    priority: Priority = None,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """Change a key. What no option names stays.

    Scopes that are given replace those before, and so do instances and models. An inference key stays one, and so does
    a management key.
    """
    scopes = _scopes(inference, read, manage)

    async def change(keys: "KeyOperations") -> "Key":
        before = _chosen(await keys.list_keys(), key)
        after = KeyChange(
            name=KEEP if name is None else name,
            note=KEEP if note is None else note,
            enabled=KEEP if enabled is None else enabled,
            permissions=changed_permissions(
                before.permissions, scopes, instance, instance_id, model, unrestricted=unrestricted
            ),
            limits=changed_limits(before.limits, requests_per_minute, tokens_per_minute, concurrent),
            priority=KEEP if priority is None else priority,
            expires_at=KEEP if expires is None else expiry(expires, datetime.now(UTC)),
        )
        return await keys.update_key(before.id, after, revision=before.revision)

    return _print_key(_run(change, server, changes=True), json=json)


@app.command()
def rotate(
    key: Which,
    overlap: Annotated[
        str, typer.Option("--overlap", metavar="TIME", help="How long the old token works on: 90s, 2h, 7d.")
    ] = "0s",
    quiet: Quiet = False,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """Give a key another token and print it, once. Without --overlap the old one is refused at once."""
    from garrison.base.values import duration

    try:
        seconds = duration()(overlap)
    except ValueError as error:
        raise UsageError(f"--overlap must be {error}") from None

    async def change(keys: "KeyOperations") -> "Issued":
        before = _chosen(await keys.list_keys(), key)
        return await keys.rotate_key(before.id, seconds, revision=before.revision)

    return _print_issued(_run(change, server, changes=True), quiet=quiet, json=json)


@app.command()
def delete(
    key: Which,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """Delete a key. Its token is refused from then on."""
    from garrison.cli.asker import confirm
    from garrison.cli.views.age import ago

    found = _chosen(_run(lambda keys: keys.list_keys(), server), key)
    if not yes:
        used = f"last used {ago(found.last_used, datetime.now(UTC))}" if found.last_used else "never used"
        confirm(f"Delete key {found.id}, {found.name}, {found.prefix}…, {used}?")
    gone = _run(lambda keys: keys.delete_key(found.id), server, changes=True)
    if json:
        print(answer(key_to_json(gone)))
    else:
        from garrison.base.output.plain_text import plain

        print(f"deleted key {gone.id}, {plain(gone.name)}, {gone.prefix}…")
    return 0


def _scopes(inference: bool, read: bool, manage: bool) -> dict[Scope, bool]:
    return {Scope.INFERENCE: inference, Scope.READ: read, Scope.MANAGE: manage}


def _chosen(keys: "Sequence[Key]", text: str) -> "Key":
    """Return the key that a person named.

    Raises:
        NotFoundError: there is none.
        UsageError: there are several.
    """
    found = [key for key in keys if str(key.id) == text or key.prefix == text.rstrip("…")]
    found = found or [key for key in keys if key.name == text]
    if not found:
        raise NotFoundError(f"there is no key {text!r}", hint="`garrison keys list` shows all.")
    if len(found) > 1:
        ids = ", ".join(str(key.id) for key in found)
        raise UsageError(f"{len(found)} keys are named {text!r}", hint=f"Give the id: {ids}.")
    return found[0]


def _print_issued(issued: "Issued", *, quiet: bool, json: bool) -> int:
    if json:
        print(answer(key_to_json(issued.key, issued.token)))
        return 0
    print(issued.token)
    if not quiet:
        from garrison.cli.server.views.keys import show_key

        print()
        show_key(issued.key, datetime.now(UTC))
        print("The token is shown this once. Keep it where only its user can read it.", file=sys.stderr)
    return 0


def _print_key(key: "Key", *, json: bool) -> int:
    if json:
        print(answer(key_to_json(key)))
    else:
        from garrison.cli.server.views.keys import show_key

        show_key(key, datetime.now(UTC))
    return 0


def _not_there(names: "Sequence[str]", server: str | None) -> "list[str]":
    """Those of `names` that no instance has, as far as can be told."""
    if not names:
        return []
    from garrison.cli.server.instance.calls import all_instances
    from garrison.cli.server.running import instances_here

    values = settings("server", "instances", server_url=server)
    try:
        known, told = instances_here(values)
        if told:  # it knows those of its nodes, too
            with ServerClient(values) as there:
                known = all_instances(there)
    except GarrisonError:  # the key may not see them
        return []
    return [one for one in names if one not in {found["name"] for found in known}]


def _run(work: "Callable[[KeyOperations], Awaitable[T]]", server: str | None, *, changes: bool = False) -> T:
    """Do the work on the keys of a server elsewhere, or on those of this data directory.

    Args:
        changes: the work changes keys, which a server that runs here is to know when this returns.

    Raises:
        GarrisonError: the server cannot be reached, the database or the key secret cannot be opened, or the work fails.
    """
    values = settings("fleet", "server", server_url=server)
    if values.server_url is None:
        try:
            return _run_here(work, values)
        finally:
            if changes:
                _have_read(values)
    import asyncio

    async def done() -> T:
        return await work(HttpKeys(there))

    with ServerClient(values) as there:
        return asyncio.run(done())


def _have_read(values: "Settings") -> None:
    """Have the server of this data directory read its keys now. It looks for itself once a second."""
    with contextlib.suppress(GarrisonError), ServerClient.of_this_machine(values) as there:
        there.call("GET", "/auth/keys", timeout=_READ_SECONDS)


def _run_here(work: "Callable[[KeyOperations], Awaitable[T]]", values: "Settings") -> T:
    """Open the keys of this data directory, do the work as its owner, and close them when the log of it is written.

    This needs no server: the first key is made before one listens for anybody but its owner.
    """
    import asyncio
    import os

    from garrison.access.audit import AuditLog
    from garrison.access.audited_keys import AuditedKeys
    from garrison.access.identity import owner
    from garrison.access.key_secret import load_key_secret
    from garrison.access.keys import Keys
    from garrison.access.tokens import TokenHasher
    from garrison.net.thread_pool import ThreadPool
    from garrison.store.sql.store import open_store

    hasher = TokenHasher(load_key_secret(values.data_dir))
    store = open_store(values.database)
    pool = ThreadPool("garrison-keys")

    async def done() -> T:
        audit = AuditLog(store, pool=pool, node=values.node_name)
        try:
            return await work(AuditedKeys(Keys(store, hasher, pool=pool), audit, owner(os.geteuid())))
        finally:
            if lost := await audit.close(_CLOSE_SECONDS):
                print(f"warning: {lost} entries of the audit log could not be written", file=sys.stderr)

    try:
        return asyncio.run(done())
    finally:
        pool.close(_CLOSE_SECONDS)
        store.close()
