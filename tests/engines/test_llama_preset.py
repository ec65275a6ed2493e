"""What the presets of a llama-server say."""

import pytest

from garrison.engines.llama_preset import files_of_preset, models_of_preset, preset_sections

PRESET = """\
version = 1
; a comment
[*]
c = 512

[org/two]\t; the large one
model = /m/two.gguf # not /m/none.gguf
mmproj=/m/two-mmproj.gguf
# LLAMA_ARG_MODEL = /m/none.gguf
chat-template-kwargs = {"a": "=b"}
flash-attn

[one]
LLAMA_ARG_MODEL = /m/gone.gguf
[one]
LLAMA_ARG_MODEL = /m/one.gguf
hf-repo = org/name
model-draft = relative.gguf
m = /m/two.gguf
"""


def test_the_sections_of_a_preset() -> None:
    assert preset_sections(PRESET) == {
        "default": {"version": "1"},
        "*": {"c": "512"},
        "org/two": {
            "model": "/m/two.gguf", "mmproj": "/m/two-mmproj.gguf", "chat-template-kwargs": '{"a": "=b"}',
            "flash-attn": "",
        },
        "one": {
            "LLAMA_ARG_MODEL": "/m/one.gguf", "hf-repo": "org/name", "model-draft": "relative.gguf", "m": "/m/two.gguf",
        },
    }  # fmt: skip
    assert files_of_preset(PRESET) == ("/m/two.gguf", "/m/two-mmproj.gguf", "/m/one.gguf")
    assert models_of_preset(PRESET) == ("org/two", "one")


@pytest.mark.parametrize(
    ("text", "models"),
    [
        ("[one]\r\nmodel = /m\r\n[two]\r\n", ("one", "two")),
        ("\ufeff[one]", ("one",)),
        ("  [ one]\n\tmodel = /m", ("one",)),
        ("[a]b]\n[c] d\n[e]; f", ("e",)),
        ("[org/m:q4_k_m]\n[org/m:m-Q8_0]\n[org/m:Q8_0]", ("org/m:Q4_K_M", "org/m:Q8_0")),
        ("model = /m", ()),
    ],
)
def test_odd_lines(text: str, models: tuple[str, ...]) -> None:
    assert models_of_preset(text) == models


@pytest.mark.parametrize("text", ["", "\n\n", "[", "]", "[]", "=", "[a", "# only", "\0", "a=b]"])
def test_what_is_no_preset_is_read_all_the_same(text: str) -> None:
    assert isinstance(preset_sections(text), dict)
    assert files_of_preset(text) == ()
    assert models_of_preset(text) == ()
