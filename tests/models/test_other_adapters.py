"""Adapters of mlx-lm and of llama.cpp: what of them is checked before an engine reads them."""

import pytest

from garrison.base.errors import ModelInvalidError
from garrison.models.adapters.base_modules import BaseModules
from garrison.models.adapters.fit import Base, check_against_base, read_base
from garrison.models.adapters.inspect import inspect_adapter

Q = "model.layers.0.self_attn.q_proj"
BLK = "blk.0.attn_q.weight"


def fault(path):
    with pytest.raises(ModelInvalidError) as caught:
        inspect_adapter(path)
    return caught.value.message


def test_an_mlx_adapter(tmp_path, make):
    info = inspect_adapter(make.mlx_adapter(tmp_path / "poet", rank=8))
    assert (info.format, info.name, info.rank, info.max_rank, info.base_model) == ("mlx", "poet", 8, 8, "acme/tiny")
    assert [(m.name, m.rank, m.inputs, m.outputs) for m in info.modules] == [(Q, 8, 16, 16)]
    assert info.alpha == 160
    assert len(info.digest()) == 64


def test_of_the_checkpoints_of_a_run_the_last_one_counts(tmp_path, make):
    path = make.mlx_adapter(tmp_path / "a")
    digest = inspect_adapter(path).digest()
    (path / "0000100_adapters.safetensors").write_bytes(b"half")
    assert inspect_adapter(path).digest() == digest


MLX = {
    "experts": {f"{Q}.lora_a": (8, 4, 16), f"{Q}.lora_b": (8, 24, 4)},
    "DoRA's magnitudes": {f"{Q}.lora_a": (16, 4), f"{Q}.lora_b": (4, 24), f"{Q}.m": (24,)},
}


@pytest.mark.parametrize("shapes", MLX.values(), ids=MLX)
def test_other_layers_of_mlx(tmp_path, make, shapes):
    (module,) = inspect_adapter(make.mlx_adapter(tmp_path / "a", shapes=shapes, fine_tune_type="dora")).modules
    assert (module.inputs, module.outputs, module.rank) == (16, 24, 4)


def test_a_full_fine_tuning_is_one_for_mlx(tmp_path, make):
    path = make.mlx_adapter(
        tmp_path / "a", shapes={f"{Q}.weight": (16, 16)}, fine_tune_type="full", lora_parameters=...
    )
    assert inspect_adapter(path).modules == ()


PARAMETERS = {"rank": 4, "scale": 20.0, "dropout": 0.0}
BROKEN_MLX = {
    "an older trainer": ({"num_layers": ..., "lora_layers": 2}, {}, "has no num_layers"),
    "no parameters": ({"lora_parameters": ...}, {}, "lora_parameters.rank must be"),
    "no scale": ({"lora_parameters": {"rank": 4, "dropout": 0.0}}, {}, "lora_parameters.scale must be"),
    "another kind": ({"fine_tune_type": "ia3"}, {}, "fine_tune_type must be one of"),
    "another rank": ({}, {f"{Q}.lora_a": (16, 8), f"{Q}.lora_b": (8, 16)}, "are not of rank 4"),
    "half a pair": ({}, {f"{Q}.lora_a": (16, 4)}, "has no lora_b for module"),
    "a vector": ({}, {f"{Q}.lora_a": (16,), f"{Q}.lora_b": (4, 16)}, "are not matrices"),
    "none": ({}, {f"{Q}.weight": (16, 4)}, "contains no LoRA tensors"),
    "another module": (
        {"lora_parameters": PARAMETERS | {"keys": ["self_attn.v_proj"]}},
        {},
        f"{Q}, which is not among",
    ),
    "the head alone": ({}, {"lm_head.lora_a": (16, 4), "lm_head.lora_b": (4, 16)}, "lm_head outside the layers"),
    "keys of a word": ({"lora_parameters": PARAMETERS | {"keys": "q_proj"}}, {}, "keys must be a list"),
    "no keys": ({"lora_parameters": PARAMETERS | {"keys": []}}, {}, "keys must be a list"),
}


@pytest.mark.parametrize(("config", "shapes", "why"), BROKEN_MLX.values(), ids=BROKEN_MLX)
def test_what_mlx_would_fail_at(tmp_path, make, config, shapes, why):
    message = fault(make.mlx_adapter(tmp_path / "a", shapes=shapes or None, **config))
    assert str(tmp_path / "a") in message
    assert why in message


def test_missing_mlx_weights(tmp_path, make):
    path = make.mlx_adapter(tmp_path / "a")
    (path / "adapters.safetensors").unlink()
    assert fault(path) == f"{path / 'adapters.safetensors'} is missing"


def test_an_mlx_adapter_against_its_base(tmp_path, make):
    base = read_base(make.model(tmp_path / "m"))
    assert check_against_base(inspect_adapter(make.mlx_adapter(tmp_path / "a")), base).problems == ()
    wide = make.mlx_adapter(tmp_path / "b", shapes={f"{Q}.lora_a": (32, 4), f"{Q}.lora_b": (4, 16)})
    assert "32 inputs" in check_against_base(inspect_adapter(wide), base).problems[0]


@pytest.mark.parametrize("keys", [["self_attn.q_proj"], [Q], ["lm_head", "self_attn.q_proj"], None])
def test_modules_that_mlx_adapts(tmp_path, make, keys):
    info = inspect_adapter(make.mlx_adapter(tmp_path / "a", lora_parameters=PARAMETERS | {"keys": keys}))
    assert [module.name for module in info.modules] == [Q]
    assert info.target_modules == tuple(sorted(keys or ()))


LAST = {
    "the last one alone": ({"num_layers": 1}, {"num_hidden_layers": 2}, True),
    "all by a number": ({"num_layers": 2}, {"num_hidden_layers": 2}, False),
    "more than there are": ({"num_layers": 16}, {"num_hidden_layers": 2}, False),
    "all by zero": ({"num_layers": 0}, {"num_hidden_layers": 2}, False),
    "all by less": ({"num_layers": -1}, {"num_hidden_layers": 2}, False),
    "in a multimodal base": ({"num_layers": 1}, {"text_config": {"num_hidden_layers": 2}}, True),
    "a base of unknown depth": ({"num_layers": 1}, {}, False),
    "by its whole name": (
        {"num_layers": 1, "lora_parameters": PARAMETERS | {"keys": [Q]}}, {"num_hidden_layers": 2}, False,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("config", "base", "misfits"), LAST.values(), ids=LAST)
def test_the_last_layers_of_mlx(tmp_path, make, config, base, misfits):
    """mlx-lm makes room in the last `num_layers`, and fails at tensors for others."""
    info = inspect_adapter(make.mlx_adapter(tmp_path / "a", **config))
    modules = BaseModules.of({f"{Q}.weight": (16, 16), f"{Q.replace('0', '1')}.weight": (16, 16)})
    said = f"{Q} is in layer 0 of 2, and mlx-lm adapts the last 1 layer, by num_layers in its config"
    assert check_against_base(info, Base(base, modules)).problems == ((said,) if misfits else ())


def test_a_gguf_adapter(tmp_path, make):
    info = inspect_adapter(make.gguf_adapter(tmp_path / "poet.gguf"))
    assert (info.format, info.name, info.rank, info.path) == ("gguf", "poet", 4, tmp_path / "poet.gguf")
    assert [(m.name, m.rank, m.inputs, m.outputs) for m in info.modules] == [("blk.0.attn_q", 4, 16, 16)]


BROKEN_GGUF = {
    "half a pair": ({f"{BLK}.lora_a": (16, 4)}, "has no lora_b"),
    "two ranks": ({f"{BLK}.lora_a": (16, 4), f"{BLK}.lora_b": (8, 16)}, "different ranks"),
    "a vector": ({f"{BLK}.lora_a": (16,), f"{BLK}.lora_b": (4, 16)}, "are not matrices"),
    "none": ({"blk.0.attn_q.weight": (16, 16)}, "contains no LoRA tensors"),
}


@pytest.mark.parametrize(("shapes", "why"), BROKEN_GGUF.values(), ids=BROKEN_GGUF)
def test_a_broken_gguf_adapter(tmp_path, make, shapes, why):
    assert why in fault(make.gguf_adapter(tmp_path / "a.gguf", shapes))


def test_a_gguf_model_is_no_adapter(tmp_path, make):
    assert "is a GGUF file and no LoRA adapter" in fault(make.gguf(tmp_path / "m.gguf"))


def gguf_base(make, path, architecture="llama"):
    shapes = {BLK: (16, 24), "token_embd.weight": (16, 64)}
    return read_base(make.raw_gguf(path / "base.gguf", {"general.architecture": architecture}, shapes))


def gguf_fit(make, path, shapes, **options):
    info = inspect_adapter(make.gguf_adapter(path / "a.gguf", shapes))
    return check_against_base(info, gguf_base(make, path, **options))


GGUF_FITS = {
    "a matrix": ({f"{BLK}.lora_a": (16, 4), f"{BLK}.lora_b": (4, 24)}, ()),
    "the embeddings": ({"token_embd.weight.lora_a": (4, 64), "token_embd.weight.lora_b": (4, 16)}, ()),
    "other outputs": (
        {f"{BLK}.lora_a": (16, 4), f"{BLK}.lora_b": (4, 16)},
        ("blk.0.attn_q has 16 outputs, and the base model has 24",),
    ),
}


@pytest.mark.parametrize(("shapes", "problems"), GGUF_FITS.values(), ids=GGUF_FITS)
def test_a_gguf_adapter_against_its_base(tmp_path, make, shapes, problems):
    assert gguf_fit(make, tmp_path, shapes).problems == problems


def test_a_gguf_adapter_for_another_architecture(tmp_path, make):
    (problem,) = gguf_fit(make, tmp_path, None, architecture="qwen2").problems
    assert "made for the architecture llama, and the model is qwen2" in problem


def test_the_parts_of_a_split_base_are_one(tmp_path, make):
    words = {"general.architecture": "llama"}
    make.raw_gguf(tmp_path / "b-00001-of-00002.gguf", words, {"token_embd.weight": (16, 64)})
    make.raw_gguf(tmp_path / "b-00002-of-00002.gguf", words, {BLK: (16, 24)})
    base = read_base(tmp_path / "b-00001-of-00002.gguf")
    assert "16 outputs" in check_against_base(inspect_adapter(make.gguf_adapter(tmp_path / "a.gguf")), base).problems[0]
