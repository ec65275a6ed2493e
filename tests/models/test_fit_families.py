"""Adapters against the bases that people use. Names and relations of shapes are those of the public checkpoints, the
sizes are tiny: hidden 16, vision 12, audio 10."""

import pytest

from garrison.models.adapters.adapter import LoraModule
from garrison.models.adapters.base_modules import BaseModules, module_path
from garrison.models.adapters.fit import Base, check_modules

Q = "self_attn.q_proj"
LLAMA = {
    f"model.layers.{n}.{module}.weight": shape
    for n in range(2)
    for module, shape in {
        Q: (16, 16),
        "self_attn.k_proj": (8, 16),
        "self_attn.o_proj": (16, 16),
        "mlp.up_proj": (32, 16),
        "mlp.down_proj": (16, 32),
    }.items()
} | {"model.embed_tokens.weight": (64, 16), "lm_head.weight": (64, 16)}


def nested(prefix, tensors=LLAMA):
    """Tensors of a language model, as a multimodal checkpoint calls them: `model.` becomes `prefix`."""
    return {name.replace("model.", prefix, 1): shape for name, shape in tensors.items()}


def layers(place, count, modules):
    return {f"{place}.{n}.{module}.weight": shape for n in range(count) for module, shape in modules.items()}


def packed(tensors, *suffixes):
    """The same tensors where each weight is packed under names that end in `suffixes`."""
    return {name.replace(".weight", f".{suffix}"): None for name in tensors for suffix in suffixes}


SIGLIP = layers(
    "vision_tower.vision_model.encoder.layers", 3, {Q: (12, 12), "self_attn.out_proj": (12, 12), "mlp.fc1": (20, 12)}
)
QWEN_VISION = layers("visual.blocks", 4, {"attn.qkv": (36, 12), "attn.proj": (12, 12), "mlp.gate_proj": (20, 12)})
GEMMA3 = nested("language_model.model.") | SIGLIP | {"multi_modal_projector.mm_input_projection_weight": (12, 16)}
QWEN25_VL = LLAMA | QWEN_VISION | {"visual.merger.mlp.0.weight": (48, 48), "visual.merger.mlp.2.weight": (16, 48)}
LLAMA4 = (
    nested("language_model.model.")
    | layers("vision_model.model.layers", 3, {Q: (12, 12), "mlp.fc1": (20, 12)})
    | {"language_model.model.layers.0.feed_forward.experts.gate_up_proj": (2, 16, 64)}
)
MLLAMA = (
    nested("language_model.model.")
    | layers("vision_model.transformer.layers", 3, {Q: (12, 12)})
    | layers("vision_model.global_transformer.layers", 5, {Q: (12, 12)})
)
GEMMA3N = (
    nested("model.language_model.")
    | layers("model.audio_tower.conformer", 3, {"attention.attn.q_proj": (10, 10)})
    | {"model.vision_tower.timm_model.blocks.3.17.attn.query.proj.weight": (12, 12, 1, 1)}
)
QWEN3_NEXT = {
    "model.layers.0.linear_attn.in_proj_qkvz.weight": (48, 16),
    "model.layers.1.self_attn.q_proj.weight": (32, 16),  # queries and their gate
    "mtp.layers.0.self_attn.q_proj.weight": (32, 16),
    **layers("model.layers.1.mlp.experts", 4, {"up_proj": (8, 16)}),
}
DEEPSEEK = layers(
    "model.layers",
    2,
    {
        "self_attn.q_a_proj": (6, 16),
        "self_attn.q_b_proj": (48, 6),
        "self_attn.kv_a_proj_with_mqa": (12, 16),
        "self_attn.o_proj": (16, 32),
    },
) | layers("model.layers.1.mlp.experts", 4, {"up_proj": (8, 16)})
GPT_OSS = {
    "model.layers.0.self_attn.q_proj.weight": (32, 16),
    "model.layers.0.mlp.experts.gate_up_proj": (2, 16, 64),
    "model.layers.0.mlp.experts.down_proj": (2, 32, 16),
    "model.layers.0.mlp.router.weight": (2, 16),
}
MISTRAL_NATIVE = (
    layers("layers", 2, {"attention.wq": (16, 16), "attention.wk": (8, 16), "feed_forward.w2": (16, 32)})
    | layers("vision_encoder.transformer.layers", 3, {"attention.wq": (12, 12)})
    | {"tok_embeddings.weight": (64, 16), "output.weight": (64, 16)}
)
WHISPER = layers("model.encoder.layers", 4, {Q: (16, 16), "fc1": (64, 16)}) | layers(
    "model.decoder.layers", 2, {Q: (16, 16), "encoder_attn.q_proj": (16, 16)}
)
OMNI = (
    nested("thinker.model.")
    | nested("talker.model.", layers("model.layers", 3, {Q: (10, 10)}))
    | layers("thinker.audio_tower.layers", 5, {Q: (10, 10)})
    | layers("thinker.visual.blocks", 4, {"attn.qkv": (36, 12)})
)
PIXTRAL = nested("language_model.model.") | layers("vision_tower.transformer.layers", 3, {"attention.q_proj": (12, 12)})
INTERNVL = nested("language_model.model.") | layers("vision_model.encoder.layers", 3, {"attn.qkv": (36, 12)})
SMOLVLM = nested("model.text_model.") | layers("model.vision_model.encoder.layers", 3, {Q: (12, 12)})

QWEN3_MOE = layers("model.layers.1.mlp.experts", 4, {"gate_proj": (10, 16), "up_proj": (10, 16), "down_proj": (16, 10)})
MIXTRAL = layers("model.layers.0.block_sparse_moe.experts", 2, {"w1": (10, 16), "w3": (10, 16), "w2": (16, 10)})
JAMBA = {"model.layers.0.mamba.in_proj.weight": (64, 16), "model.layers.1.self_attn.q_proj.weight": (16, 16)}
NEMOTRON_H = {"backbone.layers.0.mixer.in_proj.weight": (70, 16), "backbone.layers.1.mixer.q_proj.weight": (16, 16)}
GRANITE = layers("model.layers", 2, {"shared_mlp.input_linear": (64, 16), "mamba.in_proj": (70, 16)})
PHI4_MM = {
    "model.layers.1.self_attn.qkv_proj.base_layer.weight": (32, 16),
    **layers("model.embed_tokens_extend.audio_embed.encoder.encoders", 3, {"self_attn.linear_q": (10, 10)}),
}
MINICPM_V = (
    nested("llm.model.") | layers("vpm.encoder.layers", 3, {Q: (12, 12)}) | {"resampler.kv_proj.weight": (16, 12)}
)
VOXTRAL = nested("language_model.model.") | layers("audio_tower.layers", 3, {Q: (10, 10)})
MODERNBERT = layers("layers", 2, {"attn.Wqkv": (48, 16)})
GLM_MOE = layers("model.layers", 2, {"mlp.shared_experts.up_proj": (8, 16), "self_attn.q_proj": (16, 16)})

FITS = {
    "Llama": (LLAMA, f"model.layers.1.{Q}", 16, 16),
    "Llama, the head": (LLAMA, "lm_head", 16, 64),
    "Llama 4, text": (LLAMA4, f"language_model.model.layers.1.{Q}", 16, 16),
    "Llama 4, vision": (LLAMA4, f"vision_model.model.layers.2.{Q}", 12, 12),
    "Llama 4, vision, renamed": (LLAMA4, f"model.vision_model.layers.2.{Q}", 12, 12),
    "Llama 3.2 Vision, global": (MLLAMA, f"model.vision_model.global_transformer.layers.4.{Q}", 12, 12),
    "Gemma 3, text": (GEMMA3, f"model.language_model.layers.1.{Q}", 16, 16),
    "Gemma 3, text alone": (GEMMA3, f"model.layers.1.{Q}", 16, 16),
    "Gemma 3, vision": (GEMMA3, f"model.vision_tower.vision_model.encoder.layers.2.{Q}", 12, 12),
    "Gemma 3, vision, renamed": (GEMMA3, f"model.vision_tower.encoder.layers.2.{Q}", 12, 12),
    "Gemma 3n, audio": (GEMMA3N, "model.audio_tower.conformer.2.attention.attn.q_proj", 10, 10),
    "Qwen2.5-VL, text": (QWEN25_VL, f"model.language_model.layers.1.{Q}", 16, 16),
    "Qwen2.5-VL, vision": (QWEN25_VL, "model.visual.blocks.3.attn.qkv", 12, 36),
    "Qwen2.5-VL, merger": (QWEN25_VL, "model.visual.merger.mlp.2", 48, 16),
    "Qwen Omni, audio": (OMNI, f"thinker.audio_tower.layers.4.{Q}", 10, 10),
    "Qwen Omni, talker": (OMNI, f"talker.model.layers.2.{Q}", 10, 10),
    "gated attention": (QWEN3_NEXT, f"model.layers.1.{Q}", 16, 32),
    "MoE": (QWEN3_NEXT, "model.layers.1.mlp.experts.3.up_proj", 16, 8),
    "DeepSeek, q_a": (DEEPSEEK, "model.layers.0.self_attn.q_a_proj", 16, 6),
    "DeepSeek, o": (DEEPSEEK, "model.layers.1.self_attn.o_proj", 32, 16),
    "gpt-oss, q": (GPT_OSS, f"model.layers.0.{Q}", 16, 32),
    "gpt-oss, gate_up_proj": (GPT_OSS, "model.layers.0.mlp.experts.base_layer", 16, 64),
    "gpt-oss, down_proj": (GPT_OSS, "model.layers.0.mlp.experts", 32, 16),
    "experts with outputs first": (
        {"model.layers.0.mlp.experts.gate_up_proj": (4, 64, 16)}, "model.layers.0.mlp.experts.base_layer", 16, 64,
    ),
    "experts in one tensor, of a checkpoint with a module for each": (
        QWEN3_MOE, "model.layers.1.mlp.experts.base_layer", 16, 20
    ),
    "the second of them": (QWEN3_MOE, "model.layers.1.mlp.experts", 10, 16),
    "Mixtral's": (MIXTRAL, "model.layers.0.block_sparse_moe.experts.base_layer", 16, 20),
    "Jamba, attention": (JAMBA, f"model.layers.1.{Q}", 16, 16),
    "Jamba, mamba": (JAMBA, "model.layers.0.mamba.in_proj", 16, 64),
    "Nemotron-H": (NEMOTRON_H, "model.layers.1.mixer.q_proj", 16, 16),
    "Granite hybrid, shared": (GRANITE, "model.layers.0.shared_mlp.input_linear", 16, 64),
    "Phi-4 multimodal, speech": (PHI4_MM, "model.embed_tokens_extend.audio_embed.encoder.encoders.2.self_attn.linear_q",
                                 10, 10),
    "Phi-4 multimodal, fused": (PHI4_MM, "model.layers.1.self_attn.qkv_proj.base_layer", 16, 32),
    "MiniCPM-V, text": (MINICPM_V, f"llm.model.layers.1.{Q}", 16, 16),
    "MiniCPM-V, resampler": (MINICPM_V, "resampler.kv_proj", 12, 16),
    "Voxtral, audio": (VOXTRAL, f"audio_tower.layers.2.{Q}", 10, 10),
    "ModernBERT": (MODERNBERT, "model.layers.1.attn.Wqkv", 16, 48),
    "GLM-4.5, shared expert": (GLM_MOE, "model.layers.1.mlp.shared_experts.up_proj", 16, 8),
    "Mistral native": (MISTRAL_NATIVE, "model.layers.1.self_attn.k_proj", 16, 8),
    "Mistral native, mlp": (MISTRAL_NATIVE, "model.layers.1.mlp.down_proj", 32, 16),
    "Mistral native, the head": (MISTRAL_NATIVE, "lm_head", 16, 64),
    "Mistral Small, vision": (PIXTRAL, "model.vision_tower.transformer.layers.2.attention.q_proj", 12, 12),
    "Whisper, encoder": (WHISPER, f"model.encoder.layers.3.{Q}", 16, 16),
    "Whisper, cross attention": (WHISPER, "model.decoder.layers.1.encoder_attn.q_proj", 16, 16),
    "InternVL, vision": (INTERNVL, "vision_model.encoder.layers.2.attn.qkv", 12, 36),
    "SmolVLM, text": (SMOLVLM, f"model.text_model.layers.1.{Q}", 16, 16),
    "SmolVLM, vision": (SMOLVLM, f"model.vision_model.encoder.layers.2.{Q}", 12, 12),
    "GPT-2": ({"h.0.attn.c_attn.weight": (48, 16)}, "transformer.h.0.attn.c_attn", 16, 48),
    "OPT": ({"decoder.layers.0.fc1.weight": (64, 16)}, "model.decoder.layers.0.fc1", 16, 64),
    "BERT": ({"bert.encoder.layer.0.attention.self.query.weight": (16, 16)},
             "encoder.layer.0.attention.self.query", 16, 16),
}  # fmt: skip
EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")


def fit(tensors, module, inputs, outputs, config=None, **options):
    base = Base(config or {}, BaseModules.of(tensors))
    return check_modules([LoraModule(module, 4, inputs, outputs)], base, parameters=EXPERTS, **options)


@pytest.mark.parametrize(("tensors", "module", "inputs", "outputs"), FITS.values(), ids=FITS)
def test_the_right_sizes_fit_and_others_do_not(tensors, module, inputs, outputs):
    found = fit(tensors, module, inputs, outputs)
    assert (found.problems, found.untold) == ((), ())
    assert fit(tensors, module, inputs + 1, outputs + 3).problems


DEPTHS = {
    "text, as deep as the vision tower": (GEMMA3, f"model.language_model.layers.2.{Q}", "layer 2, and the base model"),
    "vision": (GEMMA3, f"model.vision_tower.encoder.layers.3.{Q}", "has 3 layers"),
    "vision blocks": (QWEN25_VL, "model.visual.blocks.4.attn.qkv", "has 4 layers"),
    "decoder, as deep as the encoder": (WHISPER, f"model.decoder.layers.2.{Q}", "has 2 layers"),
    "an expert": (DEEPSEEK, "model.layers.1.mlp.experts.4.up_proj", "is in expert 4, and the base model has 4 experts"),
    "Mistral native": (MISTRAL_NATIVE, f"model.layers.2.{Q}", "has 2 layers"),
}


@pytest.mark.parametrize(("tensors", "module", "why"), DEPTHS.values(), ids=DEPTHS)
def test_every_tower_has_its_own_depth(tensors, module, why):
    (problem,) = fit(tensors, module, 16, 16).problems
    assert why in problem


PACKED = {
    "awq": packed(LLAMA, "qweight", "qzeros", "scales"),
    "gptq": packed(LLAMA, "qweight", "qzeros", "scales", "g_idx"),
    "bitsandbytes": packed(LLAMA, "weight", "weight.absmax", "weight.quant_map"),
    "compressed-tensors": packed(LLAMA, "weight_packed", "weight_scale", "weight_shape"),
    "torchao": packed(LLAMA, "weight._data", "weight._scale"),
    "mxfp4": packed(LLAMA, "weight_blocks", "weight_scales"),
}


@pytest.mark.parametrize("method", PACKED)
def test_packed_weights_prove_nothing(method):
    found = fit(PACKED[method], f"model.layers.0.{Q}", 16, 32, {"quantization_config": {"quant_method": method}})
    assert found.problems == ()
    assert found.untold == (f"whether 1 of 1 modules fit cannot be told for packed weights ({method})",)


def test_packed_experts_prove_nothing():
    tensors = {f"model.layers.0.mlp.experts.{name}_blocks": None for name in ("gate_up_proj", "down_proj")}
    for module in ("model.layers.0.mlp.experts.base_layer", "model.layers.0.mlp.experts"):
        found = fit(tensors, module, 3, 5)
        assert found.problems == ()
        assert "packed" in found.untold[0]


@pytest.mark.parametrize("packed_as", ["up_proj.qweight", "w3.qweight", "up_proj.weight_packed", "up_proj.W_q"])
def test_packed_experts_with_a_module_for_each_prove_nothing(packed_as):
    tensors = {f"model.layers.0.mlp.experts.{n}.{packed_as}": None for n in range(2)}
    for module in ("model.layers.0.mlp.experts.base_layer", "model.layers.0.mlp.experts"):
        found = fit(tensors, module, 3, 5)
        assert found.problems == ()
        assert "packed" in found.untold[0]


@pytest.mark.parametrize(
    ("tensors", "module"),
    [
        ({"encoder.bias.biases.1.table.weight": (4, 8)}, "encoder.bias.biases.0.table"),
        (layers("model.layers", 1, {Q: (16, 16)}) | {f"model.layers.2.{Q}.weight": (16, 16)}, f"model.layers.1.{Q}"),
        ({"score.1.weight": (4, 16), "score.4.weight": (2, 4)}, "score.03"),
    ],
    ids=["a pair that shares its weights", "a layer without tensors", "a sequence of modules"],
)
def test_what_is_missing_within_a_list_proves_nothing(tensors, module):
    found = fit(tensors, module, 16, 16)
    assert found.problems == ()
    assert "no such names" in found.untold[0]


def test_what_is_not_packed_beside_packed_weights_is_compared():
    tensors = PACKED["awq"] | {"lm_head.weight": (64, 16)}
    assert fit(tensors, "lm_head", 16, 65).problems == ("lm_head has 65 outputs, and the base model has 64",)


def test_eight_bit_floats_have_the_shape_of_their_matrix():
    tensors = LLAMA | {f"model.layers.0.{Q}.weight_scale_inv": (1, 1)}
    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    assert fit(tensors, f"model.layers.0.{Q}", 16, 16, config).problems == ()
    assert fit(tensors, f"model.layers.0.{Q}", 16, 24, config).problems != ()


def test_towers_without_such_a_module_are_not_compared_with_another():
    """Only the vision tower has `out_proj`: an adapter of the language model is not measured by it."""
    found = fit(GEMMA3, "model.language_model.layers.0.self_attn.out_proj", 16, 16)
    assert found.problems == ()
    assert "no such names" in found.untold[0]


PATHS = {
    "language_model.model.layers.0.mlp.up_proj": "layers.0.mlp.up_proj",
    "model.language_model.layers.0.mlp.up_proj": "layers.0.mlp.up_proj",
    "vision_tower.vision_model.encoder.layers.0.x": "vision.encoder.layers.0.x",
    "model.vision_tower.encoder.layers.0.x": "vision.encoder.layers.0.x",
    "layers.0.attention.wo": "layers.0.self_attn.o_proj",
    "vision_encoder.transformer.layers.0.attention.wo": "vision.layers.0.attention.wo",
    "output": "lm_head",
    "model.0.linear": "model.0.linear",
    "model": "model",
    "": "",
}


@pytest.mark.parametrize(("name", "path"), PATHS.items())
def test_paths(name, path):
    assert module_path(name) == path
