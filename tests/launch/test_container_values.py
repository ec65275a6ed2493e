"""The command of a container, what it mounts, and the user's own arguments of `run`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from garrison.base.errors import EngineMissingError, InvalidError
from garrison.engines.engine import EngineCommand
from garrison.launch.containers.command import Mount, container_command
from garrison.launch.containers.mounts import mounts_of
from garrison.launch.containers.program import ContainerStatus, parse_inspected
from garrison.launch.containers.values import ContainerSpec, container_name, own_arguments

DOCKER = Path("/usr/bin/docker")
SPEC = ContainerSpec(("docker",), "vllm/vllm-openai", "garrison-1-a", "1", "a")
INNER = EngineCommand(
    ("--model", "/m", "--port", "1"), {"A": "secret"}, frozenset({"VLLM_PORT"}), {"VLLM_API_KEY": "KEY"}
)


def argv(spec: ContainerSpec = SPEC, inner: EngineCommand = INNER) -> tuple[str, ...]:
    return container_command(DOCKER, spec, inner, [Mount(Path("/m"))]).argv


def after(words: tuple[str, ...], flag: str) -> list[str]:
    return [words[position + 1] for position, word in enumerate(words) if word == flag]


class TestCommand:
    def test_what_it_says(self) -> None:
        made = argv()
        assert made[:3] == ("/usr/bin/docker", "run", "--rm")
        assert after(made, "--name") == ["garrison-1-a"]
        assert after(made, "--label") == ["garrison.server=1", "garrison.instance=a"]
        assert after(made, "--network") == ["host"]
        assert after(made, "--log-driver") == ["none"]
        assert after(made, "-v") == ["/m:/m:ro"]
        assert made[-5:] == ("vllm/vllm-openai", "--model", "/m", "--port", "1")

    def test_values_of_variables_are_not_in_argv(self) -> None:
        made = container_command(DOCKER, SPEC, INNER, [])
        assert after(made.argv, "-e") == ["A", "VLLM_API_KEY"]
        assert not any("secret" in word for word in made.argv)
        environment = made.environment({"KEY": "sk-1", "VLLM_PORT": "1", "PATH": "/bin"})
        assert (environment["A"], environment["VLLM_API_KEY"], environment["PATH"]) == ("secret", "sk-1", "/bin")
        assert "VLLM_PORT" not in environment

    def test_what_the_program_itself_obeys_is_told_otherwise(self) -> None:
        inner = replace(INNER, env={"PATH": "/opt/bin", "DOCKER_HOST": "x", "DOCKER_TOKEN": "t"})
        made = container_command(DOCKER, SPEC, inner, [])
        assert after(made.argv, "-e") == ["DOCKER_TOKEN", "VLLM_API_KEY", "DOCKER_HOST=x", "PATH=/opt/bin"]
        assert made.env == {"DOCKER_TOKEN": "t"}

    def test_gpus_only_where_some_were_given(self) -> None:
        given = replace(SPEC, devices=("GPU-1",))
        assert not any("--gpus" in word or "nvidia" in word for word in argv())
        assert after(argv(given), "--gpus") == ["device=GPU-1"]
        assert after(argv(replace(given, devices=("GPU-1", "GPU-2"))), "--gpus") == ['"device=GPU-1,GPU-2"']
        podman = replace(given, program=("/usr/bin/podman", "--runtime", "runc"), devices=("GPU-1", "GPU-2"))
        assert after(argv(podman), "--device") == ["nvidia.com/gpu=GPU-1", "nvidia.com/gpu=GPU-2"]
        assert argv(podman)[1:4] == ("--runtime", "runc", "run")
        own = replace(given, own=own_arguments(["--gpus", "all"]))
        assert [word for word in argv(own) if "gpus" in word] == ["--gpus=all"]

    def test_an_entry_point_of_the_user(self) -> None:
        spec = replace(SPEC, own=own_arguments(["--entrypoint", "vllm"]), inside=("serve",))
        assert spec.words == ("vllm", "serve")
        made = argv(spec, EngineCommand((*spec.words, "m")))
        assert made[-5:] == ("--entrypoint", "vllm", "vllm/vllm-openai", "serve", "m")

    def test_a_path_that_cannot_be_mounted(self) -> None:
        with pytest.raises(InvalidError, match="colon"):
            container_command(DOCKER, SPEC, INNER, [Mount(Path("/m:1"))])


class TestOwnArguments:
    def test_what_garrison_does_itself_is_left_out(self) -> None:
        words = "run --rm -it -d --name x --network host --shm-size 1g -v /a:/b --ulimit nofile=1 --init"
        assert own_arguments(words.split()).args == ("--shm-size=1g", "--volume=/a:/b", "--ulimit=nofile=1", "--init")

    def test_variables_with_values_leave_the_argv(self) -> None:
        found = own_arguments(["-e", "A=1", "--env=B=2", "-eC=3", "-e", "D"])
        assert found.env == {"A": "1", "B": "2", "C": "3"}
        assert found.args == ("--env=D",)

    @pytest.mark.parametrize("words", ["-p 8000:8000", "--restart always", "--network bridge"])
    def test_what_is_refused_is_said(self, words: str) -> None:
        found = own_arguments(words.split())
        assert found.args == ()
        assert words.split()[-1] in found.notes[0]

    def test_options_that_are_not_known_are_passed_on(self) -> None:
        found = own_arguments(["--new", "x", "--flag", "--other=y", "--shm-size", "1g"])
        assert found.args == ("--new=x", "--flag", "--other=y", "--shm-size=1g")

    def test_a_word_that_belongs_to_nothing(self) -> None:
        with pytest.raises(InvalidError, match="belongs to no option"):
            own_arguments(["--rm", "vllm/vllm-openai"])


class TestMounts:
    def test_a_cache_of_links(self, tmp_path: Path) -> None:
        home = tmp_path / "models--a--b"
        model = home / "snapshots" / "1"
        (home / "blobs").mkdir(parents=True)
        model.mkdir(parents=True)
        (home / "blobs" / "abc").write_text("x")
        (model / "config.json").symlink_to("../../blobs/abc")
        assert {mount.path for mount in mounts_of([model])} == {model, home / "blobs"}

    def test_a_link_elsewhere_brings_one_file_alone(self, tmp_path: Path) -> None:
        model, secret = tmp_path / "model", tmp_path / "private" / "file"
        model.mkdir()
        secret.parent.mkdir()
        secret.write_text("x")
        (model / "tokenizer.json").symlink_to(secret)
        (model / "dangling").symlink_to("/nowhere")
        assert {mount.path for mount in mounts_of([model])} == {model, secret}

    def test_a_file_and_its_parts(self, tmp_path: Path) -> None:
        for name in ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "other.gguf"):
            (tmp_path / name).write_text("x")
        parts = [tmp_path / "m-00001-of-00002.gguf", tmp_path / "m-00002-of-00002.gguf"]
        assert [mount.path for mount in mounts_of([parts[0]])] == parts
        assert [mount.path for mount in mounts_of([tmp_path / "other.gguf"])] == [tmp_path / "other.gguf"]

    def test_what_is_inside_another_is_not_mounted_twice(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        assert [mount.path for mount in mounts_of([tmp_path / "a", tmp_path])] == [tmp_path]
        assert [mount.path for mount in mounts_of([tmp_path, tmp_path / "a"])] == [tmp_path]


def test_two_servers_have_two_names(tmp_path: Path) -> None:
    one, two = container_name(tmp_path / "1", "a"), container_name(tmp_path / "2", "a")
    assert one != two
    assert one[0] == f"garrison-{one[1]}-a"
    (tmp_path / "1").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "1")
    assert container_name(tmp_path / "link", "a") == one


def test_what_inspect_says() -> None:
    state = {"Running": True, "Pid": 7}
    assert parse_inspected(json.dumps([{"Id": "x", "State": state}])) == ContainerStatus("x", True, 7)
    stopped = {"Running": False, "Pid": 0}
    assert parse_inspected(json.dumps([{"Id": "x", "State": stopped}])) == ContainerStatus("x", False)
    for text in ("", "[]", "[{}]", "{}", "[" * 5000):
        with pytest.raises(EngineMissingError, match="cannot be read"):
            parse_inspected(text)
