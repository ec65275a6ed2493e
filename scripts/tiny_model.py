#!/usr/bin/env python3
"""Make a tiny random Llama, adapters for it, and a GGUF of it: real files for real engines, in a second.

    scripts/tiny_model.py model DIR [--shards N]      hidden 64, 2 layers, vocabulary 512, bf16; 0.4 MB
    scripts/tiny_model.py adapter DIR [--seed S] [--rank R]
    scripts/tiny_model.py gguf FILE                   the same weights for llama.cpp

It needs numpy, and gguf for that: pip install numpy gguf.

The weights are random, so the answers are word salad. The output layer produces only words, so that the answers are
readable, and never the end token, so that every answer has the requested length.
"""

import argparse
import json
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def _needs(missing: ModuleNotFoundError) -> str:
    return f"error: {Path(__file__).name} needs {missing.name}\nhint: {sys.executable} -m pip install {missing.name}"


try:
    import numpy as np
    from numpy.typing import NDArray
except ModuleNotFoundError as error:
    if __name__ != "__main__" or error.name != "numpy":
        raise
    sys.exit(_needs(error))

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, MLP, VOCABULARY, CONTEXT = 64, 2, 2, 2, 32, 128, 512, 2048
BOS, EOS, PAD = 0, 1, 2
SPECIAL = ["<s>", "</s>", "<pad>"]
MERGES = [("t", "h"), ("th", "e"), ("i", "n"), ("a", "n")]
_WORD_TEXT = """
able acid acre aim air alder amber anchor apple april arch arrow ash attic autumn axle badge bakery balm bank
barley barn basin bay beacon bean bell bench birch bird blade blue boat bolt book border bottle bough bowl
branch brass bread breeze brick bridge brook brush bucket cabin cable calm candle canvas cape card cart castle
cedar chain chalk chapel cherry cider circle clay cliff clock cloud clover coal coast cobalt coin comet copper
coral cotton crane creek crest crown cup dale dawn deck delta dew dock dove dream drift drum dune dusk eagle
earth east echo edge elm ember fable falcon farm fern field fig finch fire flag flame flint flock flower fog
forest fort fox frost garden gate glade glass globe gold grain granite grass green grove gull harbor hare hat
haven hazel hearth heath hedge herb heron hill honey horn house ink inlet iron island ivy jade jar june kettle
key kite knot lake lamp lantern lark latch leaf ledge lemon light lily lime linen lion loaf lock loom lotus
maple marble march marsh mast meadow mill mint mist moon moss moth mountain night north oak oar ocean olive
onion orchard otter owl paper path pearl pebble pine plain plum pond poppy port quartz quay quiet rain raven
reed ridge river road robin rock rope rose rye sail salt
"""
WORDS = _WORD_TEXT.split()

Tensors = Mapping[str, NDArray[np.float32]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["model", "adapter", "gguf"], help="what to make")
    parser.add_argument("where", type=Path, metavar="PATH", help="the directory to make, or the GGUF file")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--base", default="acme/tiny")
    if len(sys.argv) == 1:
        print(
            f"{(__doc__ or '').strip()}\n\nerror: say what to make, and where: {parser.prog} model ./tiny",
            file=sys.stderr,
        )
        return 2
    args = parser.parse_args()
    if args.what == "model":
        make_model(args.where, shards=args.shards)
    elif args.what == "adapter":
        make_adapter(args.where, seed=args.seed, rank=args.rank, base=args.base)
    else:
        make_gguf(args.where)
    print(args.where)
    return 0


def make_model(
    directory: Path, *, shards: int = 1, seed: int = 0, layers: int = LAYERS, ends: bool = False, context: int = CONTEXT
) -> Path:
    """Make a Hugging Face directory: config.json, tokenizer, safetensors (with an index for several shards).

    Args:
        layers: more of them make an engine slower.
        ends: the end token is likely, so that most answers have fewer than a hundred words.
        context: in tokens.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _write_json(directory / "config.json", _config(layers, context))
    _write_json(directory / "generation_config.json", {"bos_token_id": BOS, "eos_token_id": EOS, "do_sample": False})
    _write_json(directory / "tokenizer.json", _tokenizer())
    _write_json(directory / "tokenizer_config.json", _tokenizer_config(context))
    tensors = _weights(seed, layers)
    if ends:
        tensors["lm_head.weight"][EOS] = 1.5 * tensors["lm_head.weight"][-1]
    if shards <= 1:
        write_safetensors(directory / "model.safetensors", tensors)
        return directory
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for number in range(shards):
        shard = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[number::shards]}
        # With more shards than tensors, the rest hold one number each, so that a directory of hundreds stays tiny.
        part = part or {f"scrap.{number}": np.zeros((1,), np.float32)}
        weight_map |= dict.fromkeys(part, shard)
        write_safetensors(directory / shard, part)
    total = sum(tensor.size * 2 for tensor in tensors.values())
    _write_json(
        directory / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map}
    )
    return directory


def make_adapter(
    directory: Path,
    *,
    seed: int = 1,
    rank: int = 8,
    base: str = "acme/tiny",
    width: int = HIDDEN,
    strength: float = 0.5,
) -> Path:
    """Make a PEFT directory with LoRA weights on q_proj and v_proj. A `width` other than 64 does not fit the model."""
    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    tensors: dict[str, NDArray[np.float32]] = {}
    for layer in range(LAYERS):
        for module, out in (("q_proj", HEADS * HEAD_DIM), ("v_proj", KV_HEADS * HEAD_DIM)):
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{prefix}.lora_A.weight"] = random.normal(0, strength, (rank, width)).astype(np.float32)
            tensors[f"{prefix}.lora_B.weight"] = random.normal(0, strength, (out, rank)).astype(np.float32)
    write_safetensors(directory / "adapter_model.safetensors", tensors)
    _write_json(
        directory / "adapter_config.json",
        {
            "base_model_name_or_path": base,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "lora_alpha": 2 * rank,
            "lora_dropout": 0.0,
            "modules_to_save": None,
            "peft_type": "LORA",
            "r": rank,
            "target_modules": ["q_proj", "v_proj"],
            "task_type": "CAUSAL_LM",
            "use_dora": False,
            "use_rslora": False,
        },
    )
    return directory


def make_gguf(path: Path, *, seed: int = 0, context: int = CONTEXT) -> Path:
    """Make the same model as one GGUF file, f32."""
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise SystemExit(_needs(error)) from None

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(context)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    tokens = sorted(_vocabulary().items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([token for token, _ in tokens])
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if number < len(SPECIAL) else normal for _, number in tokens])
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_pad_token_id(PAD)
    writer.add_chat_template(_CHAT_TEMPLATE)
    for name, tensor in _weights(seed).items():
        writer.add_tensor(_gguf_name(name), _for_gguf(name, tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_safetensors(path: Path, tensors: Tensors) -> None:
    """Write tensors as bf16, in the given order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset, parts = 0, []
    for name, tensor in tensors.items():
        # bf16 is the upper half of a float32; adding half of the lower half's range rounds to nearest.
        bits = (np.ascontiguousarray(tensor).view(np.uint32) + 0x8000) >> 16
        raw = bits.astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [offset, offset + len(raw)]}
        offset += len(raw)
        parts.append(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def _weights(seed: int, layers: int = LAYERS) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(seed)

    def normal(rows: int, columns: int, scale: float) -> NDArray[np.float32]:
        values: NDArray[np.float32] = random.normal(0, scale, (rows, columns)).astype(np.float32)
        return values

    tensors = {"model.embed_tokens.weight": normal(VOCABULARY, HIDDEN, 1.0)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        tensors[f"{prefix}.input_layernorm.weight"] = np.ones(HIDDEN, np.float32)
        tensors[f"{prefix}.self_attn.q_proj.weight"] = normal(HEADS * HEAD_DIM, HIDDEN, 0.3)
        tensors[f"{prefix}.self_attn.k_proj.weight"] = normal(KV_HEADS * HEAD_DIM, HIDDEN, 0.3)
        tensors[f"{prefix}.self_attn.v_proj.weight"] = normal(KV_HEADS * HEAD_DIM, HIDDEN, 0.3)
        tensors[f"{prefix}.self_attn.o_proj.weight"] = normal(HIDDEN, HEADS * HEAD_DIM, 0.3)
        tensors[f"{prefix}.post_attention_layernorm.weight"] = np.ones(HIDDEN, np.float32)
        tensors[f"{prefix}.mlp.gate_proj.weight"] = normal(MLP, HIDDEN, 0.2)
        tensors[f"{prefix}.mlp.up_proj.weight"] = normal(MLP, HIDDEN, 0.2)
        tensors[f"{prefix}.mlp.down_proj.weight"] = normal(HIDDEN, MLP, 0.2)
    tensors["model.norm.weight"] = np.ones(HIDDEN, np.float32)
    head = normal(VOCABULARY, HIDDEN, 1.0)
    head[: VOCABULARY - len(_word_tokens())] = 0
    tensors["lm_head.weight"] = head
    return tensors


def _vocabulary() -> dict[str, int]:
    tokens = [*SPECIAL, *_byte_alphabet(), *(left + right for left, right in MERGES)]
    words = _word_tokens()
    fill = VOCABULARY - len(tokens) - len(words)
    tokens += [f"<unused{number}>" for number in range(fill)] + words
    return {token: number for number, token in enumerate(tokens)}


def _word_tokens() -> list[str]:
    """Return the words with the byte-level mark of a leading space: the last rows of the vocabulary."""
    return ["Ġ" + word for word in WORDS]


def _byte_alphabet() -> list[str]:
    """Return the 256 characters that byte-level BPE uses for bytes, in byte order, as GPT-2 defines them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(shifted)) for byte in range(256)]


def _config(layers: int, context: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
    }


def _tokenizer() -> dict[str, Any]:
    special = [
        {"id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for number, token in enumerate(SPECIAL)
    ]  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": _vocabulary(),
            "merges": [" ".join(pair) for pair in MERGES],
        },
    }


_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def _tokenizer_config(context: int) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[BOS],
        "eos_token": SPECIAL[EOS],
        "pad_token": SPECIAL[PAD],
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "chat_template": _CHAT_TEMPLATE,
    }


_GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def _gguf_name(name: str) -> str:
    top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem = name.removesuffix(".weight")
    if stem in top:
        return top[stem] + ".weight"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{_GGUF_NAMES[part]}.weight"


def _for_gguf(name: str, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reorder the rows of q and k: llama.cpp rotates neighbouring pairs where Hugging Face rotates halves."""
    if ".q_proj." not in name and ".k_proj." not in name:
        return tensor
    heads = HEADS if ".q_proj." in name else KV_HEADS
    halves = tensor.reshape(heads, 2, HEAD_DIM // 2, tensor.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(tensor.shape))


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
