from typing import Any

import pytest

from garrison.base.errors import InvalidError
from garrison.cli.options import settings


@pytest.fixture(autouse=True)
def _clean(clean_environ: Any) -> None:
    pass


def test_flags_over_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARRISON_ENGINE_PORT", "9000")
    assert settings("endpoint").engine_port == 9000
    assert settings("endpoint", engine_port=9001).engine_port == 9001
    assert settings("endpoint", engine_port=None).engine_port == 9000


def test_only_the_groups_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PORT", "wrong")
    assert settings("model").engine_port == 8000
    with pytest.raises(InvalidError):
        settings("endpoint")


def test_the_data_directory_is_always_read(clean_environ: Any) -> None:
    assert str(settings().data_dir) == clean_environ["GARRISON_DATA_DIR"]


def test_seed_defaults_are_for_the_seed_commands() -> None:
    assert settings("endpoint").engine_host == "127.0.0.1"
