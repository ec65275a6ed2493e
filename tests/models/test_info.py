import json

import pytest

from garrison.base.errors import ModelInvalidError
from garrison.models.info import context_length, model_info


def test_a_llama(tmp_path, make):
    info = model_info(make.model(tmp_path / "m", shards=2))
    assert (info.architecture, info.model_type, info.dtype) == ("LlamaForCausalLM", "llama", "bfloat16")
    assert (info.quantization, info.context_length, info.rope_scaling, info.vocabulary) == (None, 2048, None, 64)
    assert info.parameters == 2 * 64 * 16 + 2 * (16 * 16 + 8 * 16)
    assert info.format == "safetensors"


def test_the_type_of_the_weights_stands_in_for_a_missing_one(tmp_path, make):
    config = {key: value for key, value in make.config.items() if key != "torch_dtype"}
    assert model_info(make.model(tmp_path / "m", config=config)).dtype == "bfloat16"


def test_a_model_that_also_sees(tmp_path, make):
    config = {"architectures": ["X"], "model_type": "x", "text_config": make.config}
    info = model_info(make.model(tmp_path / "m", config=config))
    assert (info.context_length, info.vocabulary, info.dtype) == (2048, 64, "bfloat16")


def test_a_gguf(tmp_path, make):
    info = model_info(make.gguf(tmp_path / "m.gguf", tensors=2))
    assert (info.architecture, info.quantization, info.context_length) == ("llama", "Q4_K_M", 2048)
    assert (info.vocabulary, info.parameters, info.format) == (3, 64, "gguf")


def test_a_broken_model(tmp_path):
    with pytest.raises(ModelInvalidError):
        model_info(tmp_path)


# The arithmetic of vLLM 0.32: what it takes for --max-model-len when nobody says.
CONTEXTS = {
    "plain": ({"max_position_embeddings": 4096}, 4096),
    "gpt2": ({"n_positions": 1024}, 1024),
    "none": ({}, None),
    "linear": ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2.0}}, 8192),
    "yarn": (
        {
            "max_position_embeddings": 40960,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        },
        40960,
    ),
    "llama3": ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072),
    "longrope": ({"max_position_embeddings": 131072, "rope_scaling": {"type": "longrope", "factor": 32.0}}, 131072),
    "rope_parameters": (
        {"max_position_embeddings": 100, "rope_parameters": {"rope_type": "dynamic", "factor": 3}},
        300,
    ),
    "gemma3": (
        {"model_type": "gemma3", "max_position_embeddings": 100, "rope_scaling": {"rope_type": "linear", "factor": 8}},
        100,
    ),
    "nonsense": ({"max_position_embeddings": "x", "rope_scaling": [1]}, None),
}


@pytest.mark.parametrize(("config", "tokens"), CONTEXTS.values(), ids=CONTEXTS)
def test_context_length(config, tokens):
    assert context_length(config) == tokens


BITSANDBYTES = {"quant_method": "bitsandbytes", "load_in_4bit": True}
QUANTIZED = {
    "awq": ({"quant_method": "awq", "bits": 4}, "q.qweight", "I32", 4, (8, 2), "awq-4bit", 8 * 2 * 8),
    "gptq 8": ({"quant_method": "gptq", "bits": 8}, "q.qweight", "I32", 4, (8, 2), "gptq", 8 * 2 * 4),
    "bitsandbytes": (BITSANDBYTES, "q.weight", "U8", 1, (8, 1), "bitsandbytes-4bit", 16),
    "fp8": ({"quant_method": "fp8"}, "q.weight", "F8_E4M3", 1, (8, 4), "fp8", 32),
}


@pytest.mark.parametrize(
    ("quant", "name", "dtype", "size", "shape", "word", "count"), QUANTIZED.values(), ids=QUANTIZED
)
def test_packed_weights_count_for_what_they_hold(tmp_path, make, quant, name, dtype, size, shape, word, count):
    path = make.model(tmp_path / "m", config=make.config | {"quantization_config": quant})
    make.safetensors(path / "model.safetensors", {name: shape}, dtype=dtype, size=size)
    info = model_info(path)
    assert (info.quantization, info.parameters) == (word, count)


def test_the_parts_beside_a_packed_weight_do_not_count(tmp_path, make):
    path = make.model(tmp_path / "m", config=make.config | {"quantization_config": {"quant_method": "awq", "bits": 4}})
    make.safetensors(path / "model.safetensors", {"q.scales": (4, 4), "q.qzeros": (4, 4), "norm.weight": (5,)})
    assert model_info(path).parameters == 5


def test_mlx_names_its_quantization_otherwise(tmp_path, make):
    config = make.config | {"quantization": {"bits": 4, "group_size": 64}}
    assert model_info(make.model(tmp_path / "m", config=config)).quantization == "mlx-4bit"


def test_mistrals_own_layout(tmp_path, make):
    params = {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 32, "vocab_size": 64, "max_seq_len": 512}
    (tmp_path / "params.json").write_text(json.dumps(params))
    (tmp_path / "tekken.json").write_text("{}")
    make.safetensors(tmp_path / "consolidated.safetensors", {"output.weight": (64, 16)})
    info = model_info(tmp_path)
    assert (info.model_type, info.context_length, info.vocabulary) == ("mistral", 512, 64)
    assert (info.dtype, info.parameters) == ("bfloat16", 64 * 16)
