"""The gateway's list as Ollama's: names, tags, show, ps."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from garrison.gateway.ollama.translation.errors import AnswerError
from garrison.gateway.ollama.translation.listing import (
    Entry,
    listed_name,
    loaded,
    read_entries,
    resolve,
    shown,
    tags,
    without_latest,
)

QWEN = Entry(
    "qwen", created=1_700_000_000, state="running", model="Qwen/Qwen2.5-0.5B-Instruct", engine="vllm",
    max_model_len=4096, memory={"GPU-1": 3_000, "host": 1_000}, idle_timeout=60.0,
)  # fmt: skip
COLD = Entry("cold", created=1_600_000_000, state="stopped", engine="llama_cpp")
ROUTE = Entry("gpt-4o-mini")
ENTRIES = [QWEN, COLD, ROUTE]


@pytest.mark.parametrize(
    ("name", "expected", "entry"),
    [
        ("qwen", "qwen", QWEN),
        ("qwen:latest", "qwen", QWEN),
        ("qwen/sql", "qwen/sql", QWEN),
        ("qwen/sql:latest", "qwen/sql", QWEN),
        ("qwen/org/sql", "qwen/org/sql", QWEN),
        ("gpt-4o-mini:latest", "gpt-4o-mini", ROUTE),
        ("qwen:7b", "qwen:7b", None),
        ("nope", "nope", None),
        ("nope:latest", "nope", None),
        ("nope/sql", "nope/sql", None),
    ],
)
def test_names(name: str, expected: str, entry: Entry | None) -> None:
    found = resolve(name, ENTRIES)
    assert (found.name, found.entry) == (expected, entry)


def test_an_exact_name_comes_first() -> None:
    exact = Entry("qwen:latest")
    assert resolve("qwen:latest", [QWEN, exact]).entry is exact
    assert resolve("qwen", [QWEN, exact]).entry is QWEN


@pytest.mark.parametrize(
    ("name", "listed"),
    [("qwen", "qwen:latest"), ("qwen:7b", "qwen:7b"), ("qwen/sql", "qwen/sql:latest"), ("a:1/b", "a:1/b:latest")],
)
def test_listed_names_have_a_tag(name: str, listed: str) -> None:
    assert listed_name(name) == listed
    assert without_latest(listed) == (name if listed.endswith(":latest") else listed)


def test_tags() -> None:
    first, second, third = tags(ENTRIES)["models"]
    assert first["name"] == first["model"] == "qwen:latest"
    assert first["modified_at"] == "2023-11-14T22:13:20.000000Z"
    assert first["size"] == 4_000
    assert first["details"] == {
        "parent_model": "", "format": "safetensors", "family": "vllm", "families": ["vllm"], "parameter_size": "",
        "quantization_level": "", "context_length": 4096,
    }  # fmt: skip
    assert "tools" in first["capabilities"]
    assert len({one["digest"] for one in (first, second, third)}) == 3
    assert all(len(one["digest"]) == 64 for one in (first, second, third))
    assert second["details"]["format"] == "gguf"
    assert "context_length" not in second["details"]
    assert third["details"]["family"] == "unknown"


def test_ps_has_what_is_in_memory() -> None:
    now = datetime(2026, 5, 4, tzinfo=UTC)
    (row,) = loaded(ENTRIES, now)["models"]
    assert row["model"] == row["name"] == "qwen:latest"
    assert (row["size"], row["size_vram"], row["context_length"]) == (4_000, 3_000, 4096)
    assert row["expires_at"] == "2026-05-04T00:01:00.000000Z"
    (row,) = loaded([Entry("stays", state="draining")], now)["models"]
    assert datetime.fromisoformat(row["expires_at"]).year > 2300
    assert row["context_length"] == 0
    for state in ("stopped", "starting", "sleeping", "failed", ""):
        assert loaded([Entry("x", state=state)], now)["models"] == []


def test_show() -> None:
    found = shown("qwen", QWEN)
    assert found["model_info"] == {
        "general.architecture": "vllm", "general.basename": "qwen", "vllm.context_length": 4096,
    }  # fmt: skip
    assert found["parameters"].split() == ["num_ctx", "4096"]
    assert found["capabilities"]
    assert "Qwen/Qwen2.5-0.5B-Instruct" in found["modelfile"]
    assert ".Prompt" in found["template"]
    assert ".Suffix" not in found["template"], "Continue would send one"
    cold = shown("cold", COLD)
    assert cold["parameters"] == ""
    assert list(cold["model_info"]) == ["general.architecture", "general.basename"]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"data": [{}]}', b'{"data": [{"id": 1}]}', b"\xff"])
def test_a_list_that_is_none(body: bytes) -> None:
    with pytest.raises(AnswerError, match="list of models cannot be read"):
        read_entries(body)


def test_a_list_with_more_than_we_know() -> None:
    row: dict[str, Any] = {"id": "a", "object": "model", "status": {"value": "loaded"}, "node": "edge", "model": None}
    assert read_entries(json.dumps({"object": "list", "data": [row]}).encode()) == [Entry("a")]
