"""Tokens, the secret behind their digests, and where a request carries them."""

import base64
import hashlib
import os
import re
import stat
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.access.credentials import token_of
from garrison.access.key_secret import FILE, load_key_secret
from garrison.access.tokens import KeyKind, TokenHasher, new_token, prefix_of
from garrison.base.errors import DeniedError, InvalidError
from garrison.base.redaction import redacted


@pytest.mark.parametrize(("kind", "words"), [(KeyKind.INFERENCE, "grs-inf-"), (KeyKind.MANAGEMENT, "grs-mgmt-")])
def test_a_token_says_what_it_is_and_is_random(kind, words):
    token, other = new_token(kind), new_token(kind)
    assert re.fullmatch(words + "[0-9a-f]{64}", token)
    assert token != other
    assert prefix_of(token) == token[: len(words) + 6]


def test_a_token_in_a_text_is_hidden_and_its_prefix_is_not():
    token = new_token(KeyKind.MANAGEMENT)
    assert redacted(f"the key {token}, of {prefix_of(token)}") == f"the key grs-mgmt-***, of {prefix_of(token)}"


class TestHasher:
    def test_a_digest_depends_on_token_and_secret(self):
        one, other = TokenHasher(b"a" * 32), TokenHasher(b"b" * 32)
        assert one.digest("x") == TokenHasher(b"a" * 32).digest("x")
        assert len({one.digest("x"), one.digest("y"), other.digest("x"), other.digest("y")}) == 4
        assert len(one.digest("x")) == 32

    def test_the_name_of_a_secret_tells_secrets_apart(self):
        assert TokenHasher(b"a" * 32).name != TokenHasher(b"b" * 32).name

    def test_it_is_keyed_blake2b_with_nothing_else(self):
        wanted = hashlib.blake2b(b"x", digest_size=32, key=b"a" * 32, person=b"garrison-token").digest()
        assert TokenHasher(b"a" * 32).digest("x") == wanted

    @given(st.text())
    def test_any_text_has_a_digest(self, text):
        assert len(TokenHasher(b"a" * 32).digest(text + "\ud800")) == 32


class TestSecret:
    def test_it_is_made_once_for_its_owner_alone(self, tmp_path):
        old = os.umask(0)
        try:
            made = load_key_secret(tmp_path / "data")
        finally:
            os.umask(old)
        assert len(made) == 32
        assert load_key_secret(tmp_path / "data") == made
        assert stat.S_IMODE((tmp_path / "data" / FILE).stat().st_mode) == 0o600
        assert load_key_secret(tmp_path / "other") != made

    @pytest.mark.parametrize("content", ["", "abc", "zz" * 32, "ab" * 31, "ab" * 65, "ü" * 64])
    def test_a_file_that_is_no_secret_is_refused_and_kept(self, tmp_path, content):
        (tmp_path / FILE).write_text(content)
        (tmp_path / FILE).chmod(0o600)
        with pytest.raises(InvalidError, match="cannot be used"):
            load_key_secret(tmp_path)
        assert (tmp_path / FILE).read_text() == content

    def test_a_file_that_others_may_read_is_refused(self, tmp_path):
        load_key_secret(tmp_path)
        (tmp_path / FILE).chmod(0o640)
        with pytest.raises(DeniedError, match="can be read by others"):
            load_key_secret(tmp_path)

    def test_a_directory_that_anybody_writes_is_refused(self, tmp_path):
        load_key_secret(tmp_path)
        tmp_path.chmod(0o777)
        with pytest.raises(DeniedError, match="anybody can write"):
            load_key_secret(tmp_path)

    def test_a_file_of_another_user_is_refused(self, tmp_path, monkeypatch):
        load_key_secret(tmp_path)
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        with pytest.raises(DeniedError, match="belongs to another user"):
            load_key_secret(tmp_path)

    def test_a_link_and_a_fifo_are_refused_at_once(self, tmp_path):
        load_key_secret(tmp_path / "real")
        (tmp_path / FILE).symlink_to(tmp_path / "real" / FILE)
        with pytest.raises(InvalidError, match="cannot be opened"):
            load_key_secret(tmp_path)
        (tmp_path / FILE).unlink()
        os.mkfifo(tmp_path / FILE, 0o600)
        with pytest.raises(InvalidError, match="not a file"):
            load_key_secret(tmp_path)

    def test_a_directory_that_may_not_be_written_is_said(self, public_path, unprivileged):
        with unprivileged(), pytest.raises(DeniedError, match="cannot be read or created"):
            load_key_secret(public_path)

    @pytest.mark.system
    def test_processes_that_make_it_at_once_get_the_same(self, tmp_path):
        program = (
            "import sys; from pathlib import Path; from garrison.access.key_secret import load_key_secret;"
            "sys.stdin.readline(); print(load_key_secret(Path(sys.argv[1])).hex())"
        )
        argv = [sys.executable, "-c", program, str(tmp_path / "data")]
        children = [subprocess.Popen(argv, stdin=-1, stdout=-1, text=True) for _ in range(4)]
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        found = {child.communicate(timeout=60)[0].strip() for child in children}
        assert len(found) == 1
        assert len(found.pop()) == 64


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


class TestCredentials:
    @pytest.mark.parametrize(
        ("headers", "token"),
        [
            ({}, None),
            ({"authorization": "Bearer abc"}, "abc"),
            ({"authorization": "bearer   abc "}, "abc"),
            ({"x-api-key": " abc "}, "abc"),
            ({"authorization": "Bearer one", "x-api-key": "two"}, "one"),
            ({"authorization": "Bearer ", "x-api-key": "two"}, "two"),
            ({"authorization": basic("user:a:b")}, "a:b"),
            ({"authorization": basic(":abc")}, "abc"),
            ({"authorization": basic("user:one"), "x-api-key": "two"}, "two"),
            ({"authorization": basic("abc")}, None),
            ({"authorization": basic("user:")}, None),
            ({"authorization": "Basic ???"}, None),
            ({"authorization": "Basic /w=="}, None),
            ({"authorization": "Digest abc"}, None),
            ({"authorization": "abc"}, None),
            ({"authorization": "", "x-api-key": ""}, None),
        ],
    )
    def test_where_the_token_is(self, headers, token):
        assert token_of(headers) == token

    @given(st.text(), st.text())
    def test_no_header_is_an_error(self, one, other):
        found = token_of({"authorization": one, "x-api-key": other})
        assert found is None or found
        assert token_of({"authorization": "Basic " + one}) is None or ":" not in one
