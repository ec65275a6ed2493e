import pytest

from garrison.base.mistyped import mistyped_variables
from garrison.base.settings import Settings

KNOWN = {row.env for row in Settings.table()}

MISTYPED = {
    "GARRISON_STOPTIMEOUT": "GARRISON_STOP_TIMEOUT",
    "GARRISON_DATADIR": "GARRISON_DATA_DIR",
    "GARRISON_PROGRES_WINDOW": "GARRISON_PROGRESS_WINDOW",
    "GARRISON_HFTOKEN": "GARRISON_HF_TOKEN",
    "GARRISON_SKIP_GPU": "GARRISON_SKIP_GPU_CHECK",
}


@pytest.mark.parametrize(("name", "meant"), MISTYPED.items(), ids=MISTYPED)
def test_a_name_near_a_setting_is_reported_with_it_and_without_its_value(name: str, meant: str) -> None:
    warning = f"{name} is not a setting and has no effect; did you mean {meant}?"
    assert mistyped_variables({name: "SECRET", meant: "x"}, KNOWN) == [warning]


@pytest.mark.parametrize(
    "name",
    [
        *sorted(KNOWN),
        "GARRISON_CONFIG",
        "GARRISON_TEST_ENGINES",
        "GARRISON_TEST_STOP_TIMEOUT",
        "GARRISON_EDGE_KEY",
        "GARRISON_SERVICE_HOST",
        "GARRISON_SERVICE_PORT_HTTP",
        "GARRISON_PORT",
        "GARRISON_PORT_8080_TCP_ADDR",
        "GARRISON_ENGINE_SERVICE_PORT_HTTP",
        "GARRISON_ENGINE_PORT_8000_TCP",
        "GARRISONSTOP_TIMEOUT",
        "VLLM_STOPTIMEOUT",
    ],
)
def test_other_names_are_not(name: str) -> None:
    assert mistyped_variables({name: "x"}, KNOWN) == []


def test_the_address_of_a_service_is_no_setting() -> None:
    assert mistyped_variables({"GARRISON_ENGINES_PORT": "tcp://10.96.0.1:8000"}, KNOWN) == []
    assert mistyped_variables({"GARRISON_ENGINES_PORT": "8000"}, KNOWN) != []


def test_settings_carry_it_whatever_groups_are_read() -> None:
    for groups in (None, ("general",)):
        found = Settings.load({"GARRISON_STOPTIMEOUT": "1", "HOME": "/"}, groups=groups)
        assert found.warnings == (
            "GARRISON_STOPTIMEOUT is not a setting and has no effect; did you mean GARRISON_STOP_TIMEOUT?",
        )


def test_a_former_name_is_no_mistake() -> None:
    (warning,) = Settings.load({"GARRISON_HOST": "127.0.0.2", "HOME": "/"}).warnings
    assert "is now GARRISON_ENGINE_HOST" in warning
