import pytest

from garrison.models.adapters.base_modules import BaseModules
from garrison.models.adapters.fit import Base, check_against_base, read_base
from garrison.models.adapters.inspect import inspect_adapter

L = "base_model.model.model.layers.0"


def fit(make, path, base, shapes=None, **config):
    return check_against_base(inspect_adapter(make.adapter(path, shapes=shapes, **config)), base)


def check(make, path, base, shapes=None, **config):
    return list(fit(make, path, base, shapes, **config).problems)


def base_of(config, tensors=()):
    return Base(config, BaseModules.of(dict(tensors)))


def pair(module, inputs, outputs, rank=4):
    return {f"{module}.lora_A.weight": (rank, inputs), f"{module}.lora_B.weight": (outputs, rank)}


def test_an_adapter_of_the_right_shape_fits(tmp_path, make):
    base = read_base(make.model(tmp_path / "m", shards=2))
    assert check(make, tmp_path / "a", base) == []


def test_an_adapter_of_the_wrong_shape_is_told_by_the_tensors(tmp_path, make):
    base = read_base(make.model(tmp_path / "m"))
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
    "model_type": "llama",
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
    base = base_of({"text_config": CONFIG} if nested else CONFIG)
    target = [module.rpartition(".")[2]]
    good = pair(f"{L}.{module}", inputs, outputs)
    assert check(make, tmp_path / "good", base, good, target_modules=target) == []
    bad = pair(f"{L}.{module}", inputs + 1, outputs + 1)
    assert len(check(make, tmp_path / "bad", base, bad, target_modules=target)) == 2


def test_head_dim_and_key_value_heads_have_defaults(tmp_path, make):
    base = base_of({"model_type": "llama", "hidden_size": 16, "num_attention_heads": 4})
    assert check(make, tmp_path / "a", base, pair(f"{L}.self_attn.k_proj", 16, 16), target_modules=["k_proj"]) == []


def test_a_layer_the_base_has_not(tmp_path, make):
    shapes = pair("base_model.model.model.layers.7.self_attn.q_proj", 16, 16)
    (problem,) = check(make, tmp_path / "a", base_of(CONFIG), shapes, target_modules=["q_proj"])
    assert "layer 7, and the base model has 2 layers" in problem


def test_layers_are_found_under_another_prefix(tmp_path, make):
    base = base_of({}, {"language_model.model.layers.0.self_attn.q_proj.weight": (16, 8)})
    shapes = pair("base_model.model.model.language_model.layers.0.self_attn.q_proj", 16, 16)
    assert len(check(make, tmp_path / "a", base, shapes, target_modules=["q_proj"])) == 1


@pytest.mark.parametrize("place", ["model.language_model.layers", "language_model.model.layers"])
def test_vllm_passes_over_names_of_a_multimodal_model_on_one_of_text(tmp_path, make, place):
    """It answers 200 to the adapter, and serves the base alone under its name."""
    shapes = pair(f"base_model.model.{place}.0.self_attn.q_proj", 16, 24)
    text = {"model.layers.0.self_attn.q_proj.weight": (24, 16)}
    (problem,) = check(make, tmp_path / "a", base_of(CONFIG, text), shapes, target_modules=["q_proj"])
    assert f"{place}.0.self_attn.q_proj is a module of a multimodal model" in problem
    # Others have names that vLLM translates.
    for config in ({"model_type": "qwen2_5_vl"}, {"model_type": "qwen3_5_text"}, CONFIG | {"text_config": {}}, {}):
        assert check(make, tmp_path / "a", base_of(config, text), shapes, target_modules=["q_proj"]) == []


def test_transposed_weights_are_read_so(tmp_path, make):
    base = base_of({}, {"transformer.h.0.attn.c_attn.weight": (16, 48)})
    shapes = pair("base_model.model.transformer.h.0.attn.c_attn", 16, 48)
    assert check(make, tmp_path / "a", base, shapes, target_modules=["c_attn"], fan_in_fan_out=True) == []


def test_embeddings(tmp_path, make):
    base = read_base(make.model(tmp_path / "m"))
    name = "base_model.model.model.embed_tokens"
    shapes = {f"{name}.lora_embedding_A": (4, 64), f"{name}.lora_embedding_B": (16, 4)}
    assert check(make, tmp_path / "a", base, shapes, target_modules=["embed_tokens"]) == []


def test_a_packed_base_proves_nothing(tmp_path, make):
    path = make.model(tmp_path / "m")
    packed = {f"model.layers.{layer}.self_attn.{module}.weight": (2, 2) for layer in (0, 1) for module in "qv"}
    packed = {name.replace(".q.", ".q_proj.").replace(".v.", ".v_proj."): shape for name, shape in packed.items()}
    make.safetensors(path / "model.safetensors", packed, dtype="U8", size=1)
    found = fit(make, tmp_path / "a", read_base(path))
    assert (found.problems, found.untold) == ((), ("whether 4 of 4 modules fit cannot be told for packed weights",))


def test_a_layer_that_a_packed_base_has_not_is_told(tmp_path, make):
    base = base_of({"quantization_config": {"quant_method": "awq"}}, {"model.layers.0.self_attn.q_proj.qweight": None})
    shapes = pair("base_model.model.model.layers.1.self_attn.q_proj", 16, 16)
    (problem,) = check(make, tmp_path / "a", base, shapes, target_modules=["q_proj"])
    assert "layer 1, and the base model has 1 layer there" in problem


@pytest.mark.parametrize("config", [{}, {"model_type": "qwen3_next"}], ids=["unknown", "another architecture"])
def test_pickles_of_other_architectures_prove_nothing(tmp_path, make, config):
    shapes = pair(f"{L}.self_attn.q_proj", 3, 5)
    found = fit(
        make, tmp_path / "a", base_of(CONFIG | {"model_type": None} | config), shapes, target_modules=["q_proj"]
    )
    assert found.problems == ()
    assert "cannot be told: its tensors cannot be read" in found.untold[0]


def test_packed_pickles_prove_nothing(tmp_path, make):
    base = base_of(CONFIG | {"quantization_config": {"quant_method": "gptq"}})
    assert check(make, tmp_path / "a", base, pair(f"{L}.self_attn.q_proj", 3, 5), target_modules=["q_proj"]) == []


def test_a_module_of_another_name_cannot_be_told(tmp_path, make):
    base = base_of({}, {"model.layers.0.self_attn.qkv_proj.weight": (48, 16)})
    found = fit(make, tmp_path / "a", base, pair(f"{L}.self_attn.q_proj", 16, 16), target_modules=["q_proj"])
    assert found.problems == ()
    assert "no such names, for example model.layers.0.self_attn.q_proj" in found.untold[0]


def test_a_layer_with_a_number_that_python_does_not_read(tmp_path, make):
    name = f"base_model.model.model.layers.{'9' * 5000}.self_attn.q_proj"
    assert check(make, tmp_path / "a", base_of(CONFIG), pair(name, 16, 24), target_modules="all-linear") == []


@pytest.mark.parametrize("inputs", [1, 8], ids=["grouped", "plain"])
def test_of_a_convolution_the_outputs_are_compared(tmp_path, make, inputs):
    base = base_of({}, {"model.layers.0.conv1d.weight": (8, inputs, 4)})
    good = {f"{L}.conv1d.lora_A.weight": (4, 8, 4), f"{L}.conv1d.lora_B.weight": (8, 4, 1)}
    assert check(make, tmp_path / "good", base, good, target_modules=["conv1d"]) == []
    bad = good | {f"{L}.conv1d.lora_B.weight": (9, 4, 1)}
    assert len(check(make, tmp_path / "bad", base, bad, target_modules=["conv1d"])) == 1
