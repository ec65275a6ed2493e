"""llamactl's config, database and exported instances, as reference and API describe them."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import GarrisonError
from garrison.migrate import llamactl
from garrison.migrate.sources import migrate
from garrison.migrate.values import Found
from garrison.migrate.write import manifest_text, read_back

CONFIG = """\
server:
  host: 0.0.0.0
  port: 9090
  allowed_origins: ["https://ui.example"]
  enable_swagger: true
backends:
  llama-cpp:
    command: /opt/llama/llama-server
    args: ["--threads", "8"]
    environment: {LLAMA_ARG_X: "1"}
    docker: {enabled: false, image: "ghcr.io/ggml-org/llama.cpp:server-cuda"}
    response_headers: {X-Accel-Buffering: "no"}
  vllm:
    command: vllm
    args: ["serve"]
data_dir: /srv/llamactl
local_node: box
nodes:
  gpu-2: {address: "http://10.0.0.2:8080", api_key: node-secret-value}
instances:
  port_range: [8100, 8200]
  max_running_instances: 3
  group_limits: {big: 1, small: 2}
  enable_lru_eviction: false
  default_idle_timeout: 45
  default_restart_delay: "${DELAY:-7}"
  timeout_check_interval: 5
database: {path: /srv/llamactl/llamactl.db}
auth:
  require_inference_auth: true
  management_keys: [llamactl-mgmt-0123456789]
"""

QWEN: dict[str, Any] = {
    "auto_restart": True, "max_restarts": 5, "restart_delay": 10, "on_demand_start": True, "idle_timeout": 30,
    "environment": {"HF_TOKEN": "hf_verysecret", "OMP_NUM_THREADS": "4"}, "docker_enabled": False,
    "command_override": "/opt/venv/bin/vllm", "group": "big", "nodes": ["box"], "backend_type": "vllm",
    "backend_options": {
        "model": "Qwen/Qwen2.5-7B-Instruct", "port": 8101, "host": "127.0.0.1", "max_model_len": 8192, "seed": 0,
        "enforce_eager": False, "enable_prefix_caching": True, "api_key": ["backend-secret-key"],
        "extra_args": {"enable_expert_parallel": "true", "kv-cache-dtype": "fp8"},
    },
}  # fmt: skip
LLAMA: dict[str, Any] = {
    "idle_timeout": 0, "preset_ini": "[x]", "backend_type": "llama_cpp", "nodes": ["gpu-2", "box"],
    "backend_options": {"hf_repo": "unsloth/Qwen3-GGUF", "hf_file": "q4.gguf", "ctx_size": 4096, "gpu_layers": 99},
}  # fmt: skip
ROUTER: dict[str, Any] = {
    "backend_type": "llama_cpp", "preset_ini": "; all\r\n[one]  \r\nmodel = ${MODELS}/one.gguf\r\n",
    "backend_options": {"models_max": 2, "port": 8102},
}  # fmt: skip
DIRECTORY: dict[str, Any] = {"backend_type": "llama_cpp", "backend_options": {"models_dir": "/srv/models"}}
MLX: dict[str, Any] = {"backend_type": "mlx_lm", "docker_enabled": True, "backend_options": {"model": "mlx/a"}}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "llamactl.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(
        "CREATE TABLE instances(id INTEGER PRIMARY KEY, name TEXT UNIQUE, status TEXT DEFAULT 'stopped', "
        "created_at INTEGER, updated_at INTEGER, options_json TEXT, owner_user_id TEXT NULL)"
    )
    rows = [
        ("qwen", QWEN),
        ("_llama", LLAMA),
        ("mlx.1", MLX),
        ("router", ROUTER),
        ("many", DIRECTORY),
        ("odd", {"backend_type": "sglang"}),
    ]
    connection.executemany(
        "INSERT INTO instances(name, options_json) VALUES (?, ?)", [(name, json.dumps(one)) for name, one in rows]
    )
    connection.commit()
    connection.close()
    return path


def config(tmp_path: Path, text: str = CONFIG) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def remarks(found: Found) -> str:
    return "\n".join(f"{one.where}: {one.text}" for one in found.remarks)


def test_settings_are_those_that_garrison_knows(tmp_path: Path) -> None:
    found = migrate("llamactl", [config(tmp_path)], "/home/x")
    assert found.settings == {
        "GARRISON_SERVER_HOST": "0.0.0.0",
        "GARRISON_SERVER_PORT": "9090",
        "GARRISON_ALLOWED_ORIGINS": "https://ui.example",
        "GARRISON_LLAMA_EXECUTABLE": "/opt/llama/llama-server",
        "GARRISON_LLAMA_ARGS": "--threads 8",
        "GARRISON_LLAMA_ENV": "LLAMA_ARG_X=1",
        "GARRISON_LLAMA_CONTAINER": "0",
        "GARRISON_LLAMA_IMAGE": "ghcr.io/ggml-org/llama.cpp:server-cuda",
        "GARRISON_VLLM_EXECUTABLE": "vllm",
        "GARRISON_VLLM_ARGS": "serve",
        "GARRISON_NODE_NAME": "box",
        "GARRISON_INSTANCE_PORT_RANGE": "8100-8200",
        "GARRISON_MAX_RUNNING_INSTANCES": "3",
        "GARRISON_GROUP_LIMITS": "big=1,small=2",
        "GARRISON_ENABLE_LRU_EVICTION": "0",
        "GARRISON_IDLE_TIMEOUT": "45",
        "GARRISON_DEFAULT_RESTART_DELAY": "${DELAY:-7}",
        "GARRISON_REQUIRE_INFERENCE_AUTH": "1",
    }


def test_what_has_no_equivalent_is_said_and_secrets_are_not_copied(tmp_path: Path) -> None:
    found = migrate("llamactl", [config(tmp_path)], "/home/x")
    said = remarks(found)
    for key in ("server.enable_swagger", "backends.llama-cpp.response_headers", "auth.management_keys", "nodes.gpu-2"):
        assert key in said
    assert "/srv/llamactl/llamactl.db is not there" in said
    text = manifest_text(found, "test")
    assert "llamactl-mgmt" not in text
    assert "node-secret-value" not in text


def test_the_instances_of_a_database(tmp_path: Path, database: Path) -> None:
    found = migrate("llamactl", [config(tmp_path), database], "/home/x")
    text = manifest_text(found, "test")
    assert "hf_verysecret" not in text
    assert "backend-secret-key" not in text
    declared = read_back(text, tmp_path)
    qwen = declared.instances["qwen"]
    assert qwen.model == "Qwen/Qwen2.5-7B-Instruct"
    assert dict(qwen.options) == {
        "max_model_len": 8192,
        "enable_prefix_caching": True,
        "extra_args": {"enable_expert_parallel": True, "kv-cache-dtype": "fp8"},
    }
    assert (qwen.idle, qwen.group, qwen.max_restarts, qwen.restart_delay) == (1800.0, "big", 5, 10.0)
    assert (qwen.executable, qwen.node) == (("/opt/venv/bin/vllm",), None)
    assert qwen.to_json()["env"] == {"HF_TOKEN": {"env": "HF_TOKEN"}, "OMP_NUM_THREADS": "4"}
    llama = declared.instances["llama"]
    assert (llama.model, llama.idle, llama.node) == ("unsloth/Qwen3-GGUF/q4.gguf", 0.0, "gpu-2")
    assert llama.preset_ini == "[x]\n"
    router, many = declared.instances["router"], declared.instances["many"]
    assert (router.model, router.options) == (None, {"models_max": 2})
    assert router.preset_ini == "; all\n[one]\nmodel = ${MODELS}/one.gguf\n", "a `${` is plain text there"
    assert "    preset_ini: |\n      ; all\n" in text
    assert (many.model, many.options) == (None, {"models_dir": "/srv/models"})
    assert declared.routes["_llama"].to[0].place == "llama"
    assert declared.instances["mlx.1"].container is None
    assert "odd" not in declared.instances
    said = remarks(found)
    assert "instances.odd: left out: unknown backend_type 'sglang'" in said
    assert "preset_ini" not in said
    assert "enforce_eager, seed: zero, false or empty" in said


def test_the_database_named_in_the_config_is_read(tmp_path: Path, database: Path) -> None:
    found = migrate("llamactl", [config(tmp_path, f"data_dir: {database.parent}\n")], "/home/x")
    assert set(found.instances) == {"qwen", "llama", "mlx.1", "router", "many"}


@pytest.mark.parametrize("many", [False, True])
def test_exported_instances(tmp_path: Path, many: bool) -> None:
    one = {"id": 3, "name": "qwen", "status": "stopped", "created": 1722000000, "options": QWEN}
    (tmp_path / "export.json").write_text(json.dumps([one] if many else one))
    found = migrate("llamactl", [tmp_path / "export.json"], "/home/x")
    assert list(found.instances) == ["qwen"]
    assert read_back(manifest_text(found, "x"), tmp_path).instances["qwen"].engine == "vllm"


def test_a_preset_that_cannot_be_taken_over() -> None:
    found = Found(stack="x")
    llamactl.add_instance("a", {**DIRECTORY, "preset_ini": "[x]\x1b[2J"}, found)
    llamactl.add_instance("b", {**MLX, "preset_ini": "[x]"}, found)
    llamactl.add_instance("c", {"backend_type": "llama_cpp", "preset_ini": "[x]\0"}, found)
    assert list(found.instances) == ["a", "b"]
    assert [one.text for one in found.remarks] == [
        "left out: it holds a control character", "left out: only llama_cpp has presets",
        "left out: it holds a control character", "left out: it names no model",
    ]  # fmt: skip


WRONG = {
    "not there": (None, "no file"),
    "a list": (b"- 1\n", "neither a config nor an instance"),
    "bytes": (b"\xff\xfe", "not UTF-8"),
    "not YAML": (b"a: [", "close the bracket"),
    "a damaged database": (b"SQLite format 3\0" + b"x" * 200, "cannot be read as a database"),
}


@pytest.mark.parametrize(("content", "said"), WRONG.values(), ids=WRONG)
def test_wrong_files(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GarrisonError) as raised:
        migrate("llamactl", [path], "/home/x")
    assert said in f"{raised.value.message} {raised.value.hint}"


def test_a_database_that_never_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "evil.db"
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE VIEW instances AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT CAST(i AS TEXT) AS name, '{}' AS options_json FROM n"
    )
    connection.close()
    monkeypatch.setattr("garrison.migrate.llamactl_database._SECONDS", 0.2)
    with pytest.raises(GarrisonError, match="interrupted"):
        migrate("llamactl", [path], "/home/x")
