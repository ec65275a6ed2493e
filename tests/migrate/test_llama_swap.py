"""llama-swap's config: commands with macros become instances, and what a manifest cannot say is named."""

from pathlib import Path

import pytest
import yaml

from garrison.base.errors import InvalidError
from garrison.migrate.sources import migrate
from garrison.migrate.values import Found
from garrison.migrate.write import manifest_text, read_back
from garrison.net.endpoint import Secret

CONFIG = """\
healthCheckTimeout: 300
logLevel: warn
startPort: 10001
globalTTL: 600
apiKeys: ["sk-swap-secret"]
macros:
  models: /srv/models
  server: /opt/llama/llama-server --port ${PORT} --host 0.0.0.0
  ctx: 8192
models:
  "llama":
    cmd: |
      # the fast one
      ${server}
      --model ${models}/llama-8b.gguf   \\
      --ctx-size ${ctx} -ngl 99
      --alias ${MODEL_ID}
    aliases: ["gpt-4o-mini", "gpt-3.5-turbo"]
    ttl: 1800
    env: ["CUDA_VISIBLE_DEVICES=0", "HF_TOKEN=hf_swapsecret", "CACHE=${env.CACHE_DIR}"]
    filters:
      stripParams: "temperature, top_p, model"
      setParams: {max_tokens: "${ctx}", model: x, template: {who: "${env.WHO}"}}
      setParamsByID: {"${MODEL_ID}:high": {reasoning_effort: high}, "${MODEL_ID}": {seed: 1}, gpt-4: {}}
    concurrencyLimit: 4
  "Qwen/Qwen3:8b":
    macros: {ctx: 32768}
    cmd: vllm serve Qwen/Qwen3-8B --port ${PORT} --max-model-len ${ctx} --api-key swap-backend-secret
    ttl: 0
  "whisper":
    cmd: /opt/whisper/server --port ${PORT} -m ${models}/whisper.bin --token hunter22
    checkEndpoint: /v1/audio/transcriptions/
    cmdStop: kill ${PID}
  "box":
    cmd: >
      docker run --rm --name box -p ${PORT}:8000 --gpus all -v /hf:/root/.cache/huggingface
      vllm/vllm-openai:v0.32.0 --model org/in-a-box --dtype bfloat16
  "fixed":
    cmd: python server.py
    proxy: http://127.0.0.1:9999
  "nothing":
    name: no command
groups:
  gpu: {swap: true, exclusive: true, members: ["llama", "Qwen/Qwen3:8b"]}
  always: {swap: false, persistent: true, members: ["whisper"]}
hooks: {on_startup: {preload: ["llama", "ghost"]}}
selectors:
  any-chat: {strategy: spillover, targets: ["llama", "Qwen/Qwen3:8b"], settings: {spillover: 2}}
  odd: {strategy: unheard-of, targets: ["llama"]}
sendLoadingState: true
profiles: {night: {pins: {llama: whisper, box: null, "a/": x}}}
peers:
  cloud: {proxy: "https://api.example/v1", models: [big-one], apiKey: "${env.CLOUD_KEY}"}
  lan: {proxy: "http://10.0.0.9:8080", models: [a, b], apiKey: literal-peer-secret}
"""


@pytest.fixture
def found(tmp_path: Path) -> Found:
    (tmp_path / "config.yaml").write_text(CONFIG)
    return migrate("llama-swap", [tmp_path / "config.yaml"], "/home/x")


def remarks(found: Found) -> str:
    return "\n".join(f"{one.where}: {one.text}" for one in found.remarks)


def test_a_command_with_macros_is_an_instance_of_its_engine(found: Found, tmp_path: Path) -> None:
    declared = read_back(manifest_text(found, "x"), tmp_path)
    llama = declared.instances["llama"]
    assert (llama.engine, llama.model) == ("llama_cpp", "/srv/models/llama-8b.gguf")
    assert dict(llama.options) == {"ctx_size": 8192, "gpu_layers": 99, "alias": "llama"}
    assert llama.executable == ("/opt/llama/llama-server",)
    assert (llama.idle, llama.group, llama.preload) == (1800.0, "gpu", True)
    assert llama.env["CACHE"] == Secret("env", "CACHE_DIR")
    assert llama.env["HF_TOKEN"] == Secret("env", "HF_TOKEN")
    qwen = declared.instances["Qwen-Qwen3-8b"]
    assert (qwen.engine, qwen.model, qwen.options["max_model_len"]) == ("vllm", "Qwen/Qwen3-8B", "32768")
    box = declared.instances["box"]
    assert (box.engine, box.model, box.container) == ("vllm", "org/in-a-box", True)


def test_a_ttl_of_zero_is_not_a_pin(found: Found) -> None:
    """llama-swap still swaps such a model out; `idle: never` would keep it from being evicted."""
    assert found.instances["Qwen-Qwen3-8b"]["idle"] == "8760h"
    assert found.instances["whisper"]["idle"] == "10m"


def test_any_other_program_is_a_custom_server(found: Found, tmp_path: Path) -> None:
    declared = read_back(manifest_text(found, "x"), tmp_path)
    whisper = declared.instances["whisper"]
    assert whisper.custom is not None
    assert whisper.custom.argv[:5] == ("/opt/whisper/server", "--port", "{port}", "-m", "/srv/models/whisper.bin")
    assert whisper.custom.ready_path == "/v1/audio/transcriptions/"
    assert whisper.pin
    fixed = declared.instances["fixed"]
    assert fixed.custom is not None
    assert (fixed.custom.argv, fixed.port) == (("python", "server.py"), 9999)


def test_names_are_kept_for_clients(found: Found, tmp_path: Path) -> None:
    routes = read_back(manifest_text(found, "x"), tmp_path).routes
    ends = {name: [one.text for one in route.to] for name, route in routes.items()}
    assert ends == {
        "Qwen/Qwen3:8b": ["Qwen-Qwen3-8b"],
        "llama": ["llama"],
        "any-chat": ["llama", "Qwen-Qwen3-8b"],
        "big-one": ["cloud"],
    }


def test_what_is_changed_in_requests_is_a_route_of_the_models_name(found: Found, tmp_path: Path) -> None:
    routes = read_back(manifest_text(found, "x"), tmp_path).routes
    more = routes["llama"].more
    assert more["strip"] == ["temperature", "top_p"]
    assert more["set"]["max_tokens"] == 8192
    assert more["set"]["seed"] == 1
    assert more["limits"] == {"concurrent": 4}
    assert more["aliases"] == {
        "llama:high": {"set": {"reasoning_effort": "high"}}, "gpt-4": {}, "gpt-4o-mini": {}, "gpt-3.5-turbo": {},
    }  # fmt: skip
    assert "models.llama.filters.setParams: left out" in remarks(found), "the model cannot be changed"
    assert "models.llama.filters.stripParams: left out" in remarks(found)
    assert routes["any-chat"].more == {"spill": {"limit": 2}}


def test_profiles_are_profiles(found: Found, tmp_path: Path) -> None:
    assert read_back(manifest_text(found, "x"), tmp_path).profiles == {"night": {"llama": "whisper", "box": None}}
    assert "profiles.night.pins: left out: 'a/'" in remarks(found)


def test_peers_are_targets(found: Found, tmp_path: Path) -> None:
    targets = read_back(manifest_text(found, "x"), tmp_path).targets
    assert targets["cloud"].base_url == "https://api.example"
    assert targets["cloud"].api_key == Secret("env", "CLOUD_KEY")
    assert targets["lan"].api_key == Secret("env", "LAN_API_KEY")


def test_settings(found: Found) -> None:
    assert found.settings == {
        "GARRISON_GROUP_LIMITS": "gpu=1",
        "GARRISON_ON_DEMAND_START_TIMEOUT": "300",
        "GARRISON_INSTANCE_PORT_RANGE": "10001-11000",
        "GARRISON_LOG_LEVEL": "warning",
        "GARRISON_LOADING_COMMENTS": "5",
    }


def test_what_has_no_equivalent_is_said(found: Found) -> None:
    said = remarks(found)
    for key in (
        "models.llama.concurrencyLimit", "models.whisper.cmdStop", "models.nothing: left out",
        "groups.gpu: exclusive", "unknown model 'ghost'", "selectors.odd: left out", "peers.lan", "apiKeys",
    ):  # fmt: skip
        assert key in said


def test_no_secret_is_written(found: Found) -> None:
    text = manifest_text(found, "x")
    for secret in ("sk-swap-secret", "hf_swapsecret", "swap-backend-secret", "hunter22", "literal-peer-secret"):
        assert secret not in text


def test_without_groups_one_model_runs_at_a_time(tmp_path: Path) -> None:
    models = {name: {"cmd": f"llama-server -m /{name}.gguf --port ${{PORT}}"} for name in "ab"}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"models": models}))
    found = migrate("llama-swap", [tmp_path / "c.yaml"], "/home/x")
    assert found.settings == {"GARRISON_MAX_RUNNING_INSTANCES": "1"}


def test_a_macro_that_contains_itself_ends(tmp_path: Path) -> None:
    content = {"macros": {"a": "${b} ${b}", "b": "${a} ${a}"}, "models": {"m": {"cmd": "x ${a} --port ${PORT}"}}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    found = migrate("llama-swap", [tmp_path / "c.yaml"], "/home/x")
    assert read_back(manifest_text(found, "x"), tmp_path).instances["m"].engine == "custom"


def test_a_dollar_in_the_name_of_a_parameter_is_no_variable(tmp_path: Path) -> None:
    filters = {"stripParams": "${a, ${b}, $$c, top_p", "setParams": {"${d}": "${e"}}
    content = {"models": {"m": {"cmd": "llama-server -m /m.gguf --port ${PORT}", "filters": filters}}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    found = migrate("llama-swap", [tmp_path / "c.yaml"], "/home/x")
    more = read_back(manifest_text(found, "x"), tmp_path).routes["m"].more
    assert more == {"strip": ["${a", "${b}", "$$c", "top_p"], "set": {"${d}": "${e"}}


def test_no_models(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("models: []\n")
    with pytest.raises(InvalidError, match="no mapping `models`"):
        migrate("llama-swap", [tmp_path / "c.yaml"], "/home/x")
