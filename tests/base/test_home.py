import os
import pwd
from pathlib import Path

import pytest

from garrison.base.errors import InvalidError
from garrison.base.home import expanded, home_directory, user_name
from garrison.base.settings import Settings
from garrison.models.hub_caches import user_hub_caches


@pytest.fixture
def nobody_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A uid that the user database does not list, as a container may have."""

    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "GARRISON_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def test_home_is_the_variable_then_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    assert home_directory() == Path("/home/u")
    for unset in ("", None):
        monkeypatch.delenv("HOME") if unset is None else monkeypatch.setenv("HOME", unset)
        assert home_directory() == Path(pwd.getpwuid(os.getuid()).pw_dir)


@pytest.mark.parametrize("home", ["~", "relative", "./here"])
def test_a_home_that_is_no_absolute_path_is_none(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("HOME", home)
    assert home_directory() is None


@pytest.mark.usefixtures("nobody_known")
def test_a_user_without_home_and_name() -> None:
    assert home_directory() is None
    assert user_name() == str(os.getuid())
    assert expanded("~/x") == Path("~/x")
    assert expanded("~nobody-of-that-name/x") == Path("~nobody-of-that-name/x")
    assert user_hub_caches({}) == ()
    assert user_hub_caches({"HF_HOME": "/hub"}) == (Path("/hub/hub"),)


@pytest.mark.usefixtures("nobody_known")
def test_such_a_user_is_asked_for_a_data_directory_and_needs_no_config_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="no home directory") as caught:
        Settings.load({})
    assert "GARRISON_DATA_DIR" in str(caught.value.hint)
    assert Settings.load({"GARRISON_DATA_DIR": str(tmp_path)}).data_dir == tmp_path


@pytest.mark.usefixtures("nobody_known")
def test_a_shared_data_directory_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert Settings.load({}).data_dir == Path("/data/garrison")
