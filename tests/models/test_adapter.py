import json
import shutil

import pytest

from garrison.base.errors import ModelInvalidError
from garrison.models.adapters.adapter import adapter_digest
from garrison.models.adapters.inspect import inspect_adapter

Q = "base_model.model.model.layers.0.self_attn.q_proj"


def fault(path):
    with pytest.raises(ModelInvalidError) as caught:
        inspect_adapter(path)
    assert caught.value.details["file"] in caught.value.message
    return caught.value.message


def test_a_whole_adapter(tmp_path, make):
    info = inspect_adapter(make.adapter(tmp_path / "poet", rank=4))
    assert (info.name, info.peft_type, info.rank, info.alpha, info.max_rank) == ("poet", "LORA", 4, 8, 4)
    assert info.target_modules == ("q_proj", "v_proj")
    assert (info.base_model, info.dtype) == ("acme/tiny", "BF16")
    assert info.bytes == (tmp_path / "poet" / "adapter_model.safetensors").stat().st_size
    assert [(m.name, m.rank, m.inputs, m.outputs) for m in info.modules][:2] == [
        ("model.layers.0.self_attn.q_proj", 4, 16, 16),
        ("model.layers.0.self_attn.v_proj", 4, 16, 8),
    ]
    assert (info.refused_by_vllm, info.warnings) == ((), ())


def test_rank_pattern_sets_the_rank_of_a_module_and_the_highest(tmp_path, make):
    shapes = make.lora_shapes(4) | {f"{Q}.lora_A.weight": (16, 16), f"{Q}.lora_B.weight": (16, 16)}
    path = make.adapter(tmp_path / "a", shapes=shapes, rank_pattern={r"layers\.0\.self_attn\.q_proj": 16})
    info = inspect_adapter(path)
    assert (info.rank, info.max_rank) == (4, 16)


def test_rank_pattern_that_the_tensors_do_not_follow(tmp_path, make):
    path = make.adapter(tmp_path / "a", rank_pattern={"q_proj": 16})
    assert "q_proj has rank 4 in its tensors and 16 in adapter_config.json" in fault(path)


E = "base_model.model.model.layers.0.mlp.experts"
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
FUSED = {  # of two experts, with ranks 4 and 2
    f"{Q}.lora_A.weight": (16, 16),
    f"{Q}.lora_B.weight": (16, 16),
    f"{E}.base_layer.lora_A.weight": (8, 16),
    f"{E}.base_layer.lora_B.weight": (64, 8),
    f"{E}.lora_A.weight": (4, 32),
    f"{E}.lora_B.weight": (16, 4),
}


def fused(make, path, shapes=(), **config):
    ranks = {"experts.gate_up_proj": 4, "experts.down_proj": 2}
    written = {"target_modules": ["q_proj"], "target_parameters": EXPERTS, "rank_pattern": ranks} | config
    return make.adapter(path, rank=16, shapes=FUSED | dict(shapes), **written)


@pytest.mark.parametrize("parameters", [EXPERTS, EXPERTS[::-1], [f"model.layers.0.{name}" for name in EXPERTS]])
def test_rank_pattern_names_parameters(tmp_path, make, parameters):
    info = inspect_adapter(fused(make, tmp_path / "a", target_parameters=parameters))
    assert [module.rank for module in info.modules] == [2, 4, 16]
    assert info.max_rank == 16
    assert info.refused_by_vllm == ()


def test_a_parameter_may_be_named_without_its_module(tmp_path, make):
    """As PEFT writes `all-linear` for experts in one tensor."""
    gate = {"base_model.model.model.layers.0.mlp.gate.lora_A.weight": (16, 16)}
    gate["base_model.model.model.layers.0.mlp.gate.lora_B.weight"] = (2, 16)
    ranks = {r".*\.gate_up_proj": 4, r".*\.down_proj": 2}
    names = ["gate.weight", "down_proj", "gate_up_proj"]
    info = inspect_adapter(fused(make, tmp_path / "a", gate, target_parameters=names, rank_pattern=ranks))
    assert [(module.name.split("0.")[1], module.rank) for module in info.modules] == [
        ("mlp.experts", 2), ("mlp.experts.base_layer", 4), ("mlp.gate", 16), ("self_attn.q_proj", 16),
    ]  # fmt: skip
    assert info.refused_by_vllm == ()


@pytest.mark.parametrize("targets", [["q_proj"], r".*\.q_proj", r"^(?!.*visual).*q_proj$"])
def test_an_ordinary_module_is_no_owner_of_a_parameter_without_one(tmp_path, make, targets):
    shapes = {f"{Q}.lora_A.weight": (8, 16), f"{Q}.lora_B.weight": (16, 8)}
    config = {"target_parameters": ["down_proj", "gate_up_proj"], "target_modules": targets}
    assert "q_proj has rank 8 in its tensors and 16" in fault(fused(make, tmp_path / "a", shapes, **config))


def test_tied_weights_are_adapted_together_and_one_is_named(tmp_path, make):
    head = {"base_model.model.lm_head.lora_A.weight": (4, 16), "base_model.model.lm_head.lora_B.weight": (64, 4)}
    table = "base_model.model.model.embed_tokens.lora_embedding"
    shapes = head | {f"{table}_A": (4, 64), f"{table}_B": (16, 4)}
    config = {"target_modules": ["embed_tokens"], "ensure_weight_tying": True}
    info = inspect_adapter(make.adapter(tmp_path / "a", shapes=shapes, **config))
    assert [module.name for module in info.modules] == ["lm_head", "model.embed_tokens"]
    untied = make.adapter(tmp_path / "b", shapes=shapes, target_modules=["embed_tokens"])
    assert "adapts module lm_head, which adapter_config.json does not target" in fault(untied)


def test_what_is_excluded_is_not_missed(tmp_path, make):
    targets = ["q_proj", "v_proj", "down_proj", "up_proj"]
    path = make.adapter(tmp_path / "a", target_modules=targets, exclude_modules=["down_proj"])
    (warning,) = inspect_adapter(path).warnings
    assert "targets up_proj, and no tensor adapts it" in warning


def test_without_any_target_the_tensors_tell(tmp_path, make):
    info = inspect_adapter(make.adapter(tmp_path / "a", target_modules=None))
    assert (len(info.modules), info.warnings, info.target_modules) == (4, (), ())


@pytest.mark.parametrize("place", ["checkpoint-{}", "run-{}", "epoch_{}"])
def test_a_training_run_with_adapters_below_it_names_them(tmp_path, make, place):
    for number in (100, 1200, 900):
        make.adapter(tmp_path / "out" / place.format(number))
    (tmp_path / "out" / "trainer_state.json").write_text("{}")
    with pytest.raises(ModelInvalidError, match="is no adapter itself, and has 3 below it") as caught:
        inspect_adapter(tmp_path / "out")
    assert caught.value.hint == f"Name one of them, as in {tmp_path / 'out' / place.format(1200)}."


def test_a_parameter_without_a_pattern_has_the_rank_of_the_config(tmp_path, make):
    shapes = {f"{E}.lora_A.weight": (32, 32), f"{E}.lora_B.weight": (16, 32)}
    info = inspect_adapter(fused(make, tmp_path / "a", shapes, rank_pattern={"gate_up_proj": 4}))
    assert [module.rank for module in info.modules] == [16, 4, 16]


def test_a_parameter_whose_rank_the_tensors_do_not_follow(tmp_path, make):
    path = fused(make, tmp_path / "a", rank_pattern={"experts.gate_up_proj": 3, "experts.down_proj": 2})
    assert "mlp.experts.base_layer has rank 8 in its tensors and 3" in fault(path)


def test_an_ordinary_module_beside_parameters_has_its_exact_rank(tmp_path, make):
    shapes = {f"{Q}.lora_A.weight": (32, 16), f"{Q}.lora_B.weight": (16, 32)}
    assert "q_proj has rank 32 in its tensors and 16" in fault(fused(make, tmp_path / "a", shapes))


def test_targets_may_be_a_pattern(tmp_path, make):
    path = make.adapter(tmp_path / "a", target_modules=r".*\.self_attn\.(q|v)_proj")
    assert inspect_adapter(path).target_modules == (r".*\.self_attn\.(q|v)_proj",)


def test_targets_may_be_all_linear(tmp_path, make):
    assert inspect_adapter(make.adapter(tmp_path / "a", target_modules="all-linear"))


def test_the_name_of_the_adapter_within_the_tensors_is_passed_over(tmp_path, make):
    shapes = {f"{Q}.lora_A.default.weight": (4, 16), f"{Q}.lora_B.default.weight": (16, 4)}
    info = inspect_adapter(make.adapter(tmp_path / "a", shapes=shapes, target_modules=["q_proj"]))
    assert [module.name for module in info.modules] == ["model.layers.0.self_attn.q_proj"]


def test_embeddings_and_convolutions(tmp_path, make):
    shapes = {
        "base_model.model.model.embed_tokens.lora_embedding_A": (4, 64),
        "base_model.model.model.embed_tokens.lora_embedding_B": (16, 4),
        "base_model.model.conv.lora_A.weight": (4, 3, 2, 2),
        "base_model.model.conv.lora_B.weight": (8, 4, 1, 1),
    }
    info = inspect_adapter(make.adapter(tmp_path / "a", shapes=shapes, target_modules=["embed_tokens", "conv"]))
    assert [(m.inputs, m.outputs, m.embedding) for m in info.modules] == [(3, 8, False), (64, 16, True)]


REFUSED = {
    "dora": ({"use_dora": True}, "use_dora"),
    "modules_to_save": ({"modules_to_save": ["lm_head", "score"]}, "modules_to_save: lm_head"),
    "bias": ({"bias": "all"}, "bias: all"),
    "lora_bias": ({"lora_bias": True}, "lora_bias"),
    "pissa": ({"init_lora_weights": "pissa"}, "init_lora_weights: pissa"),
    "alora": ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
    "replication": ({"layer_replication": [[0, 1]]}, "layer_replication"),
}


@pytest.mark.parametrize(("config", "why"), REFUSED.values(), ids=REFUSED)
def test_what_vllm_refuses_is_said(tmp_path, make, config, why):
    (reason,) = inspect_adapter(make.adapter(tmp_path / "a", **config)).refused_by_vllm
    assert why in reason


@pytest.mark.parametrize("init", [True, "gaussian", "EVA"])
def test_inits_that_leave_the_base_alone_are_not_refused(tmp_path, make, init):
    info = inspect_adapter(make.adapter(tmp_path / "a", init_lora_weights=init, modules_to_save=["score"]))
    assert info.refused_by_vllm == ()


def test_tensors_that_vllm_cannot_name_are_said(tmp_path, make):
    shapes = make.lora_shapes() | {"base_model.model.lm_head.weight": (2, 2)}
    (reason,) = inspect_adapter(make.adapter(tmp_path / "a", shapes=shapes)).refused_by_vllm
    assert "base_model.model.lm_head.weight" in reason


def test_the_highest_rank_is_the_configs_where_no_module_has_it(tmp_path, make):
    path = make.adapter(tmp_path / "a", r=16, rank_pattern={"q_proj": 4, "v_proj": 4})
    assert inspect_adapter(path).max_rank == 16


def test_a_target_without_tensors_is_odd_and_no_fault(tmp_path, make):
    path = make.adapter(tmp_path / "a", target_modules=["q_proj", "v_proj", "gate"])
    assert inspect_adapter(path).warnings == ("adapter_config.json targets gate, and no tensor adapts it",)


def test_a_pickle_is_accepted_and_said_to_be_unchecked(tmp_path, make):
    path = make.adapter(tmp_path / "a", rank_pattern={"q_proj": 32})
    (path / "adapter_model.safetensors").unlink()
    (path / "adapter_model.bin").write_bytes(b"\x80\x02pickle")
    info = inspect_adapter(path)
    assert (info.dtype, info.modules, info.max_rank) == (None, (), 32)
    assert "pickle" in info.warnings[0]


CONFIGS = {
    "r missing": ({"r": ...}, "has no r"),
    "r is zero": ({"r": 0}, "r must be"),
    "r is text": ({"r": "8"}, "r must be"),
    "r is a flag": ({"r": True}, "r must be"),
    "lora_alpha missing": ({"lora_alpha": ...}, "has no lora_alpha"),
    "lora_alpha is text": ({"lora_alpha": "8"}, "lora_alpha must be"),
    "target_modules missing": ({"target_modules": ...}, "has no target_modules"),
    "target_modules empty": ({"target_modules": []}, "target_modules must be"),
    "target_modules is a number": ({"target_modules": 1}, "target_modules must be"),
    "target_modules is no pattern": ({"target_modules": "(q"}, "pattern that cannot be read"),
    "peft_type missing": ({"peft_type": ...}, "has no peft_type"),
    "peft_type of another kind": ({"peft_type": "IA3"}, "is of type IA3, not LORA"),
    "rank_pattern is a list": ({"rank_pattern": [1]}, "rank_pattern must be"),
    "rank_pattern is no pattern": ({"rank_pattern": {"(": 4}}, "pattern that cannot be read"),
}


@pytest.mark.parametrize(("config", "why"), CONFIGS.values(), ids=CONFIGS)
def test_an_incomplete_config(tmp_path, make, config, why):
    message = fault(make.adapter(tmp_path / "a", **config))
    assert message.startswith(str(tmp_path / "a" / "adapter_config.json"))
    assert why in message


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff", b""], ids=["list", "cut", "not-utf-8", "empty"])
def test_a_config_that_is_none(tmp_path, make, content):
    path = make.adapter(tmp_path / "a")
    (path / "adapter_config.json").write_bytes(content)
    assert str(path / "adapter_config.json") in fault(path)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file(tmp_path, make, name):
    path = make.adapter(tmp_path / "a")
    (path / name).unlink()
    assert fault(path) == f"{path / name} is missing"


def test_no_such_directory(tmp_path):
    assert fault(tmp_path / "a").endswith("does not exist")


def test_truncated_weights(tmp_path, make, cut):
    path = make.adapter(tmp_path / "a")
    cut(path / "adapter_model.safetensors", 1)
    assert "adapter_model.safetensors is truncated" in fault(path)


def shapes_of(change):
    return {
        name: shape
        for name, shape in ({f"{Q}.lora_A.weight": (4, 16), f"{Q}.lora_B.weight": (16, 4)} | change).items()
        if shape
    }


SHAPES = {
    "A missing": ({f"{Q}.lora_A.weight": None}, "has no lora_A for module model.layers.0.self_attn.q_proj"),
    "B missing": ({f"{Q}.lora_B.weight": None}, "has no lora_B for module"),
    "ranks of A and B differ": ({f"{Q}.lora_B.weight": (16, 8)}, "have different ranks"),
    "A is transposed": ({f"{Q}.lora_A.weight": (16, 4)}, "have different ranks"),
    "A is a vector": ({f"{Q}.lora_A.weight": (64,)}, "are not matrices"),
    "rank is not the config's": (
        {f"{Q}.lora_A.weight": (8, 16), f"{Q}.lora_B.weight": (16, 8)},
        "has rank 8 in its tensors and 4 in adapter_config.json",
    ),
    "module is not targeted": (
        {
            "base_model.model.mlp.up_proj.lora_A.weight": (4, 16),
            "base_model.model.mlp.up_proj.lora_B.weight": (16, 4),
        },
        "adapts module mlp.up_proj, which adapter_config.json does not target",
    ),
}


@pytest.mark.parametrize(("change", "why"), SHAPES.values(), ids=SHAPES)
def test_tensors_that_do_not_agree(tmp_path, make, change, why):
    message = fault(make.adapter(tmp_path / "a", shapes=shapes_of(change), target_modules=["q_proj"]))
    assert message.startswith(str(tmp_path / "a" / "adapter_model.safetensors"))
    assert why in message


def test_no_lora_tensors_at_all(tmp_path, make):
    assert "contains no LoRA tensors" in fault(make.adapter(tmp_path / "a", shapes={"a.weight": (2, 2)}))


def test_the_digest_is_of_what_a_server_reads(tmp_path, make):
    path = make.adapter(tmp_path / "a")
    digest = adapter_digest(path)
    assert len(digest) == 64
    shutil.copytree(path, tmp_path / "b")
    (tmp_path / "b" / "README.md").write_text("hello")
    assert adapter_digest(tmp_path / "b") == inspect_adapter(path).digest() == digest
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 9}))
    assert adapter_digest(path) != digest


def test_the_digest_of_nothing(tmp_path):
    with pytest.raises(ModelInvalidError, match=r"adapter_config.json is missing"):
        adapter_digest(tmp_path)


LEFT_OPEN = {
    "ms-swift": {"target_modules": r"^(language_model|model)(?=\.).*\.(q_proj|v_proj)$"},
    "no vision": {"target_modules": r"^(?!.*visual).*(q_proj|v_proj)$"},
    "a rank": {"rank_pattern": {r"(?!visual).*q_proj": 4}},
    "too long": {"target_modules": "|".join(f"model.layers.{n}.(q|v)_proj" for n in range(2000))},
}


@pytest.mark.parametrize("config", LEFT_OPEN.values(), ids=LEFT_OPEN)
def test_a_pattern_that_cannot_be_told_is_a_warning_that_names_its_field(tmp_path, make, config):
    info = inspect_adapter(make.adapter(tmp_path / "a", **config))
    (field,) = config
    (warning,) = info.warnings
    assert field in warning
    assert (info.refused_by_vllm, info.max_rank) == ((), 4)


def test_a_rank_that_cannot_be_told_is_that_of_the_tensors(tmp_path, make):
    shapes = make.lora_shapes(4) | {f"{Q}.lora_A.weight": (16, 16), f"{Q}.lora_B.weight": (16, 16)}
    info = inspect_adapter(make.adapter(tmp_path / "a", shapes=shapes, rank_pattern={r"(?=.*q)layers.0.*": 16}))
    assert {module.rank for module in info.modules} == {4, 16}


def test_many_targets_without_tensors_are_counted(tmp_path, make):
    names = ["q_proj", "v_proj", *(f"idle{number}" for number in range(30_000))]
    warnings = inspect_adapter(make.adapter(tmp_path / "a", target_modules=names)).warnings
    assert len(warnings) == 21
    assert "29980 more" in warnings[-1]


def test_a_rank_for_each_of_many_modules(tmp_path, make):
    """As EVA writes it: one key a module."""
    modules = [f"model.layers.{layer}.mlp.experts.{expert}.up_proj" for layer in range(20) for expert in range(100)]
    shapes, ranks = {}, {}
    for number, module in enumerate(modules):
        ranks[module] = rank = number % 4 + 1
        shapes[f"base_model.model.{module}.lora_A.weight"] = (rank, 2)
        shapes[f"base_model.model.{module}.lora_B.weight"] = (2, rank)
    path = make.adapter(tmp_path / "a", shapes=shapes, target_modules=["up_proj"], rank_pattern=ranks)
    assert {module.name: module.rank for module in inspect_adapter(path).modules} == ranks
