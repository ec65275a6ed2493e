"""The configuration of a simulator. Names and defaults are those of vLLM's flags where vLLM has one."""

from dataclasses import dataclass, field

from garrison.base.errors import InvalidError
from garrison.sim.faults import Faults

__all__ = ["LORA_RANKS", "LoraModule", "SimConfig"]

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM accepts for `--max-lora-rank`."""


@dataclass(frozen=True, slots=True)
class LoraModule:
    """An adapter that is loaded at every start: `--lora-modules name=path`."""

    name: str
    path: str
    base_model_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimConfig:
    """One simulated server.

    Attributes:
        model: path or name of the base model; `root` in the model list. The answers depend on it.
        served_names: public names of the base; the model itself when empty. The first is the adapters' parent.
        port: 0 chooses a free one.
        runtime_lora: whether the load and unload routes exist (`VLLM_ALLOW_RUNTIME_LORA_UPDATING`).
        max_cpu_loras: adapters that the CPU cache holds; `max_loras` if None.
        error_shape: `nested` as in 0.32; `flat` as in older versions, where "already loaded" and "not found" of an
            adapter are both 400.
        memory_mib: memory that the engine holds while it is awake, for tests that watch a process.
        dev_mode: whether the development routes exist (`VLLM_SERVER_DEV_MODE`).
        survive_engine_death: answer 500 and 503 after the engine has died (`VLLM_KEEP_ALIVE_ON_ENGINE_DEATH`); by
            default the server ends, as vLLM's does.
        max_num_seqs: requests that run at a time; the others wait.
        keep_alive_timeout: seconds an idle connection is kept (`VLLM_HTTP_TIMEOUT_KEEP_ALIVE`).
        head_timeout: seconds a client has to complete a request it has begun.
        ssl_cert_reqs: with 2, clients need a certificate signed by `ssl_ca_certs`.
        root_path: a prefix under which every route answers too.
        uds: a socket file to listen on instead of `host` and `port`.
        headless: start the engine alone, and listen nowhere.
        control: whether `/_sim` answers (to loopback peers only).

    Raises:
        InvalidError: vLLM would refuse to start with this combination.
    """

    model: str = "sim/tiny"
    served_names: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    enable_lora: bool = False
    runtime_lora: bool = False
    max_loras: int = 1
    max_lora_rank: int = 16
    max_cpu_loras: int | None = None
    lora_modules: tuple[LoraModule, ...] = ()
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    max_model_len: int = 4096
    block_size: int = 128
    prefix_caching: bool = True
    cache_blocks: int = 4096
    max_num_seqs: int = 256
    enable_sleep_mode: bool = False
    memory_mib: int = 0
    dev_mode: bool = False
    survive_engine_death: bool = False
    error_shape: str = "nested"
    version: str = "0.32.0"
    embedding_size: int = 64
    seed: int = 0
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_ca_certs: str | None = None
    ssl_cert_reqs: int = 0
    root_path: str = ""
    uds: str | None = None
    headless: bool = False
    keep_alive_timeout: float = 5.0
    head_timeout: float = 30.0
    max_head_bytes: int = 64 * 1024
    max_body_bytes: int = 64 * 1024 * 1024
    control: bool = True
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        if not all(name.strip() for name in (self.model, *self.served_names)):
            raise InvalidError("the name of the model is empty", hint="Name one, such as acme/tiny.")
        if self.max_lora_rank not in LORA_RANKS:
            ranks = ", ".join(map(str, LORA_RANKS))
            raise InvalidError(
                f"max_lora_rank must be one of {ranks}, not {self.max_lora_rank}", hint="Use the next larger one."
            )
        if self.max_cpu_loras is not None and self.max_cpu_loras < self.max_loras:
            raise InvalidError(
                f"max_cpu_loras ({self.max_cpu_loras}) must be at least max_loras ({self.max_loras})",
                hint="Raise --max-cpu-loras or lower --max-loras.",
            )
        if self.memory_mib < 0:
            raise InvalidError(f"memory_mib must not be negative: {self.memory_mib}", hint="0 holds none.")
        if self.error_shape not in ("nested", "flat"):
            raise InvalidError(f"error_shape must be nested or flat, not {self.error_shape!r}", hint="Use one of them.")
        if self.lora_modules and not self.enable_lora:
            raise InvalidError("lora_modules need enable_lora", hint="Add --enable-lora.")
        if bool(self.ssl_certfile) != bool(self.ssl_keyfile):
            raise InvalidError("TLS needs a certificate and its key", hint="Set --ssl-certfile and --ssl-keyfile.")
        if self.ssl_cert_reqs == 2 and not self.ssl_ca_certs:
            raise InvalidError("client certificates need a CA to be checked against", hint="Set --ssl-ca-certs.")

    @property
    def names(self) -> tuple[str, ...]:
        return self.served_names or (self.model,)

    @property
    def cpu_loras(self) -> int:
        return self.max_cpu_loras or self.max_loras
