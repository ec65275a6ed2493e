from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.config_file import config_path
from garrison.base.errors import InvalidError
from garrison.base.settings import SOURCES, Settings, seed_variables


@pytest.fixture
def config(tmp_path: Path) -> dict[str, str]:
    """An environment whose config file is `tmp_path/garrison.yaml`, not there yet."""
    (tmp_path / "config" / "garrison").mkdir(parents=True)
    return {"XDG_CONFIG_HOME": str(tmp_path / "config")}


def write(environ: Mapping[str, str], text: str) -> Path:
    path = config_path(environ)
    path.write_text(text)
    return path


# The seed's tables: variable, name of the setting, default in the vllm-* commands.
DEFAULTS = [
    ("VLLM_HOST", "engine_host", "0.0.0.0"),
    ("VLLM_PORT", "engine_port", 8000),
    ("VLLM_DRY_RUN", "dry_run", False),
    ("VLLM_SKIP_GPU_CHECK", "skip_gpu_check", False),
    ("VLLM_MIN_FREE_GPU_GB", "min_free_gpu_gb", 4.0),
    ("VLLM_MAX_GPU_TEMP_C", "max_gpu_temp_c", 85),
    ("VLLM_MAX_GPU_UTIL_PCT", "max_gpu_util_pct", 95),
    ("VLLM_GPU_FAIL_ON", "gpu_fail_on", ("temperature",)),
    ("VLLM_GPU_DEVICES", "gpu_devices", ()),
    ("VLLM_ALLOW_OTHER_UID_KILL", "allow_other_uid_kill", False),
    ("VLLM_STOP_TIMEOUT", "stop_timeout", 15),
    ("VLLM_PROCESS_SIGNATURES", "process_signatures", ()),
    ("VLLM_PREFLIGHT_LOCKFILE", "preflight_lockfile", "/tmp/vllm-preflight.{port}.lock"),
    ("VLLM_PREFLIGHT_JSON", "preflight_json", False),
    ("VLLM_PREFLIGHT_PROXY_CHILD", "preflight_proxy_child", True),
    (
        "VLLM_START_BIND_TIMEOUT",
        "start_bind_timeout",
        None,
    ),  # patience by progress, as the issue asks; not the seed's 60
    ("VLLM_START_BIND_POLL", "start_bind_poll", 0.2),
    ("VLLM_MODEL_SOURCES", "model_sources", ("flox", "local", "hf-cache", "r2", "hf-hub")),
    ("VLLM_RESOLVE_LOCK_TIMEOUT", "resolve_lock_timeout", 300),
    ("VLLM_SKIP_TOKENIZER_CHECK", "skip_tokenizer_check", False),
    ("VLLM_KEEP_LOGS", "keep_logs", False),
    ("VLLM_PREFIX_CACHING", "prefix_caching", False),
    ("VLLM_ENV_FILE_TRUSTED", "env_file_trusted", False),
]

TAKEN: list[tuple[str, str, Any]] = [
    ("VLLM_HOST", "127.0.0.1", "127.0.0.1"),
    ("VLLM_HOST", "node-1", "node-1"),
    ("VLLM_PORT", "1", 1),
    ("VLLM_PORT", "65535", 65535),
    ("VLLM_DRY_RUN", "1", True),
    ("VLLM_SKIP_GPU_CHECK", "0", False),
    ("VLLM_MIN_FREE_GPU_GB", "0", 0.0),
    ("VLLM_MIN_FREE_GPU_GB", "2.5", 2.5),
    ("VLLM_MAX_GPU_TEMP_C", "1", 1),
    ("VLLM_MAX_GPU_UTIL_PCT", "0", 0),
    ("VLLM_MAX_GPU_UTIL_PCT", "100", 100),
    ("VLLM_GPU_FAIL_ON", "temperature,memory,utilization", ("temperature", "memory", "utilization")),
    ("VLLM_GPU_DEVICES", "0,GPU-abc", ("0", "GPU-abc")),
    ("CUDA_VISIBLE_DEVICES", "1", ("1",)),
    ("VLLM_ALLOW_OTHER_UID_KILL", "1", True),
    ("VLLM_STOP_TIMEOUT", "0", 0),
    ("VLLM_PROCESS_SIGNATURES", "my.custom.launcher,another_entrypoint", ("my.custom.launcher", "another_entrypoint")),
    ("VLLM_PREFLIGHT_LOCKFILE", "/run/x.lock", "/run/x.lock"),
    ("VLLM_PREFLIGHT_JSON", "1", True),
    ("VLLM_PREFLIGHT_PROXY_CHILD", "0", False),
    ("VLLM_START_BIND_TIMEOUT", "0.5", 0.5),
    ("VLLM_START_BIND_POLL", "0.01", 0.01),
    ("VLLM_MODEL_SOURCES", "hf-cache,local", ("hf-cache", "local")),
    ("VLLM_RESOLVE_LOCK_TIMEOUT", "0", 0),
    ("VLLM_TENSOR_PARALLEL_SIZE", "2", 2),
    ("VLLM_PIPELINE_PARALLEL_SIZE", "4", 4),
    ("VLLM_KV_CACHE_DTYPE", "fp8", "fp8"),
    ("VLLM_MAX_MODEL_LEN", "4096", 4096),
    ("VLLM_MAX_NUM_BATCHED_TOKENS", "8192", 8192),
    ("VLLM_SERVED_MODEL_NAME", "Phi 3.5", "Phi 3.5"),
    *(("VLLM_PREFIX_CACHING", word, True) for word in ("true", "1", "yes", "True", "YES")),
    *(("VLLM_PREFIX_CACHING", word, False) for word in ("false", "0", "no", "False", "NO")),
    ("VLLM_ENV_FILE_TRUSTED", "yes", True),
    ("VLLM_ENV_FILE_TRUSTED", "no", False),
]

REFUSED = [
    ("VLLM_HOST", "http://x"),
    ("VLLM_HOST", "a b"),
    ("VLLM_PORT", "0"),
    ("VLLM_PORT", "65536"),
    ("VLLM_PORT", "tcp://10.0.0.1:8000"),
    ("VLLM_DRY_RUN", "2"),
    ("VLLM_SKIP_GPU_CHECK", "maybe"),
    ("VLLM_MIN_FREE_GPU_GB", "-1"),
    ("VLLM_MIN_FREE_GPU_GB", "nan"),
    ("VLLM_MAX_GPU_TEMP_C", "0"),
    ("VLLM_MAX_GPU_TEMP_C", "84.5"),
    ("VLLM_MAX_GPU_UTIL_PCT", "101"),
    ("VLLM_MAX_GPU_UTIL_PCT", "-1"),
    ("VLLM_GPU_FAIL_ON", "temperature,noise"),
    ("VLLM_ALLOW_OTHER_UID_KILL", "x"),
    ("VLLM_STOP_TIMEOUT", "-1"),
    ("VLLM_STOP_TIMEOUT", "1.5"),
    ("VLLM_PREFLIGHT_JSON", "2"),
    ("VLLM_PREFLIGHT_PROXY_CHILD", "x"),
    ("VLLM_START_BIND_TIMEOUT", "0"),
    ("VLLM_START_BIND_POLL", "0"),
    ("VLLM_START_BIND_POLL", "-0.1"),
    ("VLLM_MODEL_SOURCES", "local,floppy"),
    ("VLLM_RESOLVE_LOCK_TIMEOUT", "-1"),
    ("VLLM_SKIP_TOKENIZER_CHECK", "2"),
    ("VLLM_TENSOR_PARALLEL_SIZE", "0"),
    ("VLLM_TENSOR_PARALLEL_SIZE", "two"),
    ("VLLM_PIPELINE_PARALLEL_SIZE", "-1"),
    ("VLLM_KV_CACHE_DTYPE", "fp8 e4m3"),
    ("VLLM_MAX_MODEL_LEN", "0"),
    ("VLLM_MAX_MODEL_LEN", "4k"),
    ("VLLM_MAX_NUM_BATCHED_TOKENS", "1e4"),
    ("VLLM_PREFIX_CACHING", "2"),
    ("VLLM_ENV_FILE_TRUSTED", "perhaps"),
]


def setting_of(variable: str) -> str:
    return next(row.name for row in Settings.table() if variable in row.seeds)


@pytest.mark.parametrize(("variable", "name", "default"), DEFAULTS, ids=[row[0] for row in DEFAULTS])
def test_seed_default(config: dict[str, str], variable: str, name: str, default: Any) -> None:
    assert setting_of(variable) == name
    assert getattr(Settings.load(config, seed_defaults=True), name) == default


@pytest.mark.parametrize(("variable", "raw", "value"), TAKEN, ids=[f"{row[0]}={row[1]}" for row in TAKEN])
def test_seed_value_taken(config: dict[str, str], variable: str, raw: str, value: Any) -> None:
    found = Settings.load(config | {variable: raw})
    assert getattr(found, setting_of(variable)) == value
    assert found.origins == {setting_of(variable): variable}


@pytest.mark.parametrize(("variable", "raw"), REFUSED, ids=[f"{row[0]}={row[1]}" for row in REFUSED])
def test_seed_value_refused(config: dict[str, str], variable: str, raw: str) -> None:
    with pytest.raises(InvalidError) as caught:
        Settings.load(config | {variable: raw})
    assert caught.value.message.startswith(f"{variable} must be ")
    assert repr(raw) in caught.value.message
    assert caught.value.hint
    assert caught.value.details == {"setting": setting_of(variable)}


@pytest.mark.parametrize("days", ["0", "36501", "1000000000"])
def test_usage_is_kept_for_days_that_there_are(config: dict[str, str], days: str) -> None:
    assert Settings.load(config | {"GARRISON_USAGE_RETENTION": "36500"}).usage_retention == 36_500
    with pytest.raises(InvalidError, match="GARRISON_USAGE_RETENTION must be an integer"):
        Settings.load(config | {"GARRISON_USAGE_RETENTION": days})


@pytest.mark.parametrize("variable", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GARRISON_HF_TOKEN"])
@pytest.mark.parametrize("raw", ["hf_é", "“hf_x”", "hf_\udcff"], ids=["latin-1", "quotes", "not-utf-8"])
def test_a_token_that_no_header_can_hold_is_refused(config: dict[str, str], variable: str, raw: str) -> None:
    """The library that sends it encodes it as ASCII, and its error was taken for a fault of the hub."""
    with pytest.raises(InvalidError, match=f"{variable} must be ASCII text") as caught:
        Settings.load(config | {variable: raw})
    assert raw not in caught.value.message


@pytest.mark.parametrize("row", Settings.table(), ids=lambda row: row.name)
def test_a_refusal_under_our_own_name_names_it(config: dict[str, str], row: Any) -> None:
    value = "never\tfits\n" if row.name not in ("data_dir",) else ""
    refused = None
    try:
        Settings.load(config | {row.env: value})
    except InvalidError as error:
        refused = error
    assert refused is None or refused.message.startswith(row.env)


def test_the_host_is_loopback_unless_the_seed_asks(config: dict[str, str]) -> None:
    assert Settings.load(config).engine_host == "127.0.0.1"
    assert Settings.load(config, seed_defaults=True).engine_host == "0.0.0.0"
    assert Settings.load(config | {"GARRISON_ENGINE_HOST": "::1"}, seed_defaults=True).engine_host == "::1"


LAYERS = ["flag", "GARRISON_ENGINE_PORT", "VLLM_PORT", "file"]


@pytest.mark.parametrize("first", range(len(LAYERS) + 1), ids=[*LAYERS, "default"])
def test_precedence(config: dict[str, str], first: int) -> None:
    """The layer `first` and all below it give a value: it wins."""
    given = LAYERS[first:]
    environ = config | {name: str(1000 + LAYERS.index(name)) for name in given if name.isupper()}
    path = write(environ, "engine_port: 1003\n" if "file" in given else "")
    found = Settings.load(environ, flags={"engine_port": 1000 if "flag" in given else None})
    assert found.engine_port == (1000 + first if given else 8000)
    origin = {"flag": "flag", "file": str(path)}.get(given[0], given[0]) if given else None
    assert found.origins.get("engine_port") == origin


def test_an_empty_variable_is_as_good_as_none(config: dict[str, str]) -> None:
    found = Settings.load(config | {"GARRISON_ENGINE_PORT": "", "VLLM_PORT": "", "HF_TOKEN": ""})
    assert (found.engine_port, found.hf_token, found.origins) == (8000, None, {})


def test_the_first_seed_variable_wins(config: dict[str, str]) -> None:
    both = {"CUDA_VISIBLE_DEVICES": "1", "VLLM_GPU_DEVICES": "0"}
    assert Settings.load(config | both).gpu_devices == ("0",)


def test_a_flag_that_is_false_or_zero_is_given(config: dict[str, str]) -> None:
    environ = config | {"VLLM_PREFLIGHT_PROXY_CHILD": "1", "VLLM_STOP_TIMEOUT": "9"}
    found = Settings.load(environ, flags={"preflight_proxy_child": False, "stop_timeout": 0})
    assert (found.preflight_proxy_child, found.stop_timeout) == (False, 0)


def test_only_the_groups_asked_for_are_read_and_validated(config: dict[str, str]) -> None:
    environ = config | {"VLLM_PORT": "8001", "VLLM_MAX_MODEL_LEN": "wrong", "VLLM_STOP_TIMEOUT": "wrong"}
    found = Settings.load(environ, groups=("endpoint",))
    assert (found.engine_port, found.max_model_len, found.stop_timeout) == (8001, None, 15)
    with pytest.raises(InvalidError, match="VLLM_MAX_MODEL_LEN"):
        Settings.load(environ, groups=("endpoint", "vllm-serve"))


FILE_VALUES = [
    ("engine_port: 9000", "engine_port", 9000),
    ("skip_gpu_check: true", "skip_gpu_check", True),
    ("skip_gpu_check: false", "skip_gpu_check", False),
    ("skip_gpu_check: 1", "skip_gpu_check", True),
    ("model_sources: [local, hf-cache]", "model_sources", ("local", "hf-cache")),
    ("model_sources: local,hf-cache", "model_sources", ("local", "hf-cache")),
    ("min_free_gpu_gb: 2.5", "min_free_gpu_gb", 2.5),
    ("models_dir: ~/m", "models_dir", Path("~/m").expanduser()),
    ("gpu_devices: 0", "gpu_devices", ("0",)),
    ("engine_port:", "engine_port", 8000),
    ("hf_token:", "hf_token", None),
    ("", "engine_port", 8000),
]


@pytest.mark.parametrize(("text", "name", "value"), FILE_VALUES, ids=[row[0] or "empty file" for row in FILE_VALUES])
def test_config_file_value(config: dict[str, str], text: str, name: str, value: Any) -> None:
    write(config, text + "\n")
    assert getattr(Settings.load(config), name) == value


FILE_WRONG = [
    ("value", "engine_port: 0\n", "config.yaml:1:1: engine_port must be", "65535"),
    ("unknown key, near", "engine_prot: 8000\n", "unknown setting 'engine_prot'", "Did you mean engine_port?"),
    ("unknown key, far", "zzzzz: 1\n", "unknown setting 'zzzzz'", "garrison config show"),
    ("list", "- port\n", "must contain `name: value` lines", "garrison config show"),
    ("syntax", "port: [\n", ":2:1: expected the node content", "close the bracket"),
    ("mapping as a value", "engine_host: {a: 1}\n", "config.yaml:1:1: engine_host must be", "Unset"),
]


@pytest.mark.parametrize(("text", "said", "hint"), [row[1:] for row in FILE_WRONG], ids=[row[0] for row in FILE_WRONG])
def test_wrong_config_file(config: dict[str, str], text: str, said: str, hint: str) -> None:
    path = write(config, text)
    with pytest.raises(InvalidError) as caught:
        Settings.load(config)
    assert said in caught.value.message
    assert str(path) in caught.value.message
    assert hint in str(caught.value.hint) + caught.value.message


def test_a_config_file_that_is_named_must_be_there(config: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="GARRISON_CONFIG names"):
        Settings.load(config | {"GARRISON_CONFIG": str(tmp_path / "no.yaml")})


def test_a_config_file_of_a_user_who_is_not_there(config: dict[str, str]) -> None:
    with pytest.raises(InvalidError, match="GARRISON_CONFIG names"):
        Settings.load(config | {"GARRISON_CONFIG": "~nosuchuser/x.yaml"})


def test_a_config_file_that_is_no_text(config: dict[str, str]) -> None:
    config_path(config).write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidError, match="not UTF-8 text"):
        Settings.load(config)


SECRET = "hf_abcdefghij"


def test_secrets_are_not_in_repr(config: dict[str, str]) -> None:
    found = Settings.load(config | {"HF_TOKEN": SECRET})
    assert found.hf_token == SECRET
    assert SECRET not in repr(found)
    assert SECRET not in str(found.origins)


def test_every_setting_that_sounds_secret_is_one() -> None:
    sounding = {row.name for row in Settings.table() if row.name.endswith(("_token", "_key", "_password", "_keys"))}
    sounding.add("database_url")  # it may hold a password
    assert sounding == {row.name for row in Settings.table() if row.secret}


def test_seed_variables_are_vllm_names_we_read_and_not_vllms_own() -> None:
    found = seed_variables()
    assert {"VLLM_PORT", "VLLM_HOST", "VLLM_MODEL", "VLLM_MAX_MODEL_LEN"} <= found
    assert found.isdisjoint({"VLLM_API_KEY", "VLLM_LOGGING_LEVEL", "VLLM_ALLOW_RUNTIME_LORA_UPDATING"})
    assert all(name.startswith("VLLM_") for name in found)


def test_no_variable_sets_two_settings() -> None:
    names = [name for row in Settings.table() for name in (row.env, *row.seeds)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("row", Settings.table(), ids=lambda row: row.name)
def test_every_row_is_documented_and_its_default_is_the_fields(row: Any) -> None:
    assert row.help.endswith(".")
    if row.name != "data_dir":
        assert getattr(Settings(), row.name) == row.default


def test_models_root(tmp_path: Path) -> None:
    assert Settings(data_dir=tmp_path).models_root == tmp_path / "models"
    assert Settings(data_dir=tmp_path, models_dir=tmp_path / "m").models_root == tmp_path / "m"


def test_sources_in_their_order() -> None:
    assert SOURCES == ("flox", "local", "hf-cache", "r2", "hf-hub")


@given(st.dictionaries(st.sampled_from([row.env for row in Settings.table()]), st.text(max_size=12), max_size=3))
def test_any_text_in_any_variable_loads_or_is_invalid(environ: dict[str, str]) -> None:
    refused = None
    try:
        Settings.load(environ | {"XDG_CONFIG_HOME": "/nonexistent"})
    except InvalidError as error:
        refused = error
    assert refused is None or refused.hint


FORMER = [
    ("GARRISON_PORT", "9000", "port", "engine_port", 9000),
    ("GARRISON_HOST", "::1", "host", "engine_host", "::1"),
    ("GARRISON_CONFIG_FILE", "/etc/vllm.yaml", "config_file", "engine_config_file", Path("/etc/vllm.yaml")),
]


@pytest.mark.parametrize(("variable", "text", "key", "name", "value"), FORMER, ids=[row[0] for row in FORMER])
def test_a_former_name_works_and_is_warned_of(
    config: dict[str, str], variable: str, text: str, key: str, name: str, value: Any
) -> None:
    found = Settings.load(config | {variable: text})
    assert (getattr(found, name), found.origins[name]) == (value, variable)
    assert found.warnings == (f"{variable} is now GARRISON_{name.upper()}; the old name goes in the next release",)
    path = write(config, f"{key}: '{text}'\n")
    found = Settings.load(config)
    assert (getattr(found, name), found.origins[name]) == (value, str(path))
    assert found.warnings == (f"{path}: {key} is now {name}; the old name goes in the next release",)


def test_the_name_of_today_wins_over_a_former_one(config: dict[str, str]) -> None:
    found = Settings.load(config | {"GARRISON_PORT": "1", "GARRISON_ENGINE_PORT": "2", "VLLM_PORT": "3"})
    assert (found.engine_port, found.warnings) == (2, ())
    found = Settings.load(config | {"GARRISON_PORT": "1", "VLLM_PORT": "3"})
    assert found.engine_port == 1


@pytest.mark.parametrize(
    ("variable", "service"),
    [("VLLM_PORT", "vllm"), ("GARRISON_ENGINE_PORT", "garrison-engine")],
)
@pytest.mark.parametrize("scheme", ["tcp", "udp"])
def test_the_address_of_a_kubernetes_service_is_named_as_that(variable: str, service: str, scheme: str) -> None:
    with pytest.raises(InvalidError, match=f"Kubernetes sets for a service called '{service}'") as caught:
        Settings.load({variable: f"{scheme}://10.96.0.1:8000", "HOME": "/"})
    assert "enableServiceLinks: false" in str(caught.value.hint)
    assert "GARRISON_ENGINE_PORT" in str(caught.value.hint)


def test_a_flag_or_garrisons_own_variable_wins_over_the_address_of_a_service() -> None:
    link = {"VLLM_PORT": "tcp://10.96.0.1:8000", "HOME": "/"}
    assert Settings.load(link, flags={"engine_port": 9000}).engine_port == 9000
    assert Settings.load({**link, "GARRISON_ENGINE_PORT": "9001"}).engine_port == 9001


@pytest.mark.parametrize("raw", ["http://h:1", "tcp:8000", "x"])
def test_other_values_of_a_port_are_only_wrong(raw: str) -> None:
    with pytest.raises(InvalidError) as caught:
        Settings.load({"VLLM_PORT": raw, "HOME": "/"})
    assert "Kubernetes" not in caught.value.message


@pytest.mark.parametrize(
    ("environ", "devices"),
    [
        ({}, ()),
        ({"CUDA_VISIBLE_DEVICES": ""}, ("none",)),
        ({"CUDA_VISIBLE_DEVICES": " "}, ("none",)),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ("-1",)),
        ({"CUDA_VISIBLE_DEVICES": "", "VLLM_GPU_DEVICES": "0"}, ("0",)),
        ({"CUDA_VISIBLE_DEVICES": "0", "VLLM_GPU_DEVICES": ""}, ("0",)),
        ({"VLLM_GPU_DEVICES": ""}, ()),
    ],
)
def test_an_empty_list_of_visible_gpus_is_none_of_them(environ: dict[str, str], devices: tuple[str, ...]) -> None:
    assert Settings.load({**environ, "HOME": "/"}).gpu_devices == devices
