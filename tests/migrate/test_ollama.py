"""Ollama's Modelfiles and the variables of its server."""

from pathlib import Path

import pytest

from garrison.base.errors import InvalidError
from garrison.engines.catalogue import load
from garrison.migrate.modelfile import parse_modelfile
from garrison.migrate.ollama import _PARAMETERS, read_environment
from garrison.migrate.sources import migrate
from garrison.migrate.values import Found
from garrison.migrate.write import manifest_text, read_back

MODELFILE = '''\
# Mario
FROM ./mario.gguf
PARAMETER temperature 0.7
PARAMETER num_ctx 4096
PARAMETER stop "<|im_end|>"
PARAMETER stop "<|eot|>"
PARAMETER use_mmap false
ADAPTER ./lora.gguf
TEMPLATE """{{ if .System }}<|im_start|>system
{{ .System }}<|im_end|>
FROM not-an-instruction
{{ end }}"""
SYSTEM You are Mario.
LICENSE """
MIT
"""
'''
UNIT = """\
[Unit]
Description=Ollama
[Service]
ExecStart=/usr/local/bin/ollama serve
Environment="OLLAMA_HOST=0.0.0.0:11500" OLLAMA_NUM_PARALLEL=2
Environment="OLLAMA_ORIGINS=https://a.example,https://b.example"
Environment=OLLAMA_KEEP_ALIVE=1h30m
Environment=OLLAMA_FLASH_ATTENTION=1
Environment=OLLAMA_KV_CACHE_TYPE=q8_0
Environment=OLLAMA_MAX_LOADED_MODELS=2
Environment=OLLAMA_GPU_OVERHEAD=1000
Environment=CUDA_VISIBLE_DEVICES=0,1
"""


def remarks(found: Found) -> str:
    return "\n".join(f"{one.where}: {one.text}" for one in found.remarks)


@pytest.fixture
def found(tmp_path: Path) -> Found:
    (tmp_path / "Modelfile.mario").write_text(MODELFILE)
    (tmp_path / "override.conf").write_text(UNIT)
    return migrate("ollama", [tmp_path / "Modelfile.mario", tmp_path / "override.conf"], "/home/x")


def test_a_modelfile_is_an_instance_of_llama_cpp(found: Found, tmp_path: Path) -> None:
    mario = read_back(manifest_text(found, "x"), tmp_path).instances["mario"]
    assert (mario.engine, mario.model) == ("llama_cpp", str(tmp_path / "mario.gguf"))
    assert dict(mario.options) == {
        "ctx_size": 8192,  # llama-server shares it among the slots
        "parallel": 2,
        "flash_attn": "on",
        "cache_type_k": "q8_0",
        "cache_type_v": "q8_0",
        "temp": 0.7,
        "load_mode": "none",
        "lora": [str(tmp_path / "lora.gguf")],
    }
    assert mario.idle == 5400.0
    assert mario.devices == ("0", "1")


def test_settings_and_remarks(found: Found) -> None:
    assert found.settings == {
        "GARRISON_GATEWAY_OLLAMA_HOST": "0.0.0.0",
        "GARRISON_GATEWAY_OLLAMA_PORT": "11500",
        "GARRISON_ALLOWED_ORIGINS": "https://a.example,https://b.example",
        "GARRISON_MAX_RUNNING_INSTANCES": "2",
    }
    said = remarks(found)
    for key in ("OLLAMA_GPU_OVERHEAD", "PARAMETER stop", "TEMPLATE", "SYSTEM", "LICENSE"):
        assert key in said


def test_a_template_hides_its_lines() -> None:
    parsed = parse_modelfile(MODELFILE)
    assert parsed.model == "./mario.gguf"
    assert parsed.parameters[0] == ("temperature", "0.7")
    assert parsed.others == ("template", "system", "license")


def test_every_parameter_is_an_option_of_llama_server() -> None:
    known = load("llama_cpp").by_spelling()
    assert [option for option in _PARAMETERS.values() if f"--{option.replace('_', '-')}" not in known] == []
    assert {"--ctx-size", "--parallel", "--flash-attn", "--cache-type-k", "--load-mode", "--lora"} <= known.keys()


NAMES = {
    "hf.co/org/name:Q4_K_M": ("org/name", "the tag 'Q4_K_M'"),
    "hf.co/org/name": ("org/name", ""),
    "llama3.2:3b": ("llama3.2:3b", "Ollama's library"),
    "/srv/x.gguf": ("/srv/x.gguf", ""),
}


@pytest.mark.parametrize(("named", "wanted"), NAMES.items(), ids=NAMES)
def test_where_a_model_comes_from(tmp_path: Path, named: str, wanted: tuple[str, str]) -> None:
    (tmp_path / "Modelfile").write_text(f"FROM {named}\n")
    found = migrate("ollama", [tmp_path / "Modelfile"], "/home/x")
    (one,) = read_back(manifest_text(found, "x"), tmp_path).instances.values()
    assert one.model == wanted[0]
    assert one.idle == 300.0
    assert wanted[1] in remarks(found)


KEPT = {"-1": 8760 * 3600.0, "0": 1.0, "90": 90.0, "10m": 600.0, "soon": 300.0}


@pytest.mark.parametrize(("text", "seconds"), KEPT.items(), ids=KEPT)
def test_how_long_a_model_is_kept(tmp_path: Path, text: str, seconds: float) -> None:
    (tmp_path / "Modelfile").write_text("FROM /m.gguf\n")
    (tmp_path / "env").write_text(f"# mine\nexport OLLAMA_KEEP_ALIVE={text}\n")
    found = migrate("ollama", [tmp_path / "Modelfile", tmp_path / "env"], "/home/x")
    (one,) = read_back(manifest_text(found, "x"), tmp_path).instances.values()
    assert one.idle == seconds


def test_variables_alone_are_a_manifest_without_instances(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("OLLAMA_MAX_QUEUE=32\nOTHER=1\n")
    found = migrate("ollama", [tmp_path / "env"], "/home/x")
    assert found.settings == {"GARRISON_START_QUEUE": "32"}
    assert read_back(manifest_text(found, "x"), tmp_path).stack == "ollama"


def test_a_unit_with_continued_and_quoted_lines() -> None:
    text = '[Service]\nEnvironment="A=b c" \\\n  B=50%%\nEnvironmentFile=/x\nExecStart=/bin/x C=1\n'
    assert read_environment(text) == {"A": "b c", "B": "50%"}


def test_a_modelfile_that_is_not_closed(tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text('FROM x\nSYSTEM """never\nends\n')
    with pytest.raises(InvalidError, match="not closed"):
        migrate("ollama", [tmp_path / "Modelfile"], "/home/x")
