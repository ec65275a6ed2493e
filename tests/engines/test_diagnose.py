from collections.abc import Callable

import pytest

from garrison.engines import registry
from garrison.engines.diagnose import CAUSES, diagnose

# What real engines said, kept in `fixtures/`.
REAL = [
    ("vllm-unknown-flag", "unknown-flag", "--max-modle-len", "Did you mean --max-model-len?"),
    ("vllm-port-taken", "port-taken", "the port is taken", "--port"),
    ("vllm-too-long", "context-too-long", "100000", "Use --max-model-len 2048 or less."),
    ("vllm-rank", "adapter-rank", "rank 32, and 8", "Use --max-lora-rank 32."),
    ("vllm-missing-model", "model-missing", "/srv/models/nowhere", "path"),
    ("vllm-kv-small", "kv-cache-too-small", "8000000 tokens", "Use --max-model-len "),
    ("vllm-architecture", "architecture", "FrobnicatorForCausalLM", "newer version"),
    ("vllm-no-libnuma", "system-library", "libnuma.so.1", "apt-get install libnuma1"),
    ("llama-unknown-flag", "unknown-flag", "--ctx-sise", "Did you mean --ctx-size?"),
    ("llama-missing", "model-missing", "/srv/models/nowhere.gguf", "path"),
    ("llama-corrupt", "model-corrupt", "damaged", "garrison models verify"),
    ("llama-fa", "bad-value", "-fa: expected value", "value"),
    ("llama-port-taken", "port-taken", "port 18812 on 127.0.0.1", "--port"),
    ("mlx-unknown-flag", "unknown-flag", "--modle", "Did you mean --model?"),
    ("mlx-missing", "model-missing", "/srv/models/nowhere", "path"),
    ("mlx-port-taken", "port-taken", "the port is taken", "--port"),
]
ENGINES = {"vllm": "vllm", "llama": "llama_cpp", "mlx": "mlx_lm"}


@pytest.mark.parametrize(("log", "cause", "message", "remedy"), REAL, ids=[row[0] for row in REAL])
def test_real_logs(log: str, cause: str, message: str, remedy: str, log_of: Callable[[str], list[str]]) -> None:
    catalogue = registry.engine(ENGINES[log.split("-")[0]]).catalogue()
    found = diagnose(log_of(log), 1, catalogue=catalogue)
    assert found is not None
    assert found.cause == cause
    assert message in found.message
    assert remedy in found.remedy


@pytest.mark.parametrize("log", ["vllm-ready", "llama-ready", "mlx-ready"])
def test_a_log_of_a_good_start_accuses_nothing(log: str, log_of: Callable[[str], list[str]]) -> None:
    assert diagnose(log_of(log), 0) is None


# Sentences from the sources of vLLM 0.32, torch, huggingface_hub, llama.cpp and mlx_lm.
WRITTEN = [
    ("E srv  llama_server: failed to initialize router models: failed to parse server config file: /d/preset.ini",
     "bad-value", "KEY = VALUE"),
    ("E srv  llama_server: failed to initialize router models: option 'no-such-key' not recognized in preset 'x'",
     "bad-value", "flag of llama-server"),
    ("E srv  llama_server: failed to initialize router models: error: '/m' does not exist or is not a directory",
     "bad-value", "names the models"),
    ("KeyError: 'getpwuid(): uid not found: 12345'", "no-user-name", "Set USER"),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "gpu-memory", "--max-model-len"),
    ("ValueError: Free memory on device cuda:0 (10.0/80.0 GiB) on startup is less than desired GPU memory utilization "
     "(0.92, 73.6 GiB). Decrease GPU memory utilization", "gpu-memory", "--gpu-memory-utilization 0.10"),
    ("ValueError: Available memory on node 0 (15.48/17.09 GiB) on startup is less than desired CPU memory utilization "
     "(0.92, 15.72 GiB).", "host-memory", "--gpu-memory-utilization 0.88"),
    ("ValueError: No available memory for the cache blocks. Try increasing", "kv-cache-too-small", "quantized"),
    ("ValueError: To serve at least one request with the model's max seq len (131072), (16.0 GiB KV cache is needed, "
     "which is larger than the available KV cache memory (4.5 GiB). Based on the available memory, the estimated "
     "maximum model length is 36864. Try increasing", "kv-cache-too-small", "--max-model-len 36864"),
    ("ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has "
     "compute capability 7.5.", "dtype", "--dtype half"),
    ("ValueError: The model type 'gemma2' does not support float16. Reason: Numerical instability.", "dtype",
     "bfloat16"),
    ("Cannot access gated repo for url x.\nAccess to model org/m is restricted and you are not in the authorized list.",
     "access", "HF_TOKEN"),
    ("OSError: You are trying to access a gated repo.\nMake sure to have access to it at org/m", "access", "HF_TOKEN"),
    ("OSError: /m does not appear to have a file named config.json.", "model-missing", "verify"),
    ("safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge", "model-corrupt", "verify"),
    ("llama_model_load: error loading model: unknown model architecture: 'frob'", "architecture", "another engine"),
    ("ValueError: Model type frob not supported.", "architecture", "another engine"),
    ("ValueError: LoRA rank 600 is greater than max_lora_rank 16.", "adapter-rank", "up to 512"),
    ("RuntimeError: Insufficient space in /dev/shm for message queue: 160 MiB required, 64 MiB free. Increase",
     "shared-memory", "--shm-size"),
    ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", "host-memory", "smaller"),
    ("vllm: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found (required by x)", "glibc", "container"),
    ("RuntimeError: The NVIDIA driver on your system is too old (found version 11040).", "gpu-driver", "doctor"),
    ("vllm serve: error: argument --dtype: invalid choice: 'flaot16' (choose from auto)", "bad-value", "describe"),
    ("User-specified max_model_len (9000) is greater than the derived max_model_len (max_position_embeddings=4096.0 or "
     "model_max_length=2048 in model's config.json)", "context-too-long", "--max-model-len 2048"),
    ("Illegal instruction (core dumped)", "cpu-instructions", "Install it again"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "cause", "remedy"), WRITTEN, ids=[row[0][:50] for row in WRITTEN])
def test_sentences(text: str, cause: str, remedy: str) -> None:
    found = diagnose(text.splitlines(), 1)
    assert found is not None
    assert found.cause == cause
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("status", "cause"),
    [(-9, "host-memory"), (137, "host-memory"), (-4, "cpu-instructions"), (132, "cpu-instructions"),
     (-7, "shared-memory"), (1, None), (0, None), (None, None), (-15, None)],
)  # fmt: skip
def test_a_silent_death_is_told_by_its_signal(status: int | None, cause: str | None) -> None:
    found = diagnose(["nothing to see"], status)
    assert (found.cause if found else None) == cause


def test_every_cause_is_shown_by_a_test() -> None:
    assert {row[1] for row in REAL} | {row[1] for row in WRITTEN} == set(CAUSES)


def test_a_value_of_an_unknown_flag_is_not_repeated() -> None:
    found = diagnose(["vllm: error: unrecognized arguments: --tokn=s3cret --api-kye s3cret"], 2)
    assert found is not None
    assert "s3cret" not in repr(found)
