"""What is still needed is not removed: it says what needs it, and what to do."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from garrison.cli.needs.need import engine_needs, instance_needs, mentions, served_needs, stack_needs
from garrison.engines.environments import mark_complete
from garrison.store.records import Key, Operation, Resource, StackRecord, TargetRecord

PLACES = (Path("/data/models/tiny"),)
AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("/data/models/tiny", True),
        ("/data/models/tiny/", True),
        ("/data/models/tiny/model.gguf", True),
        ("--model=/data/models/tiny", True),
        ("sql=/data/models/tiny", True),
        ('{"name": "a", "path": "/data/models/tiny"}', True),
        ("[*]\nmodel = /data/models/tiny/model.gguf\n", True),
        ("/data/models/tiny2", False),
        ("/other/data/models/tiny", False),
        ("tiny", False),
        ("", False),
    ],
)
def test_a_path_is_found_in_words(text: str, named: bool) -> None:
    assert mentions(text, PLACES) is named


def instance(name: str, state: str = "stopped", **options: Any) -> dict[str, Any]:
    return {"name": name, "state": state, "options": {"backend_type": "vllm"} | options}


def test_instances_name_a_model_by_path_by_name_and_in_other_options() -> None:
    found = instance_needs(
        [
            instance("path", "running", backend_options={"model": "/data/models/tiny"}),
            instance("id", backend_options={"model": "acme/tiny"}),
            instance("revision", backend_options={"model": "acme/tiny@main"}),
            instance("file", backend_options={"model": "acme/tiny:Q4_K_M"}),
            instance("draft", backend_options={"model": "acme/other", "extra_args": ["-md", "/data/models/tiny/m"]}),
            instance("preset", backend_type="llama_cpp", preset_ini="[a]\nmodel = /data/models/tiny/m.gguf"),
            instance("other", backend_options={"model": "acme/tiny2", "served_model_name": "acme/tiny"}),
        ],
        PLACES,
        ("tiny", "acme/tiny"),
    )
    assert [need.who for need in found] == [
        "instance path (running) serves it",
        *(f"instance {name} (stopped) serves it" for name in ("id", "revision", "file", "draft", "preset")),
    ]
    assert [need.cure for need in found][:2] == [
        "garrison instance delete path --stop",
        "garrison instance delete id",
    ]


def test_what_serve_runs() -> None:
    argv = ["vllm", "serve", "acme/base", "--lora-modules", "sql=/data/models/tiny"]
    found = served_needs([("vllm-8000", 7, argv), ("sim-1", 8, ["sim", "/data/models"])], PLACES)
    assert [(need.who, need.cure) for need in found] == [
        ("garrison serve vllm-8000 (pid 7) runs with it", "garrison stop vllm-8000")
    ]


def test_only_instances_of_the_engine_that_run_in_its_environment() -> None:
    found = engine_needs(
        [instance("a"), instance("b", command_override="x"), instance("c", docker_enabled=True),
         instance("d", backend_type="llama_cpp")],
        "vllm",
    )  # fmt: skip
    assert [need.who for need in found] == ["instance a (stopped) has no other vllm"]


def test_stacks_and_targets_each_adapter_once() -> None:
    path = "/data/models/tiny"
    own = Resource(
        key=Key("edge", "lora", "sql"), stack="lab", label="sql", operation=Operation.CREATED, spec={}, parent=None,
        served_path=path, at=AT,
    )  # fmt: skip
    stack = StackRecord(
        name="lab",
        declaration={
            "adapters": [
                {"target": "edge", "lora_name": "sql", "lora_path": path},
                {"target": "far", "lora_name": "sql", "lora_path": path},
                {"target": "far", "lora_name": "chat", "lora_path": "/elsewhere"},
            ]
        },
        at=AT,
    )
    target = TargetRecord(
        name="edge", spec={}, declared_at=AT,
        served=({"name": "sql", "root": path}, {"name": "mine", "root": f"{path}/"}, {"name": "base", "root": "/b"}),
    )  # fmt: skip
    found = stack_needs([target], [own], [stack], PLACES)
    assert [need.who for need in found] == [
        "edge serves it as mine",
        "stack lab has it on edge as sql",
        "stack lab has it on far as sql",
    ]


@pytest.mark.system
def test_an_adapter_that_a_stack_owns_stays_until_the_stack_gives_it_up(
    cli: Any, clean_environ: Any, start: Any, manifest: Any, adapter: Any
) -> None:
    path = Path(json.loads(cli("adapters", "import", adapter("sql"), "--json").out)["path"])
    sim = start()
    file = manifest({"edge": {"base_url": sim.url}}, {"sql": {"target": "edge", "lora_path": str(path)}})
    assert cli("apply", file, "--yes").code == 0
    for flags in ((), ("--json",)):
        refused = cli("adapters", "remove", "sql", "--yes", *flags)
        assert refused.code == 33
        assert "stack cabinet-7 has it on edge as sql: take it out of the manifest, and apply that" in refused.err
    assert json.loads(refused.out)["needed_by"][0]["who"] == "stack cabinet-7 has it on edge as sql"
    assert [one["name"] for one in json.loads(cli("adapters", "list", "--json").out)["adapters"]] == ["sql"]
    assert cli("destroy", "--stack", "cabinet-7", "--yes").code == 0
    assert cli("adapters", "remove", "sql", "--yes").code == 0


@pytest.mark.system
def test_force_removes_it_and_warns(cli: Any, start: Any, manifest: Any, adapter: Any) -> None:
    path = Path(json.loads(cli("adapters", "import", adapter("sql"), "--json").out)["path"])
    file = manifest({"far": {"base_url": "http://127.0.0.1:1"}}, {"sql": {"target": "far", "lora_path": str(path)}})
    assert cli("apply", file, "--yes").code == 31
    done = cli("adapters", "remove", "sql", "--yes", "--force")
    assert done.code == 0
    assert "warning: stack cabinet-7 has it on far as sql" in done.err
    assert not path.exists()


def environments(environ: Any, *versions: str) -> None:
    for version in versions:
        path = Path(environ["GARRISON_DATA_DIR"]) / "engines" / "vllm" / f"{version}+cpu"
        path.mkdir(parents=True)
        facts = {"version": version, "device": "cpu", "executable": "bin/vllm", "installed_at": "2026-01-01"}
        mark_complete(path, engine="vllm", **facts)


def test_a_removed_engine_says_which_is_in_use_now_and_its_choice_does_not_come_back(
    cli: Any, clean_environ: Any
) -> None:
    environments(clean_environ, "0.1.0", "0.2.0", "0.3.0")
    cli("engine", "use", "vllm", "0.1.0")
    done = cli("engine", "remove", "vllm", "0.1.0", "--yes")
    assert done.out.splitlines() == ["removed vllm 0.1.0+cpu", "vllm 0.3.0+cpu is now in use"]
    environments(clean_environ, "0.1.0")  # installed again
    used = [one["name"] for one in json.loads(cli("engine", "list", "--json").out)["engines"] if one["in_use"]]
    assert used == ["0.3.0+cpu"]
    assert cli("engine", "remove", "vllm", "0.1.0", "--yes").out == "removed vllm 0.1.0+cpu\n"


def test_the_last_engine_says_so(cli: Any, clean_environ: Any) -> None:
    environments(clean_environ, "0.1.0")
    done = cli("engine", "remove", "vllm", "0.1.0", "--yes")
    assert done.out.splitlines()[1] == "none is left; `garrison engine install vllm` installs one"


@pytest.mark.parametrize("command", [["models", "remove"], ["adapters", "remove"], ["engine", "remove", "vllm"]])
def test_a_database_that_cannot_be_read_refuses_and_force_goes_on(
    cli: Any, clean_environ: Any, tiny_model: Path, adapter: Any, command: list[str]
) -> None:
    cli("models", "import", tiny_model, "--as", "tiny")
    cli("adapters", "import", adapter("tiny"), "--as", "tiny")
    environments(clean_environ, "0.1.0")
    (Path(clean_environ["GARRISON_DATA_DIR"]) / "garrison.db").write_text("no database")
    name = "0.1.0" if command[0] == "engine" else "tiny"
    assert cli(*command, name, "--yes").code not in (0, 70)
    done = cli(*command, name, "--yes", "--force")
    assert done.code == 0
    assert "warning: nothing is known of what needs" in done.err
