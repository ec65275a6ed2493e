"""The hub's cache directory is there before an engine that reads it starts."""

from pathlib import Path

import pytest

from garrison.engines.engine import EngineCommand
from garrison.launch.run.hub_cache import make_hub_cache


@pytest.mark.parametrize(
    ("variables", "made"),
    [
        ({}, "home/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "{}/xdg"}, "xdg/huggingface/hub"),
        ({"HF_HOME": "{}/hf"}, "hf/hub"),
        ({"HF_HUB_CACHE": "{}/hub", "HF_HOME": "{}/hf"}, "hub"),
        ({"HUGGINGFACE_HUB_CACHE": "{}/old"}, "old"),
    ],
)
def test_where_the_environment_says(tmp_path: Path, variables: dict[str, str], made: str) -> None:
    environment = {"HOME": f"{tmp_path}/home"} | {name: text.format(tmp_path) for name, text in variables.items()}
    make_hub_cache(environment)
    make_hub_cache(environment)  # it is there now
    assert [one for one in tmp_path.rglob("*") if not any(one.iterdir())] == [tmp_path / made]


def test_a_place_where_none_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    make_hub_cache({"HOME": f"{tmp_path}/home"})
    make_hub_cache({"HF_HUB_CACHE": "/proc/none/hub"})
    make_hub_cache({"HF_HUB_CACHE": "a\0b"})


def test_no_other_engine_asks_for_it() -> None:
    assert not EngineCommand(("vllm",)).reads_hub_cache
