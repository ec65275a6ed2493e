"""The units of the docs are units: systemd reads them without a word, but for the programs, which are not installed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from parsed_command import parse_command

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```ini\n# /etc/systemd/system/(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
UNITS = [
    pytest.param(match[1], match[2], id=match[1])
    for page in sorted((ROOT / "docs").glob("*.md"))
    for match in BLOCK.finditer(page.read_text(encoding="utf-8"))
]
PROGRAM = "/opt/garrison/bin/garrison "


def test_there_are_some() -> None:
    assert [one.id for one in UNITS] == ["garrison-agent.service", "garrison-serve.service"]


@pytest.mark.parametrize(("name", "text"), UNITS)
def test_its_command_exists(name: str, text: str) -> None:
    (line,) = (line for line in text.splitlines() if line.startswith("ExecStart="))
    words = line.removeprefix(f"ExecStart={PROGRAM}").split()
    parse_command(words[0], words[1:])


@pytest.mark.system
@pytest.mark.parametrize(("name", "text"), UNITS)
def test_systemd_accepts_it(name: str, text: str, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        assert not Path("/run/systemd/system").exists(), "systemd runs here, and its checker is missing"
        return
    path = tmp_path / name
    path.write_text(text.replace(PROGRAM, "/bin/true ").replace("User=garrison", "User=root"))
    done = subprocess.run([program, "verify", str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
