"""The unit that systemd gets."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from garrison.server.unit_file import Service, unit_text


def service(**fields: Any) -> Service:
    given: dict[str, Any] = {
        "argv": ("/usr/bin/python3", "-P", "-m", "garrison.cli.main", "up"),
        "data_dir": Path("/srv/garrison"),
        "environment_file": Path("/etc/garrison/server.env"),
    }
    return Service(**given | fields)


def lines(**fields: Any) -> list[str]:
    return unit_text(service(**fields)).splitlines()


def test_engines_outlive_the_server() -> None:
    found = lines(user="garrison")
    for line in (
        "Type=notify", "KillMode=process", "Restart=on-failure", "User=garrison", "WantedBy=multi-user.target",
        "Environment=GARRISON_DATA_DIR=/srv/garrison", "EnvironmentFile=-/etc/garrison/server.env",
        "ExecStart=/usr/bin/python3 -P -m garrison.cli.main up",
    ):  # fmt: skip
        assert line in found


def test_a_users_own_unit() -> None:
    found = lines(user="ada", user_unit=True)
    assert "WantedBy=default.target" in found
    assert not [line for line in found if line.startswith(("User=", "After="))]


def test_what_means_something_to_systemd_is_escaped() -> None:
    argv = ("/opt/my python/bin/python", "up", '--config=/a "b"/$HOME/%h.yaml', "50%")
    found = lines(argv=argv, data_dir=Path("/srv/100% mine"))
    assert r'ExecStart="/opt/my python/bin/python" up "--config=/a \"b\"/$$HOME/%%h.yaml" 50%%' in found
    assert 'Environment="GARRISON_DATA_DIR=/srv/100%% mine"' in found


def test_a_line_break_would_be_another_setting() -> None:
    with pytest.raises(ValueError, match="line breaks"):
        unit_text(service(data_dir=Path("/srv/a\nUser=root")))


@pytest.mark.system
def test_systemd_accepts_it(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        assert not Path("/run/systemd/system").exists(), "systemd runs here, and its checker is missing"
        return
    path = tmp_path / "garrison.service"
    argv = ("/bin/true", "--config=/a b/%x", "$y")
    path.write_text(unit_text(service(argv=argv, data_dir=Path("/srv/a b%"), user="root")))
    done = subprocess.run([program, "verify", str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
