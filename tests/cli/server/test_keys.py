"""`garrison keys --server`, on a real server that asks for keys: the same as on its data directory."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from server_lab import ServerLab
from tests_environment import environment

from garrison.access.changes import KeyChange, NewKey
from garrison.access.key import Key
from garrison.access.operations import KeyOperations
from garrison.access.permissions import Grants, Limits, Permissions, Scope
from garrison.access.stored import key_to_json
from garrison.base.errors import ConflictError, GarrisonError, InvalidError, NotFoundError
from garrison.base.settings import Settings
from garrison.cli.server.client import ServerClient
from garrison.cli.server.keys.http_keys import HttpKeys
from garrison.testing.keys import MemoryKeys

TOKEN = re.compile(r"grs-(?:inf|mgmt)-[0-9a-f]{64}")
MANAGER = "a-management-key-of-the-settings"
JSON = {"Content-Type": "application/json"}
ONLY = Permissions(only=Grants(frozenset({"qwen", "phi"}), frozenset({7}), frozenset({"gpt"})))
LATER = datetime(2999, 1, 31, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerLab]:
    """A server that asks everybody for a key. Tests use keys of names of their own."""
    root = tmp_path_factory.mktemp("lab")
    lab = ServerLab(root, environment(root), require_management_auth="1", management_keys=MANAGER)
    lab.start()
    yield lab
    lab.http.headers["Authorization"] = f"Bearer {MANAGER}"  # for its end
    lab.close()


@pytest.fixture
def url(guarded: ServerLab) -> str:
    return f"http://127.0.0.1:{guarded.port}"


@pytest.fixture
def there(cli: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`there("list")`: a command on that server, by its URL. The data directory here is another, without keys."""
    monkeypatch.setenv("GARRISON_SERVER_KEY", MANAGER)
    monkeypatch.setenv("COLUMNS", "120")
    return lambda *words: cli("keys", *words, "--server", url)


@pytest.fixture
def beside(cli: Any, guarded: ServerLab, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`beside("list")`: the same on its data directory."""

    def run(*words: str) -> Any:
        with monkeypatch.context() as patched:
            patched.setenv("GARRISON_DATA_DIR", str(guarded.data_dir))
            return cli("keys", *words)

    return run


@pytest.fixture
def remote(url: str) -> Iterator[HttpKeys]:
    with ServerClient(Settings(server_url=url, server_key=MANAGER)) as server:
        yield HttpKeys(server)


def test_the_life_of_a_key(there: Any, beside: Any, guarded: ServerLab) -> None:
    made = there("create", "life", "--read", "--note", "from afar", "--expires", "2d", "--quiet")
    token = made.out.strip()
    assert (made.code, made.err) == (0, "")
    assert TOKEN.fullmatch(token)
    headers = {"Authorization": f"Bearer {token}"}
    assert guarded.http.get("/api/v1/version", headers=headers).is_success, "accepted at once"
    for words in (("list",), ("list", "--json"), ("show", "life"), ("show", token[:15], "--json")):
        far, near = there(*words), beside(*words)
        assert (far.code, near.code) == (0, 0), far.err
        # When a key was last used is known to its server before it is written.
        assert without_use(far.out) == without_use(near.out)
    done = there("edit", "life", "--note", "changed", "--json")
    assert (json.loads(done.out)["note"], json.loads(done.out)["revision"]) == ("changed", 2)
    rotated = there("rotate", "life", "--overlap", "1h")
    assert rotated.out.splitlines()[0] != token
    assert f"{token[:15]}… works until" in rotated.out
    assert "once" in rotated.err
    assert there("delete", "life").code == 64
    gone = there("delete", "life", "-y", "--json")
    assert (gone.code, json.loads(gone.out)["ok"], json.loads(gone.out)["name"]) == (0, True, "life")
    assert guarded.http.get("/api/v1/version", headers=headers).status_code == 401
    assert there("show", "life").code == 1


def without_use(text: str) -> str:
    kept = re.sub(r'"last_used_at": \w+', "", re.sub(r"never|just now|\d+ s ago", "", text))
    return "\n".join(line.rstrip() for line in kept.splitlines() if not line.startswith("used"))


def test_the_variable_names_the_server_too(cli: Any, url: str, clean_environ: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("GARRISON_SERVER_URL", url)
    monkeypatch.setenv("GARRISON_SERVER_KEY", MANAGER)
    assert cli("keys", "create", "by-variable").code == 0
    assert "by-variable" in cli("keys", "list").out
    assert not (Path(clean_environ["GARRISON_DATA_DIR"]) / "key-secret").exists(), "nothing is made here"


def test_a_key_that_may_not(cli: Any, there: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = there("create", "reader", "--read", "--quiet").out.strip()
    for key, says in ((reader, "no scope manage"), ("wrong", "Invalid API key"), (None, "Missing API key")):
        if key is None:
            monkeypatch.delenv("GARRISON_SERVER_KEY")
        else:
            monkeypatch.setenv("GARRISON_SERVER_KEY", key)
        done = cli("keys", "create", "more", "--server", url)
        assert (done.code, says in done.err) == (40, True), done.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("create", "x", "--manage", "--model", "m"), 1, "may use every"),
        (("create", " "), 1, "printable"),
        (("edit", "nobody", "--note", "x"), 1, "no key 'nobody'"),
    ],
)
def test_what_cannot_be_done_ends_as_it_does_beside_the_server(
    there: Any, beside: Any, words: tuple[str, ...], code: int, says: str
) -> None:
    far, near = there(*words), beside(*words)
    assert (far.code, near.code, far.err) == (code, code, near.err)
    assert says in far.err


def test_a_server_that_does_not_answer(cli: Any) -> None:
    done = cli("keys", "list", "--server", "http://127.0.0.1:1", "--json")
    assert (done.code, json.loads(done.out)["code"]) == (31, "unreachable")


CHANGES = [
    KeyChange(name="other", note="a note"),
    KeyChange(enabled=False),
    KeyChange(expires_at=LATER),
    KeyChange(expires_at=None),
    KeyChange(permissions=ONLY),
    KeyChange(permissions=Permissions()),
    KeyChange(limits=Limits(requests_per_minute=5, tokens_per_minute=50, concurrent=2)),
    KeyChange(limits=Limits(concurrent=3)),
    KeyChange(limits=Limits()),
    KeyChange(note=""),
    KeyChange(),
]
NEW = [
    NewKey(name="plain"),
    NewKey(name="off", enabled=False, note=" with spaces ", expires_at=LATER),
    NewKey(name="only", permissions=ONLY, limits=Limits(tokens_per_minute=50)),
    NewKey(name="reads", permissions=Permissions(frozenset({Scope.READ}))),
    NewKey(name="all", permissions=Permissions(frozenset({Scope.MANAGE}))),
]


async def both(remote: HttpKeys, new: NewKey) -> tuple[list[KeyOperations], list[Key]]:
    """A key made by each implementation."""
    twin = MemoryKeys()
    every: list[KeyOperations] = [remote, twin]
    return every, [(await one.create_key(new)).key for one in every]


def alike(key: Key) -> dict[str, Any]:
    """A key without what two of them never share."""
    own = ("id", "prefix", "previous_prefix", "created_at", "updated_at", "rotates_until", "last_used_at")
    return {name: value for name, value in key_to_json(key).items() if name not in own}


@pytest.mark.parametrize("new", NEW, ids=lambda new: new.name)
async def test_a_key_made_over_http_is_the_one_asked_for(remote: HttpKeys, new: NewKey) -> None:
    _, (far, near) = await both(remote, new)
    assert alike(far) == alike(near)
    assert await remote.get_key(far.id) == far
    assert far in await remote.list_keys()


async def test_changes_over_http_do_the_same(remote: HttpKeys) -> None:
    every, keys = await both(remote, NEW[2])
    for change in CHANGES:
        keys = [
            await one.update_key(key.id, change, revision=key.revision) for one, key in zip(every, keys, strict=True)
        ]
        assert alike(keys[0]) == alike(keys[1]), change
    issued = [await one.rotate_key(key.id, 60, revision=key.revision) for one, key in zip(every, keys, strict=True)]
    assert alike(issued[0].key) == alike(issued[1].key)
    assert (issued[0].key.previous_prefix, TOKEN.fullmatch(issued[0].token) is not None) == (keys[0].prefix, True)
    assert issued[0].key.rotates_until is not None
    assert abs(issued[0].key.rotates_until - datetime.now(UTC) - timedelta(seconds=60)) < timedelta(seconds=30)
    gone = [await one.delete_key(key.key.id, revision=key.key.revision) for one, key in zip(every, issued, strict=True)]
    assert alike(gone[0]) == alike(gone[1])


async def test_a_key_that_was_changed_meanwhile_is_left_alone(remote: HttpKeys) -> None:
    every, keys = await both(remote, NewKey(name="meanwhile"))
    for one, key in zip(every, keys, strict=True):
        after = await one.update_key(key.id, KeyChange(note="first"), revision=key.revision)
        for call in (
            one.update_key(key.id, KeyChange(note="second"), revision=key.revision),
            one.rotate_key(key.id, revision=key.revision),
            one.delete_key(key.id, revision=key.revision),
        ):
            with pytest.raises(ConflictError) as raised:
                await call
            assert raised.value.exit_code == 33
        assert await one.get_key(key.id) == after


async def test_errors_are_the_same(remote: HttpKeys) -> None:
    twin = MemoryKeys()

    async def raised(keys: KeyOperations) -> list[type[GarrisonError]]:
        found = []
        for call in (
            keys.get_key(999_999), keys.update_key(999_999, KeyChange()), keys.rotate_key(999_999),
            keys.delete_key(999_999), keys.create_key(NewKey(name="")),
            keys.create_key(NewKey(name="x", limits=Limits(concurrent=0))),
        ):  # fmt: skip
            with pytest.raises(GarrisonError) as error:
                await call
            found.append(type(error.value))
        return found

    assert await raised(remote) == await raised(twin) == [NotFoundError] * 4 + [InvalidError] * 2


KEY = key_to_json(
    replace(
        Key(id=1, name="k", kind="inference", prefix="grs-inf-012345", created=LATER, updated=LATER),  # type: ignore[arg-type]  # text
        permissions=ONLY,
    )
)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "1"}, {"name": 5}, {"prefix": "grs-\x1b[2J"}, {"previous_prefix": "\x07"}, {"scopes": ["nope"]},
        {"scopes": 5}, {"created_at": None}, {"created_at": 10**30}, {"limits": {"concurrent": "many"}},
        {"models": [5]}, {"instance_ids": ["7"]}, {"kind": None}, {"revision": None}, {"key": "\x1b[2J"}, {"key": None},
    ],
)  # fmt: skip
def test_a_stranger_that_answers_with_something_else(
    cli: Any, strange: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    body = json.dumps(KEY | {"key": "grs-inf-" + "0" * 64} | changes).encode()
    url = strange(lambda _method, _path: (200, JSON, body))
    done = cli("keys", "create", "x", "--server", url)
    assert (done.code, "shows keys in another form" in done.err) == (31, True), done.err
    assert "\x1b" not in done.out + done.err


def test_no_list_at_all(cli: Any, strange: Any) -> None:
    for body in (b"{}", b"[[]]", b"[{}]", b"5"):
        url = strange(lambda _method, _path, body=body: (200, JSON, body))
        assert cli("keys", "list", "--server", url).code == 31, body
