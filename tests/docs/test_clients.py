"""The versions of clients in the docs are those that the tests use."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| (.+?) \| (\d[\d.]*) \| ", re.MULTILINE)


def test_the_table_of_clients() -> None:
    page = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
    told = {client: number for client, number in ROW.findall(page) if client != "curl"}
    pins = tomllib.loads((ROOT / "tests" / "clients" / "pinned.toml").read_text(encoding="utf-8"))
    pinned = {name: re.split("==|@", next(iter(row.values())))[1] for name, row in pins.items()}
    assert told == {
        "`openai` for Python, with strict validation of answers": version("openai"),
        "`anthropic` for Python, with strict validation of answers": version("anthropic"),
        "`openai` from npm": pinned["openai-node"],
        "LiteLLM, providers `openai`, `hosted_vllm` and `anthropic`": pinned["litellm"],
        "`websockets`": version("websockets"),
        "`llm-comply`": pinned["llm-comply"],
    }
