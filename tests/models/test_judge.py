"""Which engine serves which adapter, and what is said to do with the others."""

import pytest

from garrison.base.errors import ModelInvalidError
from garrison.models.adapters.inspect import inspect_adapter
from garrison.models.adapters.judge import inspect_for, refusal

FORMATS = {
    "peft": lambda make, path: make.adapter(path / "a"),
    "mlx": lambda make, path: make.mlx_adapter(path / "a"),
    "gguf": lambda make, path: make.gguf_adapter(path / "a.gguf"),
    "gguf in a directory": lambda make, path: make.gguf_adapter(path / "a" / "a-F16-LoRA.gguf").parent,
}
READS = {"vllm": "peft", "sim": "peft", "mlx_lm": "mlx", "llama_cpp": "gguf"}


@pytest.mark.parametrize("engine", READS)
@pytest.mark.parametrize("kind", FORMATS)
def test_each_engine_reads_its_own_format(tmp_path, make, engine, kind):
    path = FORMATS[kind](make, tmp_path)
    if READS[engine] == kind.partition(" ")[0]:
        assert inspect_for(engine, path).format == READS[engine]
        return
    with pytest.raises(ModelInvalidError) as caught:
        inspect_for(engine, path)
    assert f" is a{'n MLX' if kind == 'mlx' else ' ' + kind[:4].upper()} adapter" in caught.value.message
    assert "--engine" in caught.value.hint
    assert refusal(inspect_adapter(path), engine).hint == caught.value.hint


def test_a_directory_of_several_formats_suits_each_of_their_engines(tmp_path, make):
    path = make.adapter(tmp_path / "a")
    file = make.gguf_adapter(path / "a-F16-LoRA.gguf")
    make.safetensors(path / "adapters.safetensors", {"x.lora_a": (2, 2)})
    assert inspect_for("vllm", path).weights.name == "adapter_model.safetensors"
    assert inspect_for("llama_cpp", path).path == file
    assert inspect_adapter(path).format == "peft"


@pytest.mark.parametrize("engine", READS)
def test_a_training_run_is_named_as_one_for_every_engine(tmp_path, make, engine):
    make.adapter(tmp_path / "out" / "checkpoint-5")
    with pytest.raises(ModelInvalidError, match="has 1 below it: checkpoint-5"):
        inspect_for(engine, tmp_path / "out")


def test_two_gguf_adapters_in_a_directory_ask_for_a_name(tmp_path, make):
    for name in ("a.gguf", "b.gguf"):
        make.gguf_adapter(tmp_path / name)
    with pytest.raises(ModelInvalidError, match=r"holds 2 GGUF adapters \(a.gguf, b.gguf\)"):
        inspect_for("llama_cpp", tmp_path)


def test_a_model_beside_an_adapter_is_not_taken_for_one(tmp_path, make):
    make.gguf(tmp_path / "merged-q4.gguf")
    file = make.gguf_adapter(tmp_path / "lora.gguf")
    assert inspect_for("llama_cpp", tmp_path).path == file


def test_of_another_engine_nothing_is_known(tmp_path, make):
    assert inspect_for("custom", make.mlx_adapter(tmp_path / "a")).format == "mlx"
    assert refusal(inspect_adapter(tmp_path / "a"), "custom") is None


REFUSED = {
    "DoRA": ({"use_dora": True}, "use_dora", "merge_and_unload"),
    "modules_to_save": ({"modules_to_save": ["lm_head"]}, "modules_to_save: lm_head", "merge_and_unload"),
    "bias": ({"bias": "lora_only"}, "bias: lora_only", "merge_and_unload"),
    "PiSSA": ({"init_lora_weights": "pissa"}, "pissa", "path_initial_model_for_weight_conversion"),
    "OLoRA": ({"init_lora_weights": "olora"}, "olora", "path_initial_model_for_weight_conversion"),
    "PiSSA and a bias": ({"init_lora_weights": "pissa", "bias": "all"}, "bias: all", "merge_and_unload"),
    "replicated layers": ({"layer_replication": [[0, 1]]}, "layer_replication", "plain LoRA"),
}


@pytest.mark.parametrize("engine", ["vllm", "sim"])
@pytest.mark.parametrize(("config", "why", "way_out"), REFUSED.values(), ids=REFUSED)
def test_what_vllm_does_not_load_is_refused_with_what_to_do(tmp_path, make, engine, config, why, way_out):
    with pytest.raises(ModelInvalidError) as caught:
        inspect_for(engine, make.adapter(tmp_path / "a", **config))
    assert f"does not load {tmp_path / 'a'}" in caught.value.message
    assert why in caught.value.message
    assert way_out in caught.value.hint


HALF = "base_model.model.model.layers.0.mlp.experts"


def test_one_parameter_of_fused_experts_is_not_enough_for_vllm(tmp_path, make):
    shapes = {f"{HALF}.lora_A.weight": (8, 32), f"{HALF}.lora_B.weight": (16, 8)}
    path = make.adapter(tmp_path / "a", shapes=shapes, target_modules=[], target_parameters=["mlp.experts.down_proj"])
    with pytest.raises(ModelInvalidError, match="only one of gate_up_proj and down_proj"):
        inspect_for("vllm", path)


@pytest.mark.parametrize("suffix", ["bin", "pt"])
def test_a_pickle_is_read_by_vllm(tmp_path, make, suffix):
    path = make.adapter(tmp_path / "a")
    (path / "adapter_model.safetensors").unlink()
    (path / f"adapter_model.{suffix}").write_bytes(b"\x80\x02pickle")
    assert inspect_for("vllm", path).weights.suffix == f".{suffix}"


def test_safetensors_come_before_pickles(tmp_path, make):
    path = make.adapter(tmp_path / "a")
    for name in ("adapter_model.pt", "adapter_model.bin"):
        (path / name).write_bytes(b"\x80\x02pickle")
    assert inspect_for("vllm", path).weights.suffix == ".safetensors"


def test_no_adapter_at_all(tmp_path):
    for engine in READS:
        with pytest.raises(ModelInvalidError):
            inspect_for(engine, tmp_path)
