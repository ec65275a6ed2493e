"""Which files llama.cpp would load for ORG/NAME:QUANTIZATION."""

import pytest

from garrison.base.errors import InvalidError
from garrison.models.gguf_choice import choose_gguf, gguf_models, model_files, projector_for

NAMES = [
    "README.md",
    "m-Q8_0.gguf",
    "m-Q4_K_M.gguf",
    "m-IQ4_K_M.gguf",
    "mmproj-m-F16.gguf",
    "big/m-Q6_K-00001-of-00002.gguf",
    "big/m-Q6_K-00002-of-00002.gguf",
    "mtp-m-Q4_K_M.gguf",
    "m.imatrix.gguf",
]
CHOSEN = {
    "": "m-Q4_K_M.gguf",
    "Q4_K_M": "m-Q4_K_M.gguf",
    "q8_0": "m-Q8_0.gguf",
    "iq4_k_m": "m-IQ4_K_M.gguf",
    "Q6_K": "big/m-Q6_K-00001-of-00002.gguf",
}


@pytest.mark.parametrize(("quantization", "file"), CHOSEN.items())
def test_a_quantization_in_any_case(quantization: str, file: str) -> None:
    assert choose_gguf(NAMES, quantization, "acme/m") == file


DEFAULTS = {
    "Q8_0 where there is no Q4_K_M": (["m-F16.gguf", "m-Q8_0.gguf"], "m-Q8_0.gguf"),
    "else the first": (["b.gguf", "a.gguf"], "a.gguf"),
    "of two, the first": (["x/m-Q4_K_M.gguf", "m-Q4_K_M.gguf"], "m-Q4_K_M.gguf"),
}


@pytest.mark.parametrize(("names", "file"), DEFAULTS.values(), ids=DEFAULTS)
def test_the_usual_one(names: list[str], file: str) -> None:
    assert choose_gguf(names, "", "acme/m") == file


@pytest.mark.parametrize("quantization", ["Q3_K", "Q4_K", "4_K_M", "F16"])
def test_none_of_that_quantization(quantization: str) -> None:
    with pytest.raises(InvalidError, match=f"acme/m has no GGUF file of {quantization}") as caught:
        choose_gguf(NAMES, quantization, "acme/m")
    assert "m-Q4_K_M.gguf" in caught.value.details["files"]


def test_no_gguf_at_all() -> None:
    with pytest.raises(InvalidError, match="has no GGUF file"):
        choose_gguf(["README.md", "mmproj-F16.gguf"], "", "acme/m")


def test_models_are_neither_later_parts_nor_what_lies_beside_them() -> None:
    assert gguf_models(NAMES) == [
        "big/m-Q6_K-00001-of-00002.gguf", "m-IQ4_K_M.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf",
    ]  # fmt: skip


PROJECTORS = {
    "beside it": (["mmproj-F16.gguf"], "m-Q4_K_M.gguf", "mmproj-F16.gguf"),
    "in the directory above": (["mmproj-F16.gguf"], "Q4/m-Q4_K_M.gguf", "mmproj-F16.gguf"),
    "in its own directory first": (["mmproj-F16.gguf", "a/mmproj-F32.gguf"], "a/m-Q4_K_M.gguf", "a/mmproj-F32.gguf"),
    "not in another directory": (["a/mmproj-F16.gguf"], "b/m.gguf", None),
    "the closest": (["mmproj-BF16.gguf", "mmproj-F32.gguf", "mmproj-Q8_0.gguf"], "m-Q4_K_M.gguf", "mmproj-Q8_0.gguf"),
    "of a split model": (["mmproj-F16.gguf", "mmproj-F32.gguf"], "m-F32-00001-of-00002.gguf", "mmproj-F32.gguf"),
    "none": (["README.md"], "m.gguf", None),
    "of a projector": (["mmproj-F16.gguf"], "mmproj-F32.gguf", None),
}


@pytest.mark.parametrize(("names", "model", "projector"), PROJECTORS.values(), ids=PROJECTORS)
def test_projectors(names: list[str], model: str, projector: str | None) -> None:
    assert projector_for([*names, model], model) == projector


def test_the_files_of_a_model() -> None:
    first, second = NAMES[5:7]
    assert model_files(NAMES, first) == sorted([first, second, "mmproj-m-F16.gguf"])
    assert model_files(NAMES, "m-Q8_0.gguf") == ["m-Q8_0.gguf", "mmproj-m-F16.gguf"]
    assert model_files(NAMES, "gone.gguf") == []
    with pytest.raises(InvalidError, match="part 2"):
        model_files(NAMES, second)
