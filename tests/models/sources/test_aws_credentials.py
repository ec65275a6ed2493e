from pathlib import Path

import pytest

from garrison.models.sources.aws_credentials import given_by_environment, shared_credentials

KEYS = {"access_key_id": "A", "secret_access_key": "S"}


def test_profiles(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id=A\naws_secret_access_key=S\n"
        "[work]\naws_access_key_id=A2\naws_secret_access_key=S%2\naws_session_token=T\n[half]\naws_access_key_id=x\n"
    )
    home = {"HOME": str(tmp_path)}
    assert shared_credentials(home) == KEYS
    work = shared_credentials(home | {"AWS_PROFILE": "work"})
    assert work == {"access_key_id": "A2", "secret_access_key": "S%2", "session_token": "T"}
    assert shared_credentials(home | {"AWS_PROFILE": "half"}) == {}
    assert shared_credentials(home | {"AWS_PROFILE": "none"}) == {}


@pytest.mark.parametrize(
    "content", [b"", b"no section", b"\xff\xfe", b"[default]\n"], ids=["empty", "no ini", "no text", "no keys"]
)
def test_a_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c"
    path.write_bytes(content)
    assert shared_credentials({"AWS_SHARED_CREDENTIALS_FILE": str(path)}) == {}
    assert shared_credentials({"HOME": str(tmp_path / "nowhere")}) == {}


def test_the_environment() -> None:
    assert given_by_environment({"AWS_ACCESS_KEY_ID": "A"})
    assert not given_by_environment({"AWS_ACCESS_KEY_ID": ""})
