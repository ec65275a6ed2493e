"""One value for a process, here or elsewhere."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from garrison.base.identity import Identity, Place, is_gone, start_time, this_place, this_process


def test_start_time_is_that_of_the_process() -> None:
    assert start_time(os.getpid()) == start_time(os.getpid())
    assert start_time(4194305) is None


@pytest.mark.system
def test_start_time_of_a_name_with_spaces_and_parentheses(tmp_path: Path, until: Any) -> None:
    program = tmp_path / "a) S 1 (b"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "60"])
    try:
        until(lambda: b"a) S" in Path(f"/proc/{process.pid}/stat").read_bytes())
        found = start_time(process.pid)
        assert found is not None
        assert found > (start_time(os.getpid()) or 0)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "identity",
    [
        this_process(),
        Identity(Place("host"), 12, None),
        Identity(Place("host name", "boot", "pid:[1]"), 12, 34),
    ],
)
def test_it_is_read_back_from_its_line(identity: Identity) -> None:
    assert Identity.parse(str(identity)) == identity
    assert "\n" not in str(identity)


@pytest.mark.parametrize("text", ["", "12", "12 34", "x 1 host", "1 x host"])
def test_what_is_no_identity(text: str) -> None:
    with pytest.raises(ValueError):
        Identity.parse(text)


def test_this_process_is_not_gone() -> None:
    assert is_gone(this_process()) is False


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"start": 1}, True),
        ({"pid": 4194305}, True),
        ({"pid": 4194305, "start": None}, True),
        ({"start": None}, None),
        ({"place": replace(this_place(), boot="another")}, None),
        ({"place": replace(this_place(), namespace="pid:[1]")}, None),
        ({"place": Place("elsewhere")}, None),
    ],
    ids=[
        "another start",
        "no such pid",
        "no such pid, no start",
        "no start",
        "another boot",
        "another namespace",
        "host",
    ],
)
def test_what_can_be_told(changes: dict[str, Any], expected: bool | None) -> None:
    assert is_gone(replace(this_process(), **changes)) is expected


@pytest.mark.system
def test_a_process_that_ended_is_gone() -> None:
    child = subprocess.Popen(["/bin/sleep", "60"])
    identity = Identity(this_place(), child.pid, start_time(child.pid))
    assert is_gone(identity) is False
    child.kill()
    child.wait()
    assert is_gone(identity) is True
