"""The settings of the server and of the instances it runs: the part of the table in `settings` that `garrison up` reads.

llamactl's variables are the seeds, with llamactl's units: a bare idle timeout is minutes, everything else seconds.
"""

from dataclasses import dataclass
from pathlib import Path

from garrison.base import values
from garrison.base.setting import setting

__all__ = ["ServerSettings"]

_FLAG = values.flag
_TEXT = values.text()
_SECONDS = values.duration()
_COUNT = values.integer(0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSettings:
    """Rows of the groups `server`, `instances` and `backends`."""

    server_host: str = setting(
        "server", "Address that the server listens on.", values.host, "127.0.0.1", seeds=("LLAMACTL_HOST",)
    )
    server_port: int = setting(
        "server", "Port that the server listens on.", values.integer(1, 65535), 8080, seeds=("LLAMACTL_PORT",)
    )
    server_url: str | None = setting(
        "server", "Address of the server that commands talk to, instead of the one of this data directory.", _TEXT
    )
    server_key: str | None = setting("server", "Management key for `server_url`.", values.token, secret=True)
    gateway_workers: int = setting(
        "server", "Processes that carry requests to models, on one port.", values.integer(1, 64), 1
    )
    gateway_ollama_port: int | None = setting(
        "server", "Port on which the gateway speaks Ollama's API; none when unset. Ollama's own is 11434.",
        values.integer(1, 65535), None,
    )  # fmt: skip
    gateway_ollama_host: str = setting("server", "Address of that port.", values.host, "127.0.0.1")
    gateway_stream_usage: bool = setting(
        "server",
        "Engines are asked for the usage of every stream; clients that did not ask do not see it.",
        _FLAG,
        True,
    )
    gateway_activity: int = setting(
        "server", "Requests to models that have ended and are kept in memory, for `garrison requests`.", _COUNT, 5000
    )
    gateway_access_log: Path | None = setting(
        "server",
        "File for the access log, one JSON object a line for each request to a model; none when unset.",
        values.path,
    )
    gateway_access_log_percent: int = setting(
        "server",
        "Per cent of the requests that are in the access log; those that failed always are.",
        values.integer(0, 100),
        100,
    )
    gateway_captures: int = setting(
        "server", "Requests to models that are kept in memory with their answers, to be looked at.",
        values.integer(0, 1000), 0,
    )  # fmt: skip
    gateway_capture_kib: int = setting(
        "server", "KiB that are kept of the body of each of them, and of its answer.", values.integer(1, 1024), 16
    )
    gateway_traces: str | None = setting(
        "server",
        "Where spans of requests go, as OTLP over HTTP, such as http://localhost:4318/v1/traces; needs garrison[otel].",
        _TEXT,
    )
    gateway_traces_percent: int = setting(
        "server", "Per cent of the traces that begin at this server and are recorded.", values.integer(0, 100), 100
    )
    usage_retention: int = setting(
        "server", "Days that usage by key, route and day is kept.", values.integer(1, 36_500), 400
    )
    root_path: str = setting("server", "Path prefix below which a reverse proxy publishes the server.", _TEXT, "")
    tls_cert_file: Path | None = setting("server", "Certificate chain of the server, in PEM.", values.path)
    tls_key_file: Path | None = setting("server", "Private key of the certificate, in PEM.", values.path)
    allowed_origins: tuple[str, ...] = setting(
        "server", "Origins of web pages that may call the API; none by default.", values.csv(), (),
        seeds=("LLAMACTL_ALLOWED_ORIGINS",),
    )  # fmt: skip
    allowed_hosts: tuple[str, ...] = setting(
        "server", "Further host names under which the server is reached; addresses and localhost always are.",
        values.csv(), (),
    )  # fmt: skip
    max_body_mib: int = setting("server", "Largest request body, in MiB.", values.integer(1), 64)
    management_keys: tuple[str, ...] = setting(
        "server", "Management keys beside those in the database, comma-separated.", values.secrets, (),
        seeds=("LLAMACTL_MANAGEMENT_KEYS",), secret=True,
    )  # fmt: skip
    require_management_auth: bool = setting(
        "server", "Management calls need a key.", _FLAG, True, seeds=("LLAMACTL_REQUIRE_MANAGEMENT_AUTH",)
    )
    require_inference_auth: bool = setting(
        "server", "Inference requests need a key.", _FLAG, True, seeds=("LLAMACTL_REQUIRE_INFERENCE_AUTH",)
    )
    node_name: str = setting(
        "server", "Name of this machine among its nodes.", _TEXT, "main", seeds=("LLAMACTL_LOCAL_NODE",)
    )

    instance_port_range: tuple[int, int] = setting(
        "instances",
        "Ports that instances get.",
        values.port_range,
        (8100, 8999),
        seeds=("LLAMACTL_INSTANCE_PORT_RANGE",),
    )
    max_instances: int | None = setting(
        "instances", "Instances that may exist; -1 for no limit.", values.limit, None, seeds=("LLAMACTL_MAX_INSTANCES",)
    )
    max_running_instances: int | None = setting(
        "instances", "Instances that may run at once; -1 for no limit.", values.limit, None,
        seeds=("LLAMACTL_MAX_RUNNING_INSTANCES",),
    )  # fmt: skip
    group_limits: tuple[tuple[str, int], ...] = setting(
        "instances", "Instances of a group that may run at once: `big=1,small=4`.", values.Pairs(values.integer(0)), (),
        seeds=("LLAMACTL_GROUP_LIMITS",),
    )  # fmt: skip
    enable_lru_eviction: bool = setting(
        "instances", "Idle instances make room for others.", _FLAG, True, seeds=("LLAMACTL_ENABLE_LRU_EVICTION",)
    )
    idle_timeout: float = setting(
        "instances", "How long an instance without requests is kept; 0: always. A bare number is minutes.",
        values.duration("m"), 1800.0, seeds=("LLAMACTL_DEFAULT_IDLE_TIMEOUT",),
    )  # fmt: skip
    default_auto_restart: bool = setting(
        "instances", "Instances that end by themselves are restarted, unless they say otherwise.", _FLAG, True,
        seeds=("LLAMACTL_DEFAULT_AUTO_RESTART",),
    )  # fmt: skip
    default_max_restarts: int = setting(
        "instances", "Restarts in a row before an instance counts as failed.", _COUNT, 3,
        seeds=("LLAMACTL_DEFAULT_MAX_RESTARTS",),
    )  # fmt: skip
    default_restart_delay: float = setting(
        "instances", "Seconds before the first restart; doubled for each further one.", _SECONDS, 5.0,
        seeds=("LLAMACTL_DEFAULT_RESTART_DELAY",),
    )  # fmt: skip
    default_on_demand_start: bool = setting(
        "instances", "Requests start instances, unless these say otherwise.", _FLAG, True,
        seeds=("LLAMACTL_DEFAULT_ON_DEMAND_START",),
    )  # fmt: skip
    on_demand_start_timeout: float = setting(
        "instances", "Seconds that a request waits for an instance.", _SECONDS, 120.0,
        seeds=("LLAMACTL_ON_DEMAND_START_TIMEOUT",),
    )  # fmt: skip
    start_queue: int = setting("instances", "Requests that may wait for one instance.", _COUNT, 256)
    forwarded_headers: str = setting(
        "server",
        "Tell engines and targets who asked, in `X-Forwarded-For`, `-Proto` and `-Host`: `off`, `set`, or `append` to what "
        "a trusted proxy in front of the server says.",
        values.choice(("off", "set", "append")), "off",
    )  # fmt: skip
    loading_comments: float = setting(
        "server",
        "Seconds between two comments to a client that waits for a stream while its model loads; 0: none are sent.",
        _SECONDS, 0.0,
    )  # fmt: skip
    drain_timeout: float = setting("instances", "Seconds that a stop waits for requests in progress.", _SECONDS, 30.0)
    sleep_timeout: float = setting(
        "instances", "Seconds that an engine may take to fall asleep or to wake up.", _SECONDS, 300.0
    )
    residency: float = setting(
        "instances", "Seconds that an instance is left alone after it became ready.", _SECONDS, 10.0
    )
    patience: float = setting(
        "instances", "Seconds after which a busy instance is drained for one that is waited for.", _SECONDS, 30.0
    )
    memory_limit: int | None = setting(
        "instances", "System memory for all instances together: `16GiB`; what the machine has when unset.", values.size
    )
    log_rotation_mib: int = setting(
        "instances", "Size at which the log of an instance is rotated, in MiB.", values.integer(1), 100,
        seeds=("LLAMACTL_LOG_ROTATION_MAX_SIZE",),
    )  # fmt: skip

    vllm_executable: tuple[str, ...] = setting(
        "backends", "Program of vLLM instances, in several words where it takes them; an installed engine when unset.",
        values.words, (), seeds=("LLAMACTL_VLLM_EXECUTABLE", "LLAMACTL_VLLM_COMMAND"),
    )  # fmt: skip
    llama_executable: tuple[str, ...] = setting(
        "backends", "Program of llama.cpp instances.", values.words, (),
        seeds=("LLAMACTL_LLAMA_EXECUTABLE", "LLAMACTL_LLAMACPP_COMMAND"),
    )  # fmt: skip
    mlx_lm_executable: tuple[str, ...] = setting(
        "backends", "Program of MLX instances.", values.words, (),
        seeds=("LLAMACTL_MLX_LM_EXECUTABLE", "LLAMACTL_MLX_COMMAND"),
    )  # fmt: skip
    vllm_args: tuple[str, ...] = setting(
        "backends", "Arguments of every vLLM instance, before its own.", values.words, (), seeds=("LLAMACTL_VLLM_ARGS",)
    )
    llama_args: tuple[str, ...] = setting(
        "backends", "Arguments of every llama.cpp instance, before its own.", values.words, (),
        seeds=("LLAMACTL_LLAMACPP_ARGS",),
    )  # fmt: skip
    mlx_lm_args: tuple[str, ...] = setting(
        "backends", "Arguments of every MLX instance, before its own.", values.words, (), seeds=("LLAMACTL_MLX_ARGS",)
    )
    vllm_env: tuple[tuple[str, str], ...] = setting(
        "backends", "Variables of every vLLM instance: `A=1,B=2`.", values.Pairs(), (), seeds=("LLAMACTL_VLLM_ENV",)
    )
    llama_env: tuple[tuple[str, str], ...] = setting(
        "backends", "Variables of every llama.cpp instance.", values.Pairs(), (), seeds=("LLAMACTL_LLAMACPP_ENV",)
    )
    mlx_lm_env: tuple[tuple[str, str], ...] = setting(
        "backends", "Variables of every MLX instance.", values.Pairs(), (), seeds=("LLAMACTL_MLX_ENV",)
    )
    container_program: tuple[str, ...] = setting(
        "backends", "Program that runs containers, docker or podman, with its own options.", values.words, ("docker",)
    )
    vllm_container: bool = setting(
        "backends", "vLLM instances run in containers.", _FLAG, False, seeds=("LLAMACTL_VLLM_DOCKER_ENABLED",)
    )
    llama_container: bool = setting(
        "backends", "llama.cpp instances run in containers.", _FLAG, False, seeds=("LLAMACTL_LLAMACPP_DOCKER_ENABLED",)
    )
    vllm_image: str = setting(
        "backends", "Image of vLLM containers.", _TEXT, "vllm/vllm-openai:latest", seeds=("LLAMACTL_VLLM_DOCKER_IMAGE",)
    )
    llama_image: str = setting(
        "backends", "Image of llama.cpp containers.", _TEXT, "ghcr.io/ggml-org/llama.cpp:server",
        seeds=("LLAMACTL_LLAMACPP_DOCKER_IMAGE",),
    )  # fmt: skip
    vllm_container_args: tuple[str, ...] = setting(
        "backends",
        "Arguments of `run` for vLLM containers.",
        values.words,
        ("--shm-size", "1g"),
        seeds=("LLAMACTL_VLLM_DOCKER_ARGS",),
    )
    llama_container_args: tuple[str, ...] = setting(
        "backends", "Arguments of `run` for llama.cpp containers.", values.words, (),
        seeds=("LLAMACTL_LLAMACPP_DOCKER_ARGS",),
    )  # fmt: skip
    container_env: tuple[tuple[str, str], ...] = setting(
        "backends", "Variables of every container.", values.Pairs(), (),
        seeds=("LLAMACTL_VLLM_DOCKER_ENV", "LLAMACTL_LLAMACPP_DOCKER_ENV"),
    )  # fmt: skip
