"""The design's table of facts about vLLM 0.32.0, row by row."""

import shutil
from pathlib import Path

import pytest

from garrison.base.errors import InvalidError
from garrison.sim.config import SimConfig

from .client import call, load, refused, text, until, write_adapter
from .conftest import Start

LONG = "The quick brown fox jumps over the lazy dog. " * 40
SHORT = "The quick brown fox."


async def test_load(start: Start, tmp_path: Path) -> None:
    sim = await start()
    reply = await load(sim, "sql", write_adapter(tmp_path / "sql"))
    assert (reply.status, reply.body) == (200, b"Success: LoRA adapter 'sql' added successfully.")
    assert "content-type" not in reply.headers


async def test_the_same_again(start: Start, tmp_path: Path) -> None:
    sim = await start()
    path = write_adapter(tmp_path / "sql")
    await load(sim, "sql", path)
    again = await load(sim, "sql", path)
    assert again.status == 400
    assert "has already been loaded" in again.json["error"]["message"]
    assert (again.json["error"]["type"], again.json["error"]["code"]) == ("InvalidUserInput", 400)
    assert (await load(sim, "sql", path, load_inplace=True)).status == 200


async def test_path_without_adapter(start: Start, tmp_path: Path) -> None:
    reply = await load(await start(), "sql", tmp_path / "nothing")
    assert (reply.status, reply.json["error"]["type"]) == (404, "NotFoundError")
    assert reply.json["error"]["message"] == "Loading lora sql failed: No adapter found for <path>"


async def test_name_of_a_base_model(start: Start, tmp_path: Path) -> None:
    sim = await start(served_names=("tiny", "alias"))
    path = write_adapter(tmp_path / "sql")
    for name in ("tiny", "alias"):
        reply = await load(sim, name, path)
        assert reply.status == 400
        assert "conflicts with a served base model" in reply.json["error"]["message"]


async def test_base_model_name_is_ignored(start: Start, tmp_path: Path) -> None:
    sim = await start()
    assert (await load(sim, "sql", write_adapter(tmp_path / "sql"), base_model_name="nope")).status == 200
    assert (await call(sim, "GET", "/v1/models")).json["data"][1]["parent"] == "acme/tiny"


async def test_unload_of_an_unknown_name(start: Start) -> None:
    reply = await call(await start(), "POST", "/v1/unload_lora_adapter", {"lora_name": "nope"})
    assert (reply.status, reply.json["error"]["type"]) == (404, "NotFoundError")
    assert reply.json["error"]["message"] == "The lora adapter 'nope' cannot be found."


async def test_models(start: Start, tmp_path: Path) -> None:
    sim = await start(served_names=("tiny",))
    path = write_adapter(tmp_path / "sql")
    await load(sim, "sql", path)
    reply = await call(sim, "GET", "/v1/models")
    base, adapter = reply.json["data"]
    assert reply.json["object"] == "list"
    assert list(base) == [
        "id",
        "object",
        "created",
        "owned_by",
        "root",
        "parent",
        "max_model_len",
        "permission",
    ]
    assert (base["id"], base["parent"], base["root"], base["owned_by"]) == ("tiny", None, "acme/tiny", "vllm")
    assert (adapter["id"], adapter["parent"], adapter["root"]) == ("sql", "tiny", str(path))
    assert (base["max_model_len"], adapter["max_model_len"]) == (4096, None)
    assert base["permission"][0]["object"] == "model_permission"


async def test_routes_without_the_variable(start: Start, tmp_path: Path) -> None:
    sim = await start(runtime_lora=False)
    path = write_adapter(tmp_path / "sql")
    loaded = await load(sim, "sql", path)
    assert (loaded.status, loaded.json) == (404, {"detail": "Not Found"})
    assert (await call(sim, "POST", "/v1/unload_lora_adapter", {"lora_name": "sql"})).status == 404
    assert (await call(sim, "POST", "/adapters", {"name": "sql", "src": str(path)})).status == 404


@pytest.mark.parametrize("way", ["in-place", "unload and load"])
async def test_new_weights_at_the_same_path(start: Start, tmp_path: Path, way: str) -> None:
    sim, fresh = await start(), await start()
    path = write_adapter(tmp_path / "sql", seed=1)
    await load(sim, "sql", path)
    old = await text(sim, "sql", LONG)
    await text(sim, "sql", SHORT)
    write_adapter(path, seed=2)
    if way == "in-place":
        await load(sim, "sql", path, load_inplace=True)
    else:
        await call(sim, "POST", "/v1/unload_lora_adapter", {"lora_name": "sql"})
        await load(sim, "sql", path)
    await load(fresh, "sql", path)
    new = await text(fresh, "sql", LONG)
    stale = await text(sim, "sql", LONG)
    assert len({old, new, stale}) == 3
    assert await text(sim, "sql", LONG) == stale
    assert await text(sim, "sql", SHORT) == await text(fresh, "sql", SHORT)


async def test_new_weights_at_a_new_path(start: Start, tmp_path: Path) -> None:
    sim, fresh = await start(), await start()
    await load(sim, "sql", write_adapter(tmp_path / "1", seed=1))
    await text(sim, "sql", LONG)
    await call(sim, "POST", "/v1/unload_lora_adapter", {"lora_name": "sql"})
    await load(sim, "sql", write_adapter(tmp_path / "2", seed=2))
    await load(fresh, "sql", tmp_path / "2")
    assert await text(sim, "sql", LONG) == await text(fresh, "sql", LONG)


async def test_new_weights_without_prefix_caching(start: Start, tmp_path: Path) -> None:
    sim, fresh = await start(prefix_caching=False), await start(prefix_caching=False)
    path = write_adapter(tmp_path / "sql", seed=1)
    await load(sim, "sql", path)
    await text(sim, "sql", LONG)
    write_adapter(path, seed=2)
    await load(sim, "sql", path, load_inplace=True)
    await load(fresh, "sql", path)
    assert await text(sim, "sql", LONG) == await text(fresh, "sql", LONG)


async def test_in_place_reads_again_at_every_request(start: Start, tmp_path: Path) -> None:
    sim = await start()
    path = write_adapter(tmp_path / "sql", seed=1)
    await load(sim, "sql", path, load_inplace=True)
    before = await text(sim, "sql", SHORT)
    write_adapter(path, seed=2)
    assert await text(sim, "sql", SHORT) != before


async def test_plain_load_reads_once(start: Start, tmp_path: Path) -> None:
    sim = await start()
    path = write_adapter(tmp_path / "sql", seed=1)
    await load(sim, "sql", path)
    before = await text(sim, "sql", SHORT)
    shutil.rmtree(path)
    assert await text(sim, "sql", SHORT) == before


async def test_in_place_and_the_directory_gone_kills(start: Start, tmp_path: Path) -> None:
    sim = await start()
    path = write_adapter(tmp_path / "sql")
    await load(sim, "sql", path, load_inplace=True)
    await text(sim, "sql", SHORT)
    shutil.rmtree(path)
    reply = await call(sim, "POST", "/v1/completions", {"model": "sql", "prompt": SHORT})
    assert (reply.status, reply.json["error"]["type"]) == (500, "InternalServerError")
    assert reply.json["error"]["message"].startswith("EngineCore encountered an issue.")
    assert (await call(sim, "GET", "/health")).status == 503
    await refused(sim)
    await until(sim.exited.is_set)


async def test_pushed_out_of_the_cpu_cache_and_the_directory_gone_kills(start: Start, tmp_path: Path) -> None:
    sim = await start(max_cpu_loras=1)
    first = write_adapter(tmp_path / "1", seed=1)
    await load(sim, "first", first)
    await load(sim, "second", write_adapter(tmp_path / "2", seed=2))
    shutil.rmtree(first)
    await text(sim, "second", SHORT)
    assert (await call(sim, "POST", "/v1/completions", {"model": "first", "prompt": SHORT})).status == 500
    await refused(sim)


async def test_a_stream_learns_of_the_death_as_an_event(start: Start, tmp_path: Path) -> None:
    sim = await start()
    path = write_adapter(tmp_path / "sql")
    await load(sim, "sql", path, load_inplace=True)
    shutil.rmtree(path)
    reply = await call(sim, "POST", "/v1/completions", {"model": "sql", "prompt": SHORT, "stream": True})
    assert reply.status == 200
    assert reply.events[0]["error"]["code"] == 500
    await refused(sim)


async def test_survived_death_answers_503(start: Start, tmp_path: Path) -> None:
    sim = await start(survive_engine_death=True)
    path = write_adapter(tmp_path / "sql")
    await load(sim, "sql", path, load_inplace=True)
    shutil.rmtree(path)
    for model in ("sql", "acme/tiny"):
        assert (await call(sim, "POST", "/v1/completions", {"model": model, "prompt": SHORT})).status == 500
    assert (await call(sim, "GET", "/health")).status == 503
    assert (await call(sim, "GET", "/v1/models")).status == 200


async def test_unload_then_load_from_a_new_path(start: Start, tmp_path: Path) -> None:
    sim = await start()
    await load(sim, "sql", write_adapter(tmp_path / "1", seed=1))
    old = await text(sim, "sql", SHORT)
    reply = await call(sim, "POST", "/v1/unload_lora_adapter", {"lora_name": "sql"})
    assert reply.body == b"Success: LoRA adapter 'sql' removed successfully."
    gone = await call(sim, "POST", "/v1/completions", {"model": "sql", "prompt": SHORT})
    assert gone.status == 404
    assert gone.json["error"]["message"] == "The model `sql` does not exist. Valid aliases: acme/tiny."
    await load(sim, "sql", write_adapter(tmp_path / "2", seed=2))
    assert await text(sim, "sql", SHORT) != old


async def test_wrong_shapes_are_served(start: Start, tmp_path: Path) -> None:
    sim = await start()
    assert (await load(sim, "sql", write_adapter(tmp_path / "sql", width=32))).status == 200
    await text(sim, "sql", SHORT)


async def test_truncated_safetensors(start: Start, tmp_path: Path) -> None:
    reply = await load(await start(), "sql", write_adapter(tmp_path / "sql", truncate=100))
    assert (reply.status, reply.json["error"]["type"]) == (500, "InternalServerError")
    assert "incomplete metadata, file not fully covered" in reply.json["error"]["message"]


async def test_rank_above_the_limit(start: Start, tmp_path: Path) -> None:
    reply = await load(await start(), "sql", write_adapter(tmp_path / "sql", rank=32))
    assert reply.status == 500
    assert "LoRA rank 32 is greater than max_lora_rank 16." in reply.json["error"]["message"]


async def test_a_failed_load_kills_nothing(start: Start, tmp_path: Path) -> None:
    sim = await start()
    await load(sim, "sql", write_adapter(tmp_path / "sql", truncate=100))
    assert (await call(sim, "GET", "/health")).status == 200
    assert len((await call(sim, "GET", "/v1/models")).json["data"]) == 1


async def test_two_adapters_with_one_slot(start: Start, tmp_path: Path) -> None:
    sim = await start(max_loras=1)
    for seed in (1, 2):
        assert (await load(sim, f"a{seed}", write_adapter(tmp_path / str(seed), seed=seed))).status == 200
    assert await text(sim, "a1", SHORT) != await text(sim, "a2", SHORT)


async def test_api_key(start: Start, tmp_path: Path) -> None:
    sim = await start(api_keys=("secret",))
    path = write_adapter(tmp_path / "sql")
    for guarded in ("/v1/models", "/v1/nope"):
        reply = await call(sim, "GET", guarded)
        assert (reply.status, reply.json) == (401, {"error": "Unauthorized"})
    assert (await load(sim, "sql", path)).status == 401
    assert (await call(sim, "GET", "/v1/models", headers={"Authorization": "Bearer wrong"})).status == 401
    assert (await call(sim, "GET", "/v1/models", headers={"Authorization": "Bearer secret"})).status == 200
    for open_path in ("/health", "/metrics", "/version"):
        assert (await call(sim, "GET", open_path)).status == 200
    twin = await call(sim, "POST", "/adapters", {"name": "sql", "src": str(path)})
    assert (twin.status, twin.body) == (200, b"Adapter sql registered")
    gone = await call(sim, "DELETE", "/adapters/sql")
    assert (gone.status, gone.body) == (200, b"Adapter sql unregistered")
    assert (await call(sim, "DELETE", "/adapters/sql")).status == 404


async def test_start_time_and_restart(start: Start, tmp_path: Path) -> None:
    sim = await start()
    await load(sim, "sql", write_adapter(tmp_path / "sql"))
    before = await start_time(sim)
    sim.restart()
    assert await start_time(sim) > before
    assert [card["id"] for card in (await call(sim, "GET", "/v1/models")).json["data"]] == ["acme/tiny"]


async def start_time(sim: object) -> float:
    page = (await call(sim, "GET", "/metrics")).body.decode()  # type: ignore[arg-type] # any simulator
    lines = [line for line in page.splitlines() if line.startswith("process_start_time_seconds")]
    return float(lines[0].split()[1])


async def test_sleep(start: Start) -> None:
    sim = await start(enable_sleep_mode=True, dev_mode=True)
    assert (await call(sim, "GET", "/is_sleeping")).json == {"is_sleeping": False}
    assert (await call(sim, "POST", "/sleep?level=1")).json == {"status": "sleeping", "level": 1}
    assert (await call(sim, "GET", "/is_sleeping")).json == {"is_sleeping": True}
    page = (await call(sim, "GET", "/metrics")).body.decode()
    assert 'sleep_state="weights_offloaded"} 1.0' in page
    assert 'sleep_state="awake"} 0.0' in page
    assert (await call(sim, "POST", "/wake_up")).json["status"] == "awake"
    assert await text(sim, "acme/tiny", SHORT)


async def test_sleep_level_is_checked(start: Start) -> None:
    sim = await start(enable_sleep_mode=True, dev_mode=True)
    assert (await call(sim, "POST", "/sleep?level=3")).status == 400


async def test_sleep_needs_the_dev_mode(start: Start) -> None:
    sim = await start(enable_sleep_mode=True)
    for method, path in (("POST", "/sleep"), ("POST", "/wake_up"), ("GET", "/is_sleeping")):
        assert (await call(sim, method, path)).status == 404


async def test_sleep_needs_the_flag(start: Start) -> None:
    sim = await start(dev_mode=True)
    assert (await call(sim, "GET", "/is_sleeping")).status == 200
    assert (await call(sim, "POST", "/sleep")).status == 500


async def test_sleep_level_2_loses_the_weights(start: Start) -> None:
    sim = await start(enable_sleep_mode=True, dev_mode=True)
    before = await text(sim, "acme/tiny", SHORT)
    await call(sim, "POST", "/sleep?level=2")
    await call(sim, "POST", "/wake_up")
    assert await text(sim, "acme/tiny", SHORT) != before
    await call(sim, "POST", "/collective_rpc", {"method": "reload_weights"})
    assert await text(sim, "acme/tiny", SHORT) == before


async def test_flat_errors(start: Start, tmp_path: Path) -> None:
    sim = await start(error_shape="flat")
    path = write_adapter(tmp_path / "sql")
    await load(sim, "sql", path)
    again = await load(sim, "sql", path)
    unknown = await call(sim, "POST", "/v1/unload_lora_adapter", {"lora_name": "nope"})
    for reply in (again, unknown):
        assert reply.status == 400
        assert (reply.json["object"], reply.json["type"], reply.json["code"]) == ("error", "InvalidUserInput", 400)


async def test_load_without_enable_lora(start: Start, tmp_path: Path) -> None:
    reply = await load(await start(enable_lora=False), "sql", write_adapter(tmp_path / "sql"))
    assert reply.status == 500
    assert "LoRA is not enabled" in reply.json["error"]["message"]


@pytest.mark.parametrize(
    "options",
    [
        {"max_lora_rank": 17},
        {"max_loras": 4, "max_cpu_loras": 2},
        {"error_shape": "round"},
        {"ssl_certfile": "c.pem"},
    ],
    ids=lambda options: "-".join(options),
)
def test_refuses_to_start(options: dict[str, object]) -> None:
    with pytest.raises(InvalidError):
        SimConfig(**options)  # type: ignore[arg-type] # wrong on purpose
