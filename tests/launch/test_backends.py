"""Which program or container an engine is started with."""

from dataclasses import replace
from pathlib import Path

import pytest

from garrison.base.errors import InvalidError
from garrison.base.settings import Settings
from garrison.launch.backends import Backend, arrange, backend_of

DOCKER = ("docker", "run", "--rm", "--gpus", "all", "vllm/vllm-openai")
VLLM = Backend(image="vllm/vllm-openai:latest", container_program=("podman",), container_args=("--shm-size", "1g"))


def test_an_installed_engine_unless_something_is_said() -> None:
    assert arrange("vllm", VLLM).words == ()
    assert arrange("vllm", VLLM).container is None
    assert arrange("vllm", replace(VLLM, executable=("python", "-m", "vllm"))).words == ("python", "-m", "vllm")
    assert arrange("vllm", replace(VLLM, executable=("a",)), ("b", "c")).words == ("b", "c")


def test_a_container_by_setting_by_instance_and_by_program() -> None:
    for found in (
        arrange("vllm", replace(VLLM, container=True)),
        arrange("vllm", VLLM, container=True),
    ):
        assert found.container is not None
        assert (found.container.program, found.container.image) == (("podman",), "vllm/vllm-openai:latest")
        assert found.container.own.args == ("--shm-size=1g",)
        assert found.words == ()
    for found in (arrange("vllm", replace(VLLM, executable=DOCKER)), arrange("vllm", VLLM, DOCKER)):
        assert found.container is not None
        assert (found.container.program, found.container.image) == (("docker",), "vllm/vllm-openai")
        assert found.container.own.args == ("--gpus=all",)
        assert found.container.own.gpus


def test_an_instance_that_wants_no_container() -> None:
    assert arrange("vllm", replace(VLLM, container=True), container=False).container is None
    found = arrange("vllm", replace(VLLM, executable=DOCKER), container=False)
    assert (found.words, found.container) == ((), None)
    assert "installed engine" in found.notes[0]


def test_in_a_container_the_instances_program_is_dropped() -> None:
    found = arrange("vllm", VLLM, ("/opt/vllm", "x"), container=True)
    assert found.container is not None
    assert "'/opt/vllm x' was left out" in found.notes[0]


def test_mlx_runs_in_no_container() -> None:
    found = arrange("mlx_lm", Backend(), ("my-mlx",), container=True)
    assert (found.words, found.container) == (("my-mlx",), None)
    assert "MLX" in found.notes[0]


def test_a_container_needs_an_image() -> None:
    with pytest.raises(InvalidError, match="no image is known for the engine sim"):
        arrange("sim", Backend(), container=True)


def test_the_words_of_an_image_without_an_entry_point() -> None:
    found = arrange("vllm", VLLM, ("podman", "--runtime", "runc", "run", "own:1", "vllm", "serve"))
    assert found.container is not None
    assert found.container.program == ("podman", "--runtime", "runc")
    assert found.container.inside == ("vllm", "serve")


def test_the_settings_of_each_engine() -> None:
    settings = Settings.load(
        {
            "LLAMACTL_VLLM_EXECUTABLE": "python -m vllm.entrypoints.cli.main",
            "LLAMACTL_VLLM_ARGS": "serve --enforce-eager",
            "LLAMACTL_VLLM_ENV": "A=1,B=2",
            "GARRISON_CONTAINER_PROGRAM": "podman --runtime runc",
            "LLAMACTL_VLLM_DOCKER_ENABLED": "true",
            "LLAMACTL_VLLM_DOCKER_ARGS": "run --rm --network host --gpus all --shm-size 1g",
            "LLAMACTL_LLAMACPP_COMMAND": "/opt/llama-server",
        }
    )
    vllm = backend_of(settings, "vllm")
    assert vllm.executable == ("python", "-m", "vllm.entrypoints.cli.main")
    assert vllm.args == ("--enforce-eager",)
    assert vllm.env == {"A": "1", "B": "2"}
    assert vllm.container
    assert arrange("vllm", vllm).container.own.args == ("--gpus=all", "--shm-size=1g")  # type: ignore[union-attr]  # it is there
    assert arrange("vllm", vllm).container.program == ("podman", "--runtime", "runc")  # type: ignore[union-attr]  # it is there
    assert backend_of(settings, "llama_cpp").executable == ("/opt/llama-server",)
    assert not backend_of(settings, "mlx_lm").container
    assert backend_of(Settings(data_dir=Path("/d")), "custom").container_program == ("docker",)
