"""llamactl's documented calls, as requests and the JSON that its clients expect."""

import asyncio
from typing import Any

import pytest
from served_api import ServedApi

from garrison.engines.llama_router import RouterModel
from garrison.instances.values.state import State
from garrison.server.stack_instances import existing_of

SEED = {
    "backend_type": "vllm",
    "backend_options": {
        "model": "ISTA-DASLab/gemma-3-27b-it-GPTQ-4b-128g",
        "tensor_parallel_size": 2,
        "gpu_memory_utilization": 0.5,
        "enable_log_outputs": True,
    },
}
LLAMA = {
    "backend_type": "llama_cpp",
    "backend_options": {"model": "/models/llama-2-7b.gguf", "gpu_layers": 32, "ctx_size": 4096},
    "auto_restart": True,
    "max_restarts": 3,
    "restart_delay": 5,
    "on_demand_start": True,
    "idle_timeout": 60,
    "environment": {"CUDA_VISIBLE_DEVICES": "0"},
}
PRESET = "[one]\nmodel = /m/one.gguf\n[org/two]\nhf-repo = org/two\n"
ROUTER = {"backend_type": "llama_cpp", "backend_options": {"models_max": 2}, "preset_ini": PRESET}
MLX = {
    "backend_type": "mlx_lm",
    "backend_options": {"model": "mlx-community/Mistral-7B-Instruct-v0.3-4bit", "temp": 0.7},
}


async def post(served: ServedApi, path: str, body: Any = None) -> tuple[int, Any]:
    answer = await served.client.post(f"/api/v1{path}", json=body)
    return answer.status_code, answer.json()


@pytest.mark.parametrize("options", [SEED, LLAMA, MLX, ROUTER], ids=["vllm", "llama_cpp", "mlx_lm", "router"])
async def test_create_get_list_and_delete(served: ServedApi, options: dict[str, Any]) -> None:
    status, made = await post(served, "/instances/my-model", options)
    assert status == 201
    assert made["id"] == 1
    assert made["name"] == "my-model"
    assert made["status"] == "stopped"
    assert isinstance(made["created"], int)
    assert made["options"]["backend_type"] == options["backend_type"]
    for name, value in options.items():
        if name != "backend_options":
            assert made["options"][name] == value, name
    for name, value in options["backend_options"].items():
        assert made["options"]["backend_options"][name] == value, name
    assert (await served.client.get("/api/v1/instances/my-model")).json() == made
    assert (await served.client.get("/api/v1/instances")).json() == [made]
    deleted = await served.client.delete("/api/v1/instances/my-model")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await served.client.get("/api/v1/instances/my-model")).status_code == 404


async def test_the_defaults_are_llamactls(served: ServedApi) -> None:
    _, made = await post(served, "/instances/a", SEED)
    wanted = {"auto_restart": True, "max_restarts": 3, "restart_delay": 5, "on_demand_start": True, "idle_timeout": 30}
    assert {name: made["options"][name] for name in wanted} == wanted


async def test_start_stop_and_restart(served: ServedApi) -> None:
    await post(served, "/instances/a", SEED)
    status, begun = await post(served, "/instances/a/start")
    assert status == 200
    assert begun["status"] in ("restarting", "running")
    await served.client.get("/api/v1/version")
    for _ in range(100):
        found = (await served.client.get("/api/v1/instances/a")).json()
        if found["status"] == "running":
            break
    assert found["status"] == "running"
    assert (await post(served, "/instances/a/start"))[0] == 200, "idempotent"
    refused = await served.client.delete("/api/v1/instances/a")
    assert (refused.status_code, refused.json()["error"]) == (409, "conflict")
    assert (await post(served, "/instances/a/restart"))[0] == 200
    status, stopped = await post(served, "/instances/a/stop")
    assert (status, stopped["status"]) == (200, "stopped")
    assert (await post(served, "/instances/a/stop"))[0] == 200, "idempotent"


async def test_put_replaces_the_whole(served: ServedApi) -> None:
    await post(served, "/instances/a", LLAMA)
    changed = {"backend_type": "llama_cpp", "backend_options": {"model": "/models/other.gguf"}, "idle_timeout": 5}
    answer = await served.client.put("/api/v1/instances/a", json=changed)
    assert answer.status_code == 200
    options = answer.json()["options"]
    assert options["backend_options"] == {"model": "/models/other.gguf"}
    assert options["idle_timeout"] == 5
    assert "environment" not in options
    assert answer.json()["restarted"] is False
    assert answer.json()["id"] == 1


async def test_names_with_dashes_are_the_same_options(served: ServedApi) -> None:
    dashed = {"backend_type": "vllm", "backend_options": {"model": "m", "tensor-parallel-size": 2}}
    _, made = await post(served, "/instances/a", dashed)
    assert made["options"]["backend_options"] == {"model": "m", "tensor_parallel_size": 2}


async def test_a_port_of_its_own_stays_an_option(served: ServedApi) -> None:
    fixed = {"backend_type": "vllm", "backend_options": {"model": "m", "port": 8005}}
    _, made = await post(served, "/instances/a", fixed)
    assert made["options"]["backend_options"]["port"] == 8005
    status, refused = await post(served, "/instances/b", fixed)
    assert (status, refused["error"]) == (409, "conflict")
    for port in (-1, 65536, "eighty", True):
        wrong = {"backend_type": "vllm", "backend_options": {"model": "m", "port": port}}
        assert (await post(served, "/instances/c", wrong))[0] == 422, port


@pytest.mark.parametrize("name", ["a b", "a/b", "..", ".", "-a", "x" * 51, "ä", "a;b"])
async def test_names_that_cannot_be(served: ServedApi, name: str) -> None:
    answer = await served.client.post(f"/api/v1/instances/{name}", json=SEED)
    assert answer.status_code in (404, 405, 422), answer.text
    assert (await served.client.get("/api/v1/instances")).json() == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"backend_type": "nope"},
        {"backend_type": "vllm"},
        {"backend_type": "vllm", "backend_options": None},
        {"backend_type": "vllm", "backend_options": {"model": "m"}, "unknown": 1},
        {"backend_type": "custom"},
        {"backend_type": "vllm", "backend_options": [], "idle_timeout": "soon"},
        {"backend_type": "vllm", "backend_options": {"model": "m"}, "preset_ini": PRESET},
        {"backend_type": "llama_cpp", "preset_ini": "[a]\0"},
        {"backend_type": "llama_cpp", "preset_ini": ""},
    ],
)
async def test_options_that_cannot_be(served: ServedApi, body: Any) -> None:
    status, said = await post(served, "/instances/a", body)
    assert status == 422
    assert said["error"] == "invalid"
    assert said["details"]


async def test_a_name_that_exists_is_a_conflict(served: ServedApi) -> None:
    await post(served, "/instances/a", SEED)
    status, said = await post(served, "/instances/a", SEED)
    assert (status, said["error"]) == (409, "conflict")


@pytest.mark.parametrize("call", ["", "/start", "/stop", "/restart", "/logs", "/explain"])
async def test_what_is_not_there_is_404_and_not_500(served: ServedApi, call: str) -> None:
    method = "POST" if call in ("/start", "/stop", "/restart") else "GET"
    answer = await served.client.request(method, f"/api/v1/instances/nope{call}")
    assert (answer.status_code, answer.json()["error"]) == (404, "not-found")


async def test_logs_of_an_instance_that_never_ran_are_empty(served: ServedApi) -> None:
    await post(served, "/instances/a", SEED)
    answer = await served.client.get("/api/v1/instances/a/logs?lines=10")
    assert (answer.status_code, answer.text) == (200, "")
    assert (await served.client.get("/api/v1/instances/a/logs?lines=x")).status_code == 422


async def test_version_is_text_and_config_has_no_secret(served: ServedApi) -> None:
    version = await served.client.get("/api/v1/version")
    assert version.headers["content-type"].startswith("text/plain")
    config = (await served.client.get("/api/v1/config")).json()
    assert config["management_keys"]["value"] in ("set", "unset")


async def test_nodes(served: ServedApi) -> None:
    assert list((await served.client.get("/api/v1/nodes")).json()) == ["main"]
    assert (await served.client.get("/api/v1/nodes/main")).json()["address"] == ""
    missing = await served.client.get("/api/v1/nodes/nope")
    assert (missing.status_code, missing.json()["error"]) == (404, "not-found")


async def router(served: ServedApi) -> None:
    """Make the router `r`, which does not run yet."""
    served.llama.models = {"one": "unloaded", "org/two": "unloaded"}
    assert (await post(served, "/instances/r", {"backend_type": "llama_cpp", "preset_ini": PRESET}))[0] == 201


async def statuses(served: ServedApi) -> dict[str, str]:
    answer = await served.client.get("/api/v1/llama-cpp/r/models")
    assert answer.status_code == 200, answer.text
    return {one["id"]: one["status"]["value"] for one in answer.json()["data"]}


async def test_a_preset_needs_no_other_option_and_can_be_changed_and_taken_away(served: ServedApi) -> None:
    await router(served)
    made = (await served.client.get("/api/v1/instances/r")).json()
    assert (made["options"]["preset_ini"], made["options"]["backend_options"]) == (PRESET, {})
    patch = {"preset_ini": None, "backend_options": {"model": "/m/one.gguf"}}
    changed = await served.client.patch("/api/v1/instances/r", json=patch)
    assert (changed.status_code, "preset_ini" in changed.json()["options"]) == (200, False)


async def test_the_models_of_a_router_are_listed_loaded_and_unloaded(served: ServedApi) -> None:
    await router(served)
    assert await statuses(served) == {"one": "unloaded", "org/two": "unloaded"}
    assert served.instances.get("r").state is State.STOPPED, "a list starts nothing"
    assert await post(served, "/llama-cpp/r/models/one/load", {"model": "one"}) == (200, {"success": True})
    assert served.instances.get("r").state is State.RUNNING
    assert await statuses(served) == {"one": "loaded", "org/two": "unloaded"}
    assert await post(served, "/llama-cpp/r/models/org%2Ftwo/load") == (200, {"success": True})
    assert await post(served, "/llama-cpp/r/models/one/unload") == (200, {"success": True})
    assert await statuses(served) == {"one": "unloaded", "org/two": "loaded"}
    async with asyncio.timeout(5):
        while served.routers.models("r") != (RouterModel("one"), RouterModel("org/two", "loaded")):
            await asyncio.sleep(0)
    found = (await served.client.get("/api/v1/instances/r")).json()
    assert [(one["id"], one["status"]["value"]) for one in found["models"]] == [
        ("one", "unloaded"), ("org/two", "loaded"),
    ]  # fmt: skip


async def test_of_the_path_and_the_body_the_body_counts(served: ServedApi) -> None:
    await router(served)
    assert await post(served, "/llama-cpp/r/models/one/load", {"model": "org/two"}) == (200, {"success": True})
    assert await statuses(served) == {"one": "unloaded", "org/two": "loaded"}


async def test_a_model_that_a_router_does_not_have_and_one_that_cannot_be_loaded(served: ServedApi) -> None:
    await router(served)
    status, said = await post(served, "/llama-cpp/r/models/three/load")
    assert (status, said["error"], said["hint"]) == (404, "not-found", "It has one, org/two.")
    served.llama.loaded = "failed"
    served.llama_log = [
        "spawning server instance with name=one on port 41001",
        "[41001] unknown model architecture: 'new'",
    ]
    status, said = await post(served, "/llama-cpp/r/models/one/load")
    assert (status, said["error"]) == (502, "engine-died")
    assert said["details"] == "r cannot load 'one': this engine does not know the architecture new"
    assert served.instances.get("r").state is State.RUNNING


async def test_what_is_no_router(served: ServedApi) -> None:
    await post(served, "/instances/a", SEED)
    assert (await served.client.get("/api/v1/llama-cpp/nope/models")).status_code == 404
    for path in ("/llama-cpp/nope/models/m/load", "/llama-cpp/nope/models/m/unload"):
        assert (await post(served, path))[0] == 404
    assert (await served.client.get("/api/v1/llama-cpp/a/models")).status_code == 422
    status, said = await post(served, "/llama-cpp/a/models/m/load")
    assert (status, said["error"]) == (422, "invalid")
    assert served.instances.get("a").state is State.STOPPED


async def test_a_router_that_does_not_answer(served: ServedApi) -> None:
    await router(served)
    served.llama.down = True
    status, said = await post(served, "/llama-cpp/r/models/one/load")
    assert (status, said["error"]) == (504, "unreachable")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backend_type": "vllm", "backend_options": {"model": "m", "max_model_lenn": 1}}, "mean --max-model-len?"),
        ({"backend_type": "sim", "backend_options": {"model": "m", "bogus_flag": 1}}, "does not list --bogus-flag"),
        ({"backend_type": "llama_cpp", "backend_options": {"model": "m", "ctx_sizes": 1}}, "did you mean --ctx-size"),
        ({"backend_type": "mlx_lm", "backend_options": {}}, "it names no model"),
    ],
)
async def test_what_is_odd_about_options_is_noted(served: ServedApi, options: dict[str, Any], said: str) -> None:
    _, made = await post(served, "/instances/odd", options)
    assert len(made["notes"]) == 1
    assert said in made["notes"][0]
    fixed = await served.client.patch("/api/v1/instances/odd", json={"pin": True})
    assert fixed.json()["notes"] == made["notes"]
    assert "notes" not in (await served.client.get("/api/v1/instances/odd")).json()


async def test_an_empty_model_is_none(served: ServedApi) -> None:
    status, made = await post(served, "/instances/a", {"backend_type": "vllm", "backend_options": {"model": ""}})
    assert status == 201
    assert any("names no model" in one for one in made["notes"])


async def test_a_listed_instance_says_which_options_follow_the_settings(served: ServedApi) -> None:
    sim = {"backend_type": "sim", "backend_options": {"model": "m"}}
    for name, options in {"a": sim, "b": sim | {"idle_timeout": 30}, "c": sim | {"idle_timeout": 0}}.items():
        assert (await post(served, f"/instances/{name}", options))[0] == 201
    rows = (await served.client.get("/api/v1/instances")).json()
    assert {one["name"]: (one["options"]["idle_timeout"], one["follows_settings"]) for one in rows} == {
        "a": (30, ["idle_timeout"]), "b": (30, []), "c": (0, []),
    }  # fmt: skip
    for row in rows:
        spec = served.services.instances.get(row["name"]).spec
        assert existing_of(row, served.services.settings, None).spec == spec, "as a plan reads it"
