import pytest

from garrison.models.adapters.fit import BaseShapes, check_against_base, read_base_shapes
from garrison.models.adapters.inspect import inspect_adapter

L = "base_model.model.model.layers.0"


def check(make, path, base, shapes=None, **config):
    return check_against_base(inspect_adapter(make.adapter(path, shapes=shapes, **config)), base)


def pair(module, inputs, outputs, rank=4):
    return {f"{module}.lora_A.weight": (rank, inputs), f"{module}.lora_B.weight": (outputs, rank)}


def test_an_adapter_of_the_right_shape_fits(tmp_path, make):
    base = read_base_shapes(make.model(tmp_path / "m", shards=2))
    assert check(make, tmp_path / "a", base) == []


def test_an_adapter_of_the_wrong_shape_is_told_by_the_tensors(tmp_path, make):
    base = read_base_shapes(make.model(tmp_path / "m"))
    problems = check(make, tmp_path / "a", base, shapes=make.lora_shapes(hidden=32))
    assert problems[0] == "model.layers.0.self_attn.q_proj has 32 inputs, and the base model has 16"
    assert len(problems) == 8


MODULES = {
    "q_proj": ("self_attn.q_proj", 16, 24),
    "k_proj": ("self_attn.k_proj", 16, 12),
    "v_proj": ("self_attn.v_proj", 16, 12),
    "o_proj": ("self_attn.o_proj", 24, 16),
    "gate_proj": ("mlp.gate_proj", 16, 40),
    "up_proj": ("mlp.up_proj", 16, 40),
    "down_proj": ("mlp.down_proj", 40, 16),
}
CONFIG = {
    "hidden_size": 16,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "num_hidden_layers": 2,
    "vocab_size": 64,
}


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "text_config"])
@pytest.mark.parametrize(("module", "inputs", "outputs"), MODULES.values(), ids=MODULES)
def test_without_tensors_the_config_tells(tmp_path, make, module, inputs, outputs, nested):
    base = BaseShapes({"text_config": CONFIG} if nested else CONFIG, {})
    target = [module.rpartition(".")[2]]
    good = pair(f"{L}.{module}", inputs, outputs)
    assert check(make, tmp_path / "good", base, good, target_modules=target) == []
    bad = pair(f"{L}.{module}", inputs + 1, outputs + 1)
    assert len(check(make, tmp_path / "bad", base, bad, target_modules=target)) == 2


def test_head_dim_and_key_value_heads_have_defaults(tmp_path, make):
    base = BaseShapes({"hidden_size": 16, "num_attention_heads": 4}, {})
    assert check(make, tmp_path / "a", base, pair(f"{L}.self_attn.k_proj", 16, 16), target_modules=["k_proj"]) == []


def test_a_layer_the_base_has_not(tmp_path, make):
    shapes = pair("base_model.model.model.layers.7.self_attn.q_proj", 16, 16)
    (problem,) = check(make, tmp_path / "a", BaseShapes(CONFIG, {}), shapes, target_modules=["q_proj"])
    assert "layer 7, and the base model has 2 layers" in problem


def test_layers_are_found_under_another_prefix(tmp_path, make):
    base = BaseShapes({}, {"language_model.model.layers.0.self_attn.q_proj.weight": (16, 8)})
    shapes = pair("base_model.model.model.language_model.layers.0.self_attn.q_proj", 16, 16)
    assert len(check(make, tmp_path / "a", base, shapes, target_modules=["q_proj"])) == 1


def test_transposed_weights_are_read_so(tmp_path, make):
    base = BaseShapes({}, {"transformer.h.0.attn.c_attn.weight": (16, 48)})
    shapes = pair("base_model.model.transformer.h.0.attn.c_attn", 16, 48)
    assert check(make, tmp_path / "a", base, shapes, target_modules=["c_attn"], fan_in_fan_out=True) == []


def test_embeddings(tmp_path, make):
    base = read_base_shapes(make.model(tmp_path / "m"))
    name = "base_model.model.model.embed_tokens"
    shapes = {f"{name}.lora_embedding_A": (4, 64), f"{name}.lora_embedding_B": (16, 4)}
    assert check(make, tmp_path / "a", base, shapes, target_modules=["embed_tokens"]) == []


def test_a_packed_base_is_judged_by_its_config(tmp_path, make):
    path = make.model(tmp_path / "m")
    make.safetensors(path / "model.safetensors", {"model.layers.0.self_attn.q_proj.weight": (2, 2)}, dtype="U8", size=1)
    base = read_base_shapes(path)
    assert base.shapes == {}
    assert check(make, tmp_path / "a", base) == []


def test_unknown_modules_and_pickles_cannot_be_told(tmp_path, make):
    assert check(make, tmp_path / "a", BaseShapes({}, {}), pair(f"{L}.mixer", 3, 5), target_modules=["mixer"]) == []


def test_a_layer_with_a_number_that_python_does_not_read(tmp_path, make):
    name = f"base_model.model.model.layers.{'9' * 5000}.self_attn.q_proj"
    base = BaseShapes({"num_hidden_layers": 2}, {})
    assert check(make, tmp_path / "a", base, pair(name, 16, 16), target_modules="all-linear") == []
