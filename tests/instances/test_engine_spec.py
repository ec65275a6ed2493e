"""What is launched for an instance, by its own fields and by the settings of its backend."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import InvalidError
from garrison.base.settings import Settings
from garrison.instances.engine_spec import plan_launch, require_servers_address
from garrison.instances.runner import Launch
from garrison.instances.values.spec import CustomServer, InstanceSpec

SETTINGS = Settings(data_dir=Path("/data"))


def plan(settings: Settings = SETTINGS, devices: tuple[str, ...] = (), **fields: Any) -> Any:
    spec = InstanceSpec(**{"name": "a", "engine": "vllm", "options": {"model": "m"}, **fields})
    return plan_launch(Launch(spec, 9000, devices), settings)


def test_arguments_of_the_backend_come_before_those_of_the_instance() -> None:
    settings = replace(SETTINGS, vllm_args=("--max-model-len", "1k"))
    found = plan(settings, options={"model": "m", "max-model-len": 2, "extra_args": {"--new": "x"}})
    assert found.spec.args == ("--max-model-len", "1k", "--max-model-len", "2", "--new", "x")


def test_variables_of_backend_container_and_instance_in_this_order() -> None:
    settings = replace(SETTINGS, vllm_env=(("A", "1"), ("B", "1"), ("C", "1")), container_env=(("B", "2"), ("C", "2")))
    assert plan(settings, env={"C": "3"}).spec.env == {"A": "1", "B": "1", "C": "3"}
    assert plan(settings, env={"C": "3"}, container=True).spec.env == {"A": "1", "B": "2", "C": "3"}


def test_gpus_are_chosen_by_the_server_unless_the_instance_says_otherwise() -> None:
    settings = replace(SETTINGS, vllm_env=(("CUDA_VISIBLE_DEVICES", "7"),))
    assert plan(settings, ("GPU-1", "GPU-2")).spec.env["CUDA_VISIBLE_DEVICES"] == "GPU-1,GPU-2"
    assert plan(settings, ("GPU-1",), env={"CUDA_VISIBLE_DEVICES": "0"}).spec.env["CUDA_VISIBLE_DEVICES"] == "0"
    assert "CUDA_VISIBLE_DEVICES" not in plan(devices=("host",)).spec.env, "system memory is no GPU"
    assert plan(devices=("GPU-1",), container=True).spec.container.devices == ("GPU-1",)
    assert plan(devices=("host",), container=True).spec.container.devices == ()


def test_a_program_of_several_words() -> None:
    found = plan(replace(SETTINGS, vllm_executable=("python", "-m", "vllm"))).spec
    assert (found.executable, found.launcher) == (Path("python"), ("-m", "vllm"))
    found = plan(executable=("/opt/x", "y")).spec
    assert (found.executable, found.launcher) == (Path("/opt/x"), ("y",))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"extra_args": {"--host": "0.0.0.0"}}, "--host"),
        ({"extra_args": {"--port": "1"}}, "--port"),
        ({"extra_args": {"--api-key": "x"}}, "--api-key"),
        ({"extra_args": {"--por": "1"}}, "--por"),
    ],
)
def test_nobody_but_the_server_says_where_an_engine_listens(options: dict[str, Any], said: str) -> None:
    found = plan(options={"model": "m", "host": "0.0.0.0", "port": 1, "api_key": "x", "seed": 0, **options})
    assert found.spec.args == ("--seed", "0")
    assert any(said in note for note in found.notes)
    assert (found.spec.host, found.spec.port) == ("127.0.0.1", 9000)


def test_a_config_file_of_the_engine_moves_it_nowhere() -> None:
    """Flags win over the file."""
    found = plan(options={"model": "m", "extra_args": {"--config": "/x.yaml"}})
    assert found.spec.args == ("--config", "/x.yaml", "--host", "127.0.0.1", "--port", "9000")


@pytest.mark.parametrize(
    ("args", "said"), [(("--uds", "/x.sock"), "sets uds"), (("--api-key", "k"), "sets api-key"), (("--port", "9"), "")]
)
def test_what_no_flag_can_take_back_from_a_config_file_is_refused(args: tuple[str, ...], said: str) -> None:
    if not said:
        return require_servers_address("a", args)
    with pytest.raises(InvalidError, match=said):
        require_servers_address("a", args)
    return None


def test_an_engine_gets_the_servers_key_where_it_can_have_one() -> None:
    found = plan(env={"VLLM_API_KEY": "x", "A": "1"})
    assert found.spec.env == {"A": "1"}
    assert any("VLLM_API_KEY" in note for note in found.notes)
    assert found.spec.api_key_env == "GARRISON_INSTANCE_KEY"
    assert plan(engine="mlx_lm").spec.api_key_env is None


def test_an_instance_without_a_model() -> None:
    with pytest.raises(InvalidError, match="names no model"):
        plan(options={})


PRESET = "[one]\nmodel = /m/one.gguf\n[two]\nhf-repo = org/two\n"


class TestRouter:
    def test_its_preset_is_an_argument_and_it_has_no_model(self) -> None:
        found = plan(engine="llama_cpp", preset_ini=PRESET, options={"models_max": 2}).spec
        assert (found.model, found.router) == ("", True)
        assert found.args == ("--models-preset", "/data/instances/a/preset.ini", "--models-max", "2")
        assert found.reads == (Path("/data/instances/a/preset.ini"), Path("/m/one.gguf"))

    @pytest.mark.parametrize(
        ("options", "args", "reads"),
        [
            ({"models_preset": "/p.ini"}, ("--models-preset", "/p.ini"), ("/p.ini",)),
            ({"models-dir": "/m"}, ("--models-dir", "/m"), ("/m",)),
            ({"extra_args": {"--models-dir": "/m"}}, ("--models-dir", "/m"), ("/m",)),
        ],
    )
    def test_models_elsewhere(self, options: dict[str, Any], args: tuple[str, ...], reads: tuple[str, ...]) -> None:
        found = plan(engine="llama_cpp", options=options).spec
        assert (found.router, found.args, found.reads) == (True, args, tuple(map(Path, reads)))

    def test_a_preset_file_of_the_options_wins(self) -> None:
        found = plan(engine="llama_cpp", preset_ini=PRESET, options={"models_preset": "/p.ini"}).spec
        assert (found.args, found.reads) == (("--models-preset", "/p.ini"), (Path("/p.ini"),))

    def test_with_a_model_it_is_none(self) -> None:
        found = plan(engine="llama_cpp", preset_ini=PRESET, options={"model": "m"}).spec
        assert (found.model, found.router, found.reads) == ("m", False, ())

    @pytest.mark.parametrize(("engine", "options"), [("llama_cpp", {"hf_repo": "a/b"}), ("vllm", {"models_dir": "/m"})])
    def test_what_is_none_needs_a_model(self, engine: str, options: dict[str, Any]) -> None:
        with pytest.raises(InvalidError, match="names no model"):
            plan(engine=engine, options=options, preset_ini=PRESET)

    def test_nobody_but_the_server_says_where_it_listens(self) -> None:
        found = plan(engine="llama_cpp", preset_ini=PRESET, options={"host": "0.0.0.0", "extra_args": {"--port": "1"}})
        assert found.spec.args == ("--models-preset", "/data/instances/a/preset.ini")


class TestCustom:
    def test_its_command(self) -> None:
        custom = CustomServer(("x", "--port", "{port}"), ready_path="/ready", apis=frozenset({"rerank"}))
        found = plan(engine="custom", custom=custom, options={"extra_args": {"--flag": True, "n": 1}})
        assert found.spec.custom is not None
        assert found.spec.args == ("--flag", "--n", "1")
        assert found.engine.readiness.path == "/ready"
        assert found.spec.api_key_env is None

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"custom": None}, "without a command"),
            ({"custom": CustomServer(())}, "without a command"),
            ({"options": {"max_model_len": 1}}, "no option max_model_len"),
            ({"executable": ("x",)}, "no other executable"),
            ({"custom": CustomServer(("x",))}, "where its port goes"),
            ({"container": True}, "no image is known"),
        ],
    )
    def test_what_it_cannot_have(self, fields: dict[str, Any], said: str) -> None:
        with pytest.raises(InvalidError, match=said):
            plan(**{"engine": "custom", "custom": CustomServer(("x", "{port}")), "options": {}, **fields})

    def test_a_fixed_port_needs_no_placeholder(self) -> None:
        assert plan(engine="custom", custom=CustomServer(("x",)), options={}, port=9000).spec.custom is not None

    def test_a_containers_command_is_taken_apart(self) -> None:
        argv = ("docker", "run", "--gpus", "all", "sglang:1", "--port", "{port}")
        container = plan(engine="custom", custom=CustomServer(argv), options={}).spec.container
        assert (container.image, container.inside, container.own.gpus) == ("sglang:1", ("--port", "{port}"), True)
