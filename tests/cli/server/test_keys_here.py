"""`garrison keys`, on a real database."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from garrison.access.key_secret import load_key_secret
from garrison.access.tokens import TokenHasher
from garrison.store.sql.store import open_store

TOKEN = re.compile(r"grs-(?:inf|mgmt)-[0-9a-f]{64}")


def created(cli, *arguments):
    done = cli("keys", "create", *arguments, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def stored(environ):
    store = open_store(Path(environ["GARRISON_DATA_DIR"]) / "garrison.db")
    try:
        return store.keys().rows, store.audit()
    finally:
        store.close()


def test_a_key_is_made_and_its_token_is_told_once(cli, clean_environ):
    done = cli("keys", "create", "ci")
    token, *facts = done.out.splitlines()
    assert (done.code, TOKEN.fullmatch(token) is not None) == (0, True)
    assert "inference" in " ".join(facts)
    assert "once" in done.err
    hasher = TokenHasher(load_key_secret(Path(clean_environ["GARRISON_DATA_DIR"])))
    assert stored(clean_environ)[0][0].digest == hasher.digest(token).hex()
    for command in (("list",), ("list", "--json"), ("show", "ci"), ("show", "1", "--json")):
        shown = cli("keys", *command)
        assert shown.code == 0
        assert token[:14] in shown.out
        assert token not in shown.out + shown.err


def test_quiet_prints_the_token_alone(cli):
    done = cli("keys", "create", "admin", "--manage", "--quiet")
    assert TOKEN.fullmatch(done.out.removesuffix("\n"))
    assert done.out.startswith("grs-mgmt-")
    assert done.err == ""
    done = cli("keys", "rotate", "admin", "-q")
    assert TOKEN.fullmatch(done.out.removesuffix("\n"))


def test_options_become_fields(cli):
    before = datetime.now(UTC)
    body = created(
        cli, "ci", "--inference", "--read", "--instance", "qwen", "--instance", "phi", "--instance-id", "7", "--model",
        "gpt", "--expires", "30d", "--note", "for CI", "--requests-per-minute", "60", "--concurrent", "4",
        "--priority", "3",
    )  # fmt: skip
    assert (body["kind"], body["scopes"], body["permission_mode"]) == (
        "management", ["inference", "read"], "per_instance",
    )  # fmt: skip
    assert (body["instances"], body["instance_ids"], body["models"]) == (["phi", "qwen"], [7], ["gpt"])
    assert body["limits"] == {"requests_per_minute": 60, "tokens_per_minute": None, "concurrent": 4}
    assert (body["note"], body["priority"]) == ("for CI", 3)
    expires = datetime.fromtimestamp(body["expires_at"], UTC)
    assert abs(expires - before - timedelta(days=30)) < timedelta(minutes=2)
    assert created(cli, "x", "--expires", "2999-01-31")["expires_at"] == datetime(2999, 1, 31, tzinfo=UTC).timestamp()
    assert created(cli, "x", "--expires", "never")["expires_at"] is None


def test_an_edit_changes_what_it_names(cli):
    created(cli, "ci", "--instance", "qwen", "--expires", "1d", "--requests-per-minute", "5", "--concurrent", "2")

    def edited(*arguments):
        done = cli("keys", "edit", "ci", *arguments, "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    assert edited("--note", "x")["instances"] == ["qwen"]
    body = edited("--model", "gpt", "--disable", "--requests-per-minute", "0")
    assert (body["instances"], body["models"], body["enabled"], body["note"]) == ([], ["gpt"], False, "x")
    assert body["limits"] == {"requests_per_minute": None, "tokens_per_minute": None, "concurrent": 2}
    body = edited("--unrestricted", "--enable", "--expires", "never")
    assert (body["permission_mode"], body["enabled"], body["expires_at"]) == ("allow_all", True, None)
    assert edited("--priority", "-7")["priority"] == -7
    assert edited("--name", "other")["priority"] == -7
    assert cli("keys", "edit", "ci", "--note", "x").code == 1
    done = cli("keys", "edit", "other", "--unrestricted", "--model", "x")
    assert (done.code, "--unrestricted" in done.err) == (64, True)
    done = cli("keys", "edit", "other", "--manage")
    assert (done.code, "stays one" in done.err) == (1, True)


def test_a_key_is_found_by_id_beginning_or_name_if_it_is_the_only_one(cli):
    first, second = created(cli, "ci"), created(cli, "ci")
    for text in ("1", first["prefix"], first["prefix"] + "…"):
        assert json.loads(cli("keys", "show", text, "--json").out)["id"] == first["id"]
    done = cli("keys", "show", "ci")
    assert (done.code, "1, 2" in done.err) == (64, True)
    done = cli("keys", "show", "nobody")
    assert (done.code, "no key 'nobody'" in done.err) == (1, True)
    assert cli("keys", "delete", str(second["id"]), "--yes").code == 0
    assert cli("keys", "show", "ci").code == 0


def test_a_rotation_shows_the_old_token_while_it_works(cli):
    first = created(cli, "ci")
    body = json.loads(cli("keys", "rotate", "ci", "--overlap", "1h", "--json").out)
    assert body["key"] != first["key"]
    assert body["previous_prefix"] == first["prefix"]
    assert body["rotates_until"] > body["updated_at"]
    assert f"{first['prefix']}… works until" in cli("keys", "show", "ci").out
    assert cli("keys", "rotate", "ci").code == 0
    assert "works until" not in cli("keys", "show", "ci").out
    done = cli("keys", "rotate", "ci", "--overlap", "soon")
    assert (done.code, "a duration" in done.err) == (64, True)


def test_a_deletion_is_asked_for(cli):
    created(cli, "ci")
    assert cli("keys", "delete", "ci").code == 64
    assert cli("keys", "show", "ci").code == 0
    done = cli("keys", "delete", "ci", "-y", "--json")
    assert (done.code, json.loads(done.out)["ok"]) == (0, True)
    assert json.loads(cli("keys", "list", "--json").out)["keys"] == []
    assert "garrison keys create" in cli("keys", "list").out


def test_every_call_is_audited_for_the_owner(cli, clean_environ):
    created(cli, "ci")
    cli("keys", "edit", "ci", "--manage")
    calls = stored(clean_environ)[1]
    found = [(one.who, one.action, one.subject_name, one.status, one.node) for one in calls]
    assert found == [
        ("owner", "keys.update", "1", 400, "main"),
        ("owner", "keys.list", "", 200, "main"),
        ("owner", "keys.list", "", 200, "main"),
        ("owner", "keys.create", "1", 201, "main"),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("create", "ci", "--expires", "yesterday"), 64, "--expires"),
        (("create", "ci", "--expires", "2020-01-01"), 1, "expired already"),
        (("create", "ci", "--manage", "--model", "x"), 1, "may use every"),
        (("create", " "), 1, "printable"),
        (("create", "ci", "--concurrent", "-1"), 64, "concurrent"),
    ],
)
def test_what_cannot_be_made_is_said_and_nothing_is_stored(cli, clean_environ, arguments, code, says):
    done = cli("keys", *arguments)
    assert (done.code, says in done.err) == (code, True), done.err
    assert stored(clean_environ)[0] == ()


def test_names_cannot_move_the_cursor(cli, clean_environ):
    created(cli, "ci")
    store = open_store(Path(clean_environ["GARRISON_DATA_DIR"]) / "garrison.db")
    from dataclasses import replace

    row = store.keys().rows[0]
    store.save_key(replace(row, name="a\x1b[2Jb", revision=row.revision + 1))
    store.close()
    for command in (("list",), ("show", "1")):
        assert "\x1b" not in cli("keys", *command).out


def test_a_second_key_of_a_name_is_pointed_out(cli):
    assert cli("keys", "create", "twin", "-q").err == ""
    again = cli("keys", "create", "twin", "-q")
    assert again.code == 0
    assert again.err == "note: 2 keys are named 'twin' now; commands know this one as 2\n"
    assert cli("keys", "show", "2").code == 0


def test_an_instance_that_does_not_exist_is_pointed_out(cli):
    done = cli("keys", "create", "ci", "--instance", "qwen", "--quiet")
    assert done.code == 0
    assert done.err == "note: there is no instance 'qwen' yet; this key is for one that will be named so\n"
