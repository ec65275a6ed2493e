"""Flags, `key=value` and pasted lines as the options of an instance."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison.api.instances.own_options import own_options
from garrison.base.errors import InvalidError, UsageError
from garrison.cli.server.instance.options import (
    Flags,
    absolute_model,
    changed,
    from_line,
    idle_minutes,
    key_and_value,
    patch_of,
    restarts,
)

DOCKER = (
    "docker run --runtime nvidia --gpus all -e HF_TOKEN=hf_x -p 8000:8000 --ipc=host vllm/vllm-openai:latest "
    "--model org/name --tensor-parallel-size 2"
)


def test_an_engine_is_found_by_the_names_that_it_has_elsewhere_and_one_that_is_not_there_is_named() -> None:
    assert Flags(engine="llama-cpp").over({})["backend_type"] == "llama_cpp"
    assert patch_of(["engine=llama-cpp"], []) == {"backend_type": "llama_cpp"}
    for key in ("engine", "backend_type"):
        with pytest.raises(InvalidError, match="there is no engine 'simm'") as caught:
            patch_of([f"{key}=simm"], [])
        assert caught.value.hint == "Did you mean sim?"
    with pytest.raises(InvalidError, match="there is no engine 'simm'"):
        Flags(engine="simm").over({})


def test_flags_alone() -> None:
    flags = Flags(model="org/m", options=["max_model_len=8192", "name=1.10", "enforce-eager=true"], idle="30m")
    assert flags.over({}) == {
        "backend_type": "vllm",
        "idle_timeout": 30,
        "backend_options": {"max_model_len": 8192, "name": "1.10", "enforce-eager": True, "model": "org/m"},
    }


def test_an_empty_model_is_an_error() -> None:
    with pytest.raises(UsageError, match="--model is empty"):
        Flags(engine="sim", model="").over({})


def test_flags_go_over_what_they_are_given() -> None:
    base = {"backend_type": "llama_cpp", "backend_options": {"model": "a", "threads": 2}, "environment": {"A": "1"}}
    flags = Flags(
        engine="vllm", model="b", port=9000, pin=True, group="big", devices="0, GPU-1", memory="2GiB", on_demand=False,
        env=["B=x=y", "C"], environ={"C": "secret"}, options=["threads=4"], idle="never",
    )  # fmt: skip
    assert flags.over(base) == {
        "backend_type": "vllm",
        "backend_options": {"model": "b", "threads": 4, "port": 9000},
        "environment": {"A": "1", "B": "x=y", "C": "secret"},
        "idle_timeout": 0,
        "pin": True,
        "group": "big",
        "devices": ["0", "GPU-1"],
        "memory": "2GiB",
        "on_demand_start": False,
    }
    assert base["backend_options"] == {"model": "a", "threads": 2}, "what is given stays as it was"


def test_no_flags_change_nothing() -> None:
    base = {"backend_type": "custom", "custom": {"argv": ["x"]}, "pin": True}
    assert Flags().over(base) == base


@pytest.mark.parametrize("wrong", ["", "=1", "1A=2", "A B=1"])
def test_a_variable_without_a_name(wrong: str) -> None:
    with pytest.raises(UsageError, match="NAME=VALUE"):
        Flags(env=[wrong]).over({})


def test_a_variable_that_is_not_set_here() -> None:
    with pytest.raises(UsageError, match="is not set here"):
        Flags(env=["HF_TOKEN"]).over({})


def test_a_line_with_variables_in_front() -> None:
    options, notes = from_line("OMP_NUM_THREADS=4 vllm serve org/m --tensor-parallel-size 2 --no-such-flag 1")
    assert options == {
        "backend_type": "vllm",
        "backend_options": {"model": "org/m", "tensor_parallel_size": 2, "extra_args": {"--no-such-flag": "1"}},
        "environment": {"OMP_NUM_THREADS": "4"},
    }
    assert any("--no-such-flag" in note for note in notes)


def test_a_docker_line() -> None:
    options, _ = from_line(DOCKER)
    assert options["backend_type"] == "vllm"
    assert options["docker_enabled"] is True
    assert options["backend_options"]["model"] == "org/name"
    assert options["backend_options"]["tensor_parallel_size"] == 2
    assert options["environment"] == {"HF_TOKEN": "hf_x"}


def test_a_line_of_the_simulator_has_vllms_names() -> None:
    options, _ = from_line("python -m garrison.sim --model /m --port 8001 --enable-lora")
    assert options == {"backend_type": "sim", "backend_options": {"model": "/m", "port": 8001, "enable_lora": True}}


def test_arguments_alone_need_an_engine() -> None:
    with pytest.raises(InvalidError):
        from_line("-m x.gguf -c 4096")
    options, _ = from_line("-m x.gguf -c 4096", "llama.cpp")
    assert options["backend_type"] == "llama_cpp"
    assert options["backend_options"] == {"model": "x.gguf", "ctx_size": 4096}


@pytest.mark.parametrize(
    ("text", "minutes"), [("30m", 30), ("90s", 1.5), ("2h", 120), ("45", 45), ("never", 0), ("Never", 0), ("0", 0)]
)
def test_idle(text: str, minutes: float) -> None:
    assert idle_minutes(text) == minutes


def test_idle_that_is_no_time() -> None:
    with pytest.raises(UsageError, match="soon"):
        idle_minutes("soon")


@settings(deadline=None)
@given(st.text())
def test_a_value_keeps_its_text(text: str) -> None:
    """What is read as a number or a flag is written the same way again; anything else stays text."""
    import json

    if text[:1] in ("[", "{"):
        return
    _, value = key_and_value(f"k={text}", "-o")
    assert (value if isinstance(value, str) else json.dumps(value, allow_nan=False)) == text


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e5", "01", "+1", " 1", "1.0e-5", '"a"'])
def test_what_only_looks_like_a_number_is_text(text: str) -> None:
    assert key_and_value(f"k={text}", "-o") == ("k", text)


def test_json_values() -> None:
    assert key_and_value('k={"a": [1, null]}', "-o") == ("k", {"a": [1, None]})
    with pytest.raises(InvalidError, match="looks like JSON"):
        key_and_value("k={a}", "-o")
    with pytest.raises(UsageError, match="KEY=VALUE"):
        key_and_value("k", "-o")


def test_a_patch() -> None:
    sets = ["idle=2h", "max-model-len=8192", "env.A=1", "devices=0,1", "pin=true", "memory=10", "hf_overrides.a=2"]
    assert patch_of(sets, ["group", "env.B", "seed"]) == {
        "idle_timeout": 120,
        "backend_options": {"max_model_len": 8192, "hf_overrides.a": 2, "seed": None},
        "environment": {"A": "1", "B": None},
        "devices": ["0", "1"],
        "pin": True,
        "memory": "10",
        "group": None,
    }


@pytest.mark.parametrize(
    ("sets", "unsets"), [(["pin=true", "pin=false"], []), (["pin=true"], ["pin"]), (["seed=null"], [])]
)
def test_a_patch_that_contradicts_itself(sets: list[str], unsets: list[str]) -> None:
    with pytest.raises(UsageError):
        patch_of(sets, unsets)


@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [  # from RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ],
)
def test_merge(before: Any, patch: Any, after: Any) -> None:
    assert changed(before, patch) == after


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"idle_timeout": 3}, False),
        ({"pin": True, "group": "a", "memory": "1GiB", "max_restarts": 9}, False),
        ({"backend_options": {"model": "b"}}, True),
        ({"environment": {"A": "1"}}, True),
        ({"environment": {}}, False),
        ({"devices": ["0"]}, True),
        ({"docker_enabled": True}, True),
    ],
)
def test_what_restarts(change: Any, expected: bool) -> None:
    before = {"backend_type": "vllm", "backend_options": {"model": "a"}}
    assert restarts(before, {**before, **change}) is expected


def test_an_option_that_follows_a_setting_is_not_its_own() -> None:
    options = {"idle_timeout": 30, "pin": True}
    assert own_options({"options": options, "follows_settings": ["idle_timeout"]}) == {"pin": True}
    assert own_options({"options": options, "follows_settings": []}) == options
    assert own_options({"options": options}) == options, "as a server of an earlier version lists it"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("./m", "/srv/m"), ("../m", "/m"), (".", "/srv"), ("~/m", "/home/me/m"), ("org/name", "org/name"),
        ("/m", "/m"), (".hidden", ".hidden"), ("~me/m", "~me/m"),
    ],
)  # fmt: skip
def test_models_that_are_paths(model: str, expected: str) -> None:
    found = absolute_model({"backend_options": {"model": model}}, "/srv", "/home/me")
    assert found["backend_options"]["model"] == expected
    assert absolute_model({"backend_type": "custom"}, "/srv", "/home/me") == {"backend_type": "custom"}


def test_a_preset_is_for_llama_server() -> None:
    flags = Flags(preset_ini="[one]\n", options=["models_max=2"])
    assert flags.over({}) == {
        "backend_type": "llama_cpp", "preset_ini": "[one]\n", "backend_options": {"models_max": 2},
    }  # fmt: skip
    assert Flags(pin=True).over({"preset_ini": "[one]"})["backend_type"] == "llama_cpp", "of a file that says no more"
    assert patch_of(["preset_ini=[one]"], []) == {"preset_ini": "[one]"}
    assert patch_of([], ["preset_ini"]) == {"preset_ini": None}
    assert restarts({"preset_ini": "[one]"}, {})


@pytest.mark.parametrize("key", ["models_dir", "models-dir", "models_preset"])
def test_a_place_of_models_gets_an_absolute_path(key: str) -> None:
    made = absolute_model({"backend_options": {key: "./m", "ctx_size": 1}}, "/here", "/home/me")
    assert made["backend_options"] == {key: "/here/m", "ctx_size": 1}
