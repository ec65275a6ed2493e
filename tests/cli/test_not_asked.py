"""A secret missing on this side says nothing about the target."""

import pytest
from fleet_files import write

from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError

FAULT = "api_key: the variable EDGE2_KEY is not set"
HINT = "→ export it, or have the manifest read it from a file or a command"


@pytest.fixture
def file(cli, world, tmp_path):
    path = write(tmp_path / "garrison.json")
    assert cli("apply", path, "--yes").code == 0
    world.edge.served.pop("chat")
    world.targets["edge-2"].down = TransportError(TransportCause.LOCAL, FAULT)
    return path


@pytest.mark.parametrize("command", ["status", "drift", "discover", "plan"])
def test_every_view_says_what_is_missing_here(cli, world, file, command):
    told = cli(command, *([file] if command == "plan" else [])).out
    lines = told.splitlines()
    (number,) = (number for number, line in enumerate(lines) if FAULT in line)
    assert f"not asked: {FAULT}" in lines[number]
    assert lines[number + 1].strip() == HINT
    assert "silence" not in told
    assert "1 out of reach" not in told
    assert "local" not in told


def test_actions_wait_until_the_local_fault_is_fixed(cli, world, tmp_path):
    world.targets["edge-2"].down = TransportError(TransportCause.LOCAL, FAULT)
    told = cli("plan", write(tmp_path / "garrison.json")).out
    assert "not asked  1 target" in told
    assert "1 action stays owed until then." in told
