"""What a declared instance becomes for those who run it."""

from typing import Any

import pytest

from garrison.base.errors import InvalidError
from garrison.base.settings import Settings
from garrison.declared.spec import spec_of, specs_of
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration
from garrison.fleet.values.instance import CustomCommand, InstanceDeclaration
from garrison.instances.stored import spec_from_json, spec_to_json
from garrison.instances.values.spec import CustomServer, InstanceSpec
from garrison.net.endpoint import Secret

DEFAULTS = Settings(default_max_restarts=7, default_on_demand_start=False)


def spec(attached: bool = False, **fields: Any) -> InstanceSpec:
    return spec_of(InstanceDeclaration(name="a", **fields), "box", DEFAULTS, attached=attached)


def test_a_short_declaration_takes_the_defaults() -> None:
    assert spec(model="m") == InstanceSpec(
        name="a", options={"model": "m"}, max_restarts=7, on_demand=False, idle_seconds=None, stack="box"
    )


def test_every_field_arrives() -> None:
    made = spec(
        model="m", engine="llama_cpp", options={"ctx_size": 1}, args=("--seed", "2"), executable=("x", "y"),
        container=False, env={"A": "1", "B": Secret("env", "C")}, served_model_name="q", port=9, on_demand=True,
        idle=0.0, auto_restart=False, max_restarts=1, restart_delay=2.0, group="g", pin=True, priority=3, weight=2.0,
        devices=("0",), memory=5, sleep_level=1, preload=True, preset_ini="[x]",
    )  # fmt: skip
    assert made == InstanceSpec(
        name="a", engine="llama_cpp", options={"model": "m", "alias": "q", "ctx_size": 1, "seed": 2},
        executable=("x", "y"), container=False, env={"A": "1"}, secrets={"B": Secret("env", "C")}, port=9,
        on_demand=True, idle_seconds=0.0, auto_restart=False, max_restarts=1, restart_delay=2.0, group="g", pin=True,
        priority=3, weight=2.0, devices=("0",), memory_bytes=5, sleep_level=1, preload=True, preset_ini="[x]",
        stack="box",
    )  # fmt: skip
    assert spec_from_json("a", spec_to_json(made)) == made


def test_an_engine_to_which_adapters_are_attached_lets_them_be_loaded() -> None:
    made = spec(attached=True, model="m", max_loras=2, max_lora_rank=20)
    assert made.options == {"model": "m", "enable_lora": True, "max_loras": 2, "max_lora_rank": 32}
    assert made.env == {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
    assert "enable_lora" not in spec(attached=True, engine="custom", custom=CustomCommand(("x",))).options


def test_what_the_user_wrote_counts_more() -> None:
    made = spec(attached=True, model="m", served_model_name="q", options={"enable_lora": False, "max_loras": 9})
    assert made.options == {"model": "m", "served_model_name": ["q"], "enable_lora": False, "max_loras": 9}


def test_a_custom_server_gets_the_arguments() -> None:
    made = spec(model="m", engine="custom", custom=CustomCommand(("x", "{port}")), args=("--y",))
    assert made.custom == CustomServer(("x", "{port}", "--y"))
    assert made.options == {"model": "m"}


def test_a_rank_that_no_engine_serves() -> None:
    with pytest.raises(InvalidError, match="up to rank 512"):
        spec(attached=True, model="m", max_lora_rank=600)


def test_attached_is_what_the_stack_attaches() -> None:
    declared = Declaration(
        stack="box",
        instances={name: InstanceDeclaration(name=name, model="m") for name in ("a", "b")},
        adapters=(AdapterDeclaration(target="a", label="x", lora_name="x", lora_path="/x"),),
    )
    made = specs_of(declared, DEFAULTS)
    assert ["enable_lora" in one.options for one in made.values()] == [True, False]
