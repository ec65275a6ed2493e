"""What models take, by the numbers of models that everybody knows and by files on disk."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_model as maker
from hypothesis import given
from hypothesis import strategies as st

from garrison.instances.demand import Facts, cost_of_return, grant, named_devices, need_of
from garrison.instances.model_shape import gguf_shape, read_shape, shape_of_config
from garrison.instances.room.estimate import GIB, ModelShape, Shape, estimate, gpus_needed
from garrison.instances.room.shape import gpus_asked_for, shape_of, utilization
from garrison.instances.room.values import HOST, Device
from garrison.instances.values.record import Costs
from garrison.instances.values.spec import InstanceSpec
from garrison.models.layout import Layout
from garrison.models.names import parse_model
from garrison.models.request import ResolveRequest

LLAMA_8B = {
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096,
    "max_position_embeddings": 131072,
}  # fmt: skip
DEEPSEEK_V3 = {
    "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128, "hidden_size": 7168,
    "kv_lora_rank": 512, "qk_rope_head_dim": 64, "max_position_embeddings": 163840,
}  # fmt: skip
GEMMA_3 = {
    "text_config": {
        "num_hidden_layers": 6, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256,
        "hidden_size": 3840, "sliding_window": 1024, "max_position_embeddings": 131072,
        "layer_types": [*["sliding_attention"] * 5, "full_attention"],
    }
}  # fmt: skip
QWEN_NEXT = {
    "num_hidden_layers": 4, "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256, "hidden_size": 2048,
    "layer_types": [*["linear_attention"] * 3, "full_attention"], "max_position_embeddings": 262144,
}  # fmt: skip


def cache(model: ModelShape, shape: Shape) -> int:
    return sum(part.bytes for part in estimate(model, shape).parts if part.what.startswith("KV cache"))


@pytest.mark.parametrize(
    ("config", "per_token"),
    [(LLAMA_8B, 128 * 1024), (DEEPSEEK_V3, 61 * 576 * 2), (QWEN_NEXT, 2 * 2 * 256 * 2)],
)
def test_the_cache_of_one_token(config: Mapping[str, Any], per_token: int) -> None:
    assert cache(shape_of_config(config, GIB), Shape("llama_cpp", "host", 1000)) == 1000 * per_token


def test_sliding_layers_keep_their_window() -> None:
    one = 2 * 8 * 256 * 2
    found = cache(shape_of_config(GEMMA_3, GIB), Shape("llama_cpp", "host", 10_000))
    assert found == one * (10_000 + 5 * 1024)


def test_the_context_of_the_model_counts_unless_it_is_set() -> None:
    model = shape_of_config(LLAMA_8B, 16 * GIB)
    assert cache(model, Shape("llama_cpp", "gpu")) == 16 * GIB
    assert cache(model, Shape("llama_cpp", "gpu", 8192)) == GIB
    assert cache(model, Shape("vllm", "gpu", 8192)) == 4 * GIB, "room for several requests"
    assert cache(model, Shape("vllm", "host", 8192)) == GIB
    assert cache(model, Shape("mlx_lm", "host")) == GIB
    assert cache(ModelShape(GIB), Shape("llama_cpp", "gpu", 8192)) == 0


def test_layers_that_are_not_on_the_gpu_are_in_system_memory() -> None:
    model = shape_of_config(LLAMA_8B, 16 * GIB)
    whole = estimate(model, Shape("llama_cpp", "gpu", 8192))
    assert whole == estimate(model, Shape("llama_cpp", "gpu", 8192, gpu_layers=99))
    half = estimate(model, Shape("llama_cpp", "gpu", 8192, gpu_layers=16))
    assert half.bytes - half.fixed == (16 * GIB + GIB) // 2
    assert half.host - whole.host == (16 * GIB + GIB) // 2


def test_gpus_that_share_a_model_each_have_the_overhead() -> None:
    found = estimate(shape_of_config(LLAMA_8B, 16 * GIB), Shape("llama_cpp", "gpu", 8192))
    assert found.on_each(2) == found.fixed + 17 * GIB // 2
    assert gpus_needed(found, 24 * GIB) == 1
    assert gpus_needed(found, 10 * GIB) == 2
    assert gpus_needed(found, found.fixed) == 1


@given(st.integers(0, 2**40), st.integers(1, 100), st.integers(1, 2**14), st.integers(1, 2**20), st.integers(0, 120))
def test_more_never_takes_less(weights: int, layers: int, width: int, context: int, on_gpu: int) -> None:
    model = ModelShape(weights, layers, layers, kv_width=width, context=4096)
    small = estimate(model, Shape("llama_cpp", "gpu", context, gpu_layers=on_gpu))
    large = estimate(model, Shape("llama_cpp", "gpu", context + 1, gpu_layers=on_gpu))
    assert small.bytes + small.host <= large.bytes + large.host
    whole = estimate(model, Shape("llama_cpp", "gpu", context))
    assert abs((small.bytes + small.host) - (whole.bytes + whole.host)) <= 2, "nothing is lost between the two"


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("8192", 8192), ("8k", 8000), ("8K", 8192), ("25.6k", 25600), ("1M", 1024**2), ("-1", None), ("auto", None)],
)
def test_lengths_as_vllm_writes_them(text: str, tokens: int | None) -> None:
    assert shape_of("vllm", "gpu", ("--max-model-len", text), {}).context == tokens


def test_options_that_decide_about_memory() -> None:
    assert shape_of("llama_cpp", "gpu", ("-c", "4096", "-ngl", "20", "-ctk", "q8_0", "-ctv", "q8_0"), {}) == Shape(
        "llama_cpp", "gpu", 4096, kv_bytes=34 / 32, gpu_layers=20
    )
    assert shape_of("llama_cpp", "gpu", ("-ngl", "all"), {"LLAMA_ARG_CTX_SIZE": "77"}).context == 77
    assert shape_of("llama_cpp", "gpu", ("-ngl", "all"), {"LLAMA_ARG_N_GPU_LAYERS": "3"}).gpu_layers is None
    assert shape_of("vllm", "gpu", ("--kv-cache-dtype", "fp8_e4m3"), {}).kv_bytes == 1.0
    assert shape_of("vllm", "gpu", ("--dtype", "float32"), {}).kv_bytes == 4.0
    assert shape_of("vllm", "gpu", ("--kv-cache-memory-bytes", "2G"), {}).kv_space == 2 * GIB
    assert shape_of("vllm", "host", (), {"VLLM_CPU_KVCACHE_SPACE": "4"}).kv_space == 4 * GIB
    assert shape_of("vllm", "host", (), {"VLLM_CPU_KVCACHE_SPACE": "0"}).kv_space is None
    assert utilization(("--gpu_memory_utilization=0.5",)) == 0.5
    assert utilization(("--gpu-memory-utilization", "half")) is None
    assert gpus_asked_for("vllm", ("-tp", "4", "-pp", "2", "-dp", "3"), {}) == (24, 8)
    assert gpus_asked_for("vllm", ("-dp", "8", "--data-parallel-size-local", "2"), {}) == (2, 1)
    assert gpus_asked_for("llama_cpp", ("-ts", "3,1"), {}) == (2, 2)
    assert gpus_asked_for("llama_cpp", ("-sm", "none"), {}) == (1, 1)
    assert gpus_asked_for("llama_cpp", (), {}) == (0, 0)


# Files


def asked(path: object, root: Path) -> ResolveRequest:
    return ResolveRequest(model=parse_model(str(path), exists=lambda _: False), layout=Layout(root, root))


def test_a_directory_and_a_gguf_of_the_same_model_agree(tiny_model: Path, tmp_path: Path) -> None:
    gguf = maker.make_gguf(tmp_path / "tiny.gguf")
    plain = read_shape("vllm", asked(tiny_model, tmp_path))
    packed = read_shape("llama_cpp", asked(gguf, tmp_path))
    assert plain is not None
    assert packed is not None
    assert (plain.layers, plain.full, plain.kv_width) == (packed.layers, packed.full, packed.kv_width)
    assert plain.context == packed.context
    assert packed.weights == gguf.stat().st_size
    further = read_shape("llama_cpp", asked(gguf, tmp_path), ("--mmproj", str(gguf)))
    assert further is not None
    assert further.weights == 2 * packed.weights


def test_a_name_is_looked_up_where_a_start_looks(tiny_model: Path, tmp_path: Path) -> None:
    hub = tmp_path / "hub" / "models--acme--tiny"
    (hub / "snapshots").mkdir(parents=True)
    (hub / "snapshots" / "abc").symlink_to(tiny_model)
    assert read_shape("vllm", asked("acme/tiny", tmp_path)) == read_shape("vllm", asked(tiny_model, tmp_path))
    assert read_shape("vllm", asked("acme/other", tmp_path)) is None


def test_parts_of_a_split_gguf_count_together(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        maker.make_gguf(tmp_path / f"tiny-0000{number}-of-00003.gguf")
    found = read_shape("llama_cpp", asked(tmp_path, tmp_path))
    assert found is not None
    assert found.weights == sum(path.stat().st_size for path in tmp_path.glob("tiny-*.gguf"))


@pytest.mark.parametrize("content", ["", "[]", "{", json.dumps({"num_hidden_layers": "many", "hidden_size": -1})])
def test_a_config_that_tells_nothing(tiny_model: Path, tmp_path: Path, content: str) -> None:
    for path in tiny_model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text(content)
    found = read_shape("vllm", asked(tmp_path, tmp_path))
    assert found is None or cache(found, Shape("vllm", "gpu", 512)) == 0


def test_metadata_that_tells_nothing() -> None:
    assert gguf_shape({}, 7) == ModelShape(7)
    assert gguf_shape({"general.architecture": ["x"]}, 7) == ModelShape(7)


# Needs


MACHINE = (
    Device(HOST, 64 * GIB, 60 * GIB),
    Device("GPU-aaaa", 24 * GIB, 24 * GIB, index=0),
    Device("GPU-bbbb", 80 * GIB, 80 * GIB, index=1),
)
MODEL = shape_of_config(LLAMA_8B, 16 * GIB)


def facts(engine: str = "vllm", *args: str, on: Any = "gpu", **fields: Any) -> Facts:
    more = {name: fields.pop(name) for name in ("costs", "env", "visible", "model") if name in fields}
    return Facts(
        InstanceSpec(name="a", engine=engine, **fields), on=on, args=args, devices=MACHINE, **{"model": MODEL} | more
    )


def test_devices_are_named_by_index_uuid_or_its_beginning() -> None:
    assert named_devices(("1", "GPU-aa", "GPU-bbbb"), MACHINE) == (("GPU-bbbb", "GPU-aaaa"), ())
    assert named_devices(("7", "GPU-", "GPU-x", "host"), MACHINE) == ((), ("GPU 7", "GPU-", "GPU-x", "host"))


def test_declared_before_measured_before_estimated() -> None:
    measured = Costs(memory_bytes={"GPU-aaaa": 3 * GIB, HOST: 5 * GIB})
    found = need_of(facts("llama_cpp", memory_bytes=GIB, costs=measured))
    assert (found.bytes, found.source, found.parts) == (GIB, "declared", ())
    found = need_of(facts("llama_cpp", costs=measured))
    assert (found.bytes, found.source) == (3 * GIB, "measured")
    found = need_of(facts("llama_cpp", "-c", "8192"))
    assert (found.bytes, found.source) == (sum(part.bytes for part in found.parts), "estimated")
    assert need_of(facts("llama_cpp", model=None)).bytes is None


def test_what_fills_later_is_not_believed_to_take_less_than_its_estimate() -> None:
    small, large = Costs(memory_bytes={HOST: GIB}), Costs(memory_bytes={HOST: 40 * GIB})
    assert need_of(facts("mlx_lm", on="host", costs=small)).source == "estimated"
    assert need_of(facts("mlx_lm", on="host", costs=large)).bytes == 40 * GIB
    assert need_of(facts("llama_cpp", on="host", costs=small)).bytes == GIB


def test_what_a_router_takes_is_declared_or_was_measured() -> None:
    router = InstanceSpec(name="a", engine="llama_cpp", preset_ini="[one]")
    on_gpu = Facts(router, on="gpu", devices=MACHINE)
    assert (need_of(on_gpu).bytes, need_of(on_gpu).source, need_of(on_gpu).count) == (None, "unknown", 1)
    measured = replace(on_gpu, costs=Costs(memory_bytes={"GPU-aaaa": 3 * GIB}))
    assert (need_of(measured).bytes, need_of(measured).source) == (3 * GIB, "measured")
    declared = replace(measured, spec=replace(router, memory_bytes=9 * GIB))
    assert (need_of(declared).bytes, need_of(declared).source) == (9 * GIB, "declared")
    assert need_of(replace(on_gpu, on="host")).source == "unknown"


def test_vllm_is_told_what_it_was_given() -> None:
    told = facts("vllm", "--max-model-len", "8192")
    need = need_of(told)
    assert need.bytes == 16 * GIB + 4 * GIB + 3 * GIB
    granted = grant(told, need, ("GPU-bbbb",), MACHINE)
    assert granted.args == ("--gpu-memory-utilization", "0.29")
    assert granted.held["GPU-bbbb"] * 100 // (80 * GIB) == 29
    assert granted.held["GPU-bbbb"] >= need.bytes
    declared = facts("vllm", memory_bytes=14 * GIB)
    granted = grant(declared, need_of(declared), ("GPU-bbbb",), MACHINE)
    assert granted.held["GPU-bbbb"] == 14 * GIB
    assert granted.args == ("--gpu-memory-utilization", "0.17"), "rounded down"


def test_a_share_that_the_user_gave_is_bytes_and_is_left_alone() -> None:
    given = facts(
        "vllm", "--gpu-memory-utilization", "0.5", "-tp", "2", costs=Costs(memory_bytes={"GPU-aaaa": 13 * GIB})
    )
    need = need_of(given)
    granted = grant(given, need, ("GPU-aaaa", "GPU-bbbb"), MACHINE)
    assert granted.args == ()
    assert granted.held == {"GPU-aaaa": 13 * GIB, "GPU-bbbb": 40 * GIB, HOST: 6 * GIB}
    assert granted.env == {"CUDA_VISIBLE_DEVICES": "GPU-aaaa,GPU-bbbb"}
    unknown = facts("vllm", model=None)
    assert grant(unknown, need_of(unknown), ("GPU-bbbb",), MACHINE).args == ()


def test_starts_do_not_creep() -> None:
    """What was measured is what it was told, and a little: the next start is told the same."""
    first = facts("vllm", "--max-model-len", "8192")
    told = grant(first, need_of(first), ("GPU-bbbb",), MACHINE)
    again = facts(
        "vllm", "--max-model-len", "8192", costs=Costs(memory_bytes={"GPU-bbbb": told.held["GPU-bbbb"] + GIB})
    )
    assert grant(again, need_of(again), ("GPU-bbbb",), MACHINE).args == told.args


def test_vllm_on_a_cpu_has_a_cache_of_whole_gib() -> None:
    plain = facts("vllm", "--max-model-len", "9000", on="host")
    need = need_of(plain)
    assert need.bytes == 16 * GIB + 2 * GIB + 2 * GIB
    assert grant(plain, need, (HOST,), MACHINE).env == {"VLLM_CPU_KVCACHE_SPACE": "2"}
    set_by_user = facts("vllm", on="host", env={"VLLM_CPU_KVCACHE_SPACE": "5"})
    assert need_of(set_by_user).bytes == 16 * GIB + 5 * GIB + 2 * GIB
    assert grant(set_by_user, need_of(set_by_user), (HOST,), MACHINE).env == {}
    declared = facts("vllm", on="host", memory_bytes=22 * GIB)
    assert grant(declared, need_of(declared), (HOST,), MACHINE).env == {"VLLM_CPU_KVCACHE_SPACE": "4"}
    share = facts("vllm", "--gpu-memory-utilization", "0.25", on="host")
    assert need_of(share).bytes == 16 * GIB
    assert grant(share, need_of(share), (HOST,), MACHINE).env == {}


def test_llama_cpp_uses_as_many_gpus_as_it_needs() -> None:
    assert need_of(facts("llama_cpp", "-c", "8192")).count == 1
    large = shape_of_config(LLAMA_8B, 100 * GIB)
    found = need_of(facts("llama_cpp", "-c", "8192", model=large))
    assert (found.count, found.on(MACHINE[1])) == (2, (101 * GIB) // 2 + 768 * 1024**2)
    cpu = need_of(facts("llama_cpp", "-ngl", "0", "-c", "8192"))
    assert (cpu.count, cpu.bytes) == (0, 17 * GIB + 256 * 1024**2)
    part = need_of(facts("llama_cpp", "-ngl", "16", "-c", "8192"))
    assert part.host == GIB + 17 * GIB // 2


def test_what_a_return_costs() -> None:
    assert cost_of_return(Costs(), 1.0) == 30.0
    assert cost_of_return(Costs(start_seconds=80), 0.5) == 40.0
    assert cost_of_return(Costs(start_seconds=80, sleep_seconds=2, wake_seconds=4), 1.0) == 6.0
    assert cost_of_return(Costs(start_seconds=5, sleep_seconds=2, wake_seconds=4), 2.0) == 10.0
    assert cost_of_return(Costs(start_seconds=80, sleep_seconds=2), 1.0) == 80.0
    assert cost_of_return(Costs(start_seconds=80), 0.0) > 0
