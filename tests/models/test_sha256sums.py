import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import ModelInvalidError
from garrison.models.formats.sha256sums import parse_sums, render_sums

DIGEST = "ab" * 32
SUMS = Path("sha256sums.txt")
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).filter(
    lambda name: not name.startswith(("/", "./")) and ".." not in name.split("/")
)


@given(st.dictionaries(NAMES, st.just(DIGEST)))
def test_what_is_written_is_read_back(digests):
    assert parse_sums(render_sums(digests), SUMS) == digests


def test_sha256sum_checks_what_we_write(tmp_path):
    digests = {}
    for name in ("plain", "with space", "back\\slash", "new\nline", "cr\r", "grün"):
        (tmp_path / name).write_bytes(b"")
        digests[name] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    (tmp_path / "sums").write_bytes(render_sums(digests))
    checked = subprocess.run(["sha256sum", "-c", "--strict", "sums"], cwd=tmp_path, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_what_sha256sum_writes_is_read(tmp_path):
    names = ["plain", "back\\slash", "new\nline"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    for mode in ("--text", "--binary"):
        listing = subprocess.run(["sha256sum", mode, *names], cwd=tmp_path, capture_output=True, check=True).stdout
        assert set(parse_sums(listing, SUMS)) == set(names)


def test_what_people_write_by_hand_is_read():
    text = f"# made by hand\r\n\r\n{DIGEST.upper()} *./model.safetensors\r\n".encode()
    assert parse_sums(text, SUMS) == {"model.safetensors": DIGEST}


@pytest.mark.parametrize(
    "line",
    ["nonsense", DIGEST, f"{DIGEST[1:]}  a", f"{DIGEST}  ../a", f"{DIGEST}  /etc/passwd", f"{DIGEST}  a/../../b"],
)
def test_a_line_that_is_none(line):
    with pytest.raises(ModelInvalidError, match=r"sha256sums\.txt line 2 "):
        parse_sums(f"{DIGEST}  fine\n{line}\n".encode(), SUMS)
