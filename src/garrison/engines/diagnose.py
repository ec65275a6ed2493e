"""Why an engine died, from the end of its log and its exit status, and what to do about it.

The patterns match the engines' own messages. Those that can be provoked on a real engine are test fixtures; the others
are from the source of vLLM 0.32.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from garrison.engines.catalogue import Catalogue
from garrison.engines.nearest import nearest_flag
from garrison.engines.system_libraries import MISSING, remedy

__all__ = ["CAUSES", "LOG_LINES", "Diagnosis", "diagnose"]

LOG_LINES = 400
"""How many lines from the end to pass in: vLLM prints the cause first, and then the tracebacks of two parents."""
_LINE_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`cause` is one of `CAUSES`; `message` says what happened and `remedy` what to do next, one sentence each."""

    cause: str
    message: str
    remedy: str


Explain = Callable[[re.Match[str]], tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Rule:
    cause: str
    pattern: str
    explain: Explain


_RULES: list[_Rule] = []


def _rule(cause: str, pattern: str) -> Callable[[Explain], Explain]:
    """Register a rule. They are tried in the order of this file; the first match wins."""

    def keep(explain: Explain) -> Explain:
        _RULES.append(_Rule(cause, pattern, explain))
        return explain

    return keep


def diagnose(log_tail: Sequence[str], exit_code: int | None, *, catalogue: Catalogue | None = None) -> Diagnosis | None:
    """The likely cause; None if nothing is recognised. A negative `exit_code` is a signal, as in subprocess.

    The result repeats what the engine says about itself, never the value of an argument, which may be a secret.
    """
    text = "\n".join(_bare(line) for line in log_tail)
    if unknown := _unknown_flag(text, catalogue):
        return unknown
    for rule in _RULES:
        if found := re.search(rule.pattern, text, re.DOTALL):
            try:
                message, remedy = rule.explain(found)
            except (ValueError, ArithmeticError):  # what should be a number in the log is not one
                continue
            return Diagnosis(rule.cause, message, remedy)
    return _by_status(exit_code)


def _unknown_flag(text: str, catalogue: Catalogue | None) -> Diagnosis | None:
    found = re.search(r"error: unrecognized arguments: (.+)|error: invalid argument: (\S+)", text)
    if found is None:
        return None
    flags = [word.split("=")[0] for word in (found[1] or found[2]).split() if word.startswith("-")]
    flag = flags[0] if flags else "an argument"
    near = nearest_flag(catalogue, flag) if catalogue is not None and flags else None
    remedy = f"Did you mean {near}?" if near else "Remove it, or look up its name in the engine's --help."
    return Diagnosis("unknown-flag", f"the engine does not know {flag}", remedy)


@_rule("bad-value", r"error: argument ([^:]+): (invalid choice|expected [^\n]*argument|invalid \S+ value)")
def _argparse_value(found: re.Match[str]) -> tuple[str, str]:
    return f"{found[1]}: {found[2]}", "Fix the value; `garrison engine describe` lists what is accepted."


@_rule("bad-value", r'error while handling argument "([^"]+)": ([^\n]+)')
def _llama_value(found: re.Match[str]) -> tuple[str, str]:
    return f"{found[1]}: {found[2]}", "Fix the value; `garrison engine describe` lists what is accepted."


@_rule(
    "bad-value", r"failed to initialize router models: (?:option '([^']+)' not recognized in preset '([^']+)'|([^\n]+))"
)
def _preset(found: re.Match[str]) -> tuple[str, str]:
    if found[1]:
        return (
            f"[{found[2]}] of the preset has the option {found[1]}, which llama-server does not know",
            "Fix its name: it is a flag of llama-server without the dashes in front.",
        )
    if "failed to parse" in found[3]:
        return (
            "llama-server cannot read the preset",
            "Each of its lines is [NAME], KEY = VALUE, or a comment behind ; or #, without white space in front.",
        )
    return found[3], "Fix the preset, or the option that names the models."


@_rule("no-user-name", r"getpwuid\(\): uid not found: (\d+)")
def _no_user_name(found: re.Match[str]) -> tuple[str, str]:
    remedy = "Set USER to any name for the engine, or add the uid to the user database."
    return f"uid {found[1]} has no entry in the user database, and PyTorch names its cache for the user", remedy


@_rule("port-taken", r"couldn't bind HTTP server socket, hostname: (\S+), port: (\d+)")
def _llama_port(found: re.Match[str]) -> tuple[str, str]:
    return f"port {found[2]} on {found[1]} is taken", "`garrison preflight` shows by whom; or choose another --port."


@_rule("port-taken", r"[Aa]ddress already in use")
def _port(found: re.Match[str]) -> tuple[str, str]:
    return "the port is taken", "`garrison preflight` shows by whom; or choose another --port."


@_rule(
    "context-too-long", r"User-specified max_model_len \((\d+)\) is greater than the derived max_model_len \(([^)]*)\)"
)
def _context(found: re.Match[str]) -> tuple[str, str]:
    limits = [int(float(number)) for number in re.findall(r"=(\d+(?:\.\d+)?)", found[2])]
    remedy = f"Use --max-model-len {min(limits)} or less." if limits else "Lower --max-model-len."
    return f"--max-model-len {found[1]} is longer than the model's context", remedy


@_rule("kv-cache-too-small", r"To serve at least one request with the model's max seq len \((\d+)\), \(([\d.]+) GiB KV")
def _kv_cache(found: re.Match[str]) -> tuple[str, str]:
    rest = found.string[found.end() :]
    estimate = re.search(r"estimated maximum model length is (\d+)", rest)
    has = re.search(r"available KV cache memory \(([\d.]+) GiB\)", rest)
    room = f", and {has[1]} GiB are available" if has else ""
    shorter = f"Use --max-model-len {estimate[1]}" if estimate else "Lower --max-model-len"
    message = f"one request of {found[1]} tokens needs {found[2]} GiB of KV cache{room}"
    return message, f"{shorter}, or raise --gpu-memory-utilization; on the CPU raise VLLM_CPU_KVCACHE_SPACE."


@_rule("kv-cache-too-small", r"No available memory for the cache blocks|to serve even a single token")
def _no_kv_cache(found: re.Match[str]) -> tuple[str, str]:
    return (
        "the weights leave no memory for the KV cache",
        "Raise --gpu-memory-utilization, use a smaller or quantized model, or more GPUs with --tensor-parallel-size.",
    )


@_rule(
    "gpu-memory",
    r"Free memory on device (\S+) \(([\d.]+)/([\d.]+) GiB\) on startup is less than desired GPU memory utilization "
    r"\(([\d.]+)",
)
def _free_memory(found: re.Match[str]) -> tuple[str, str]:
    fits = int(float(found[2]) / float(found[3]) * 100 - 2) / 100
    message = f"{found[2]} of {found[3]} GiB are free on {found[1]}, and {float(found[4]):.0%} was asked for"
    lower = f"Use --gpu-memory-utilization {fits:.2f}, or stop" if fits > 0 else "Stop"
    return message, f"{lower} other processes on the GPU (`garrison preflight` lists them)."


@_rule(
    "host-memory",
    r"Available memory on node (\d+) \(([\d.]+)/([\d.]+) GiB\) on startup is less than desired CPU memory utilization "
    r"\(([\d.]+)",
)
def _node_memory(found: re.Match[str]) -> tuple[str, str]:
    fits = int(float(found[2]) / float(found[3]) * 100 - 2) / 100
    message = (
        f"{found[2]} of {found[3]} GiB of memory are free on node {found[1]}, and {float(found[4]):.0%} was asked for"
    )
    lower = f"Use --gpu-memory-utilization {fits:.2f} (it applies to the CPU too), or stop" if fits > 0 else "Stop"
    return message, f"{lower} other processes."


@_rule(
    "gpu-memory",
    r"CUDA out of memory|torch\.(?:cuda\.)?OutOfMemoryError|HIP out of memory|cudaMalloc failed: out of memory|"
    r"\[METAL\][^\n]*Insufficient Memory|CUDA error: out of memory",
)
def _gpu_memory(found: re.Match[str]) -> tuple[str, str]:
    return (
        "the GPU ran out of memory",
        "Lower --max-model-len, --max-num-seqs or --gpu-memory-utilization; or use a quantized model, or more GPUs "
        "with --tensor-parallel-size. llama-server: lower --ctx-size or --gpu-layers.",
    )


@_rule(
    "shared-memory",
    r"Insufficient space in (\S+) for [^:\n]{1,200}: (\d+) MiB required, (\d+) MiB free",
)
def _shm(found: re.Match[str]) -> tuple[str, str]:
    return (
        f"{found[1]} has {found[3]} MiB free and {found[2]} MiB are needed",
        f"Enlarge it: `mount -o remount,size=2g {found[1]}`; in a container --shm-size=2g or --ipc=host.",
    )


@_rule("shared-memory", r"Bus error|No space left on device: '/psm_|/dev/shm[^\n]*No space left")
def _bus_error(found: re.Match[str]) -> tuple[str, str]:
    return "shared memory is too small", "Enlarge /dev/shm; in a container --shm-size=2g or --ipc=host."


@_rule(
    "host-memory",
    r"DefaultCPUAllocator: can't allocate memory|std::bad_alloc|Cannot allocate memory|\bMemoryError\b|"
    r"failed to allocate [^\n]*buffer|unable to allocate [^\n]*buffer",
)
def _host_memory(found: re.Match[str]) -> tuple[str, str]:
    return _HOST_MEMORY


@_rule("dtype", r"Bfloat16 is only supported on GPUs with compute capability of at least ([\d.]+)")
def _bfloat16(found: re.Match[str]) -> tuple[str, str]:
    return f"bfloat16 needs a GPU of compute capability {found[1].rstrip('.')} or newer", "Use --dtype half."


@_rule("dtype", r"The model type '([^']+)' does not support float16")
def _float16(found: re.Match[str]) -> tuple[str, str]:
    return f"models of type {found[1]} do not work in float16", "Use --dtype bfloat16, or float32 on an old GPU."


@_rule(
    "access",
    r"Cannot access gated repo|You are trying to access a gated repo|is restricted and you are not in the authorized",
)
def _gated(found: re.Match[str]) -> tuple[str, str]:
    named = re.search(r"Access to model (\S+) is restricted|Make sure to have access to it at (\S+)", found.string)
    model = (named[1] or named[2]) if named else "the model"
    return f"{model} is gated", "Ask for access on its page, then set HF_TOKEN to a token of that account."


@_rule("access", r"401 Client Error|Invalid user token|Repository Not Found for url")
def _no_access(found: re.Match[str]) -> tuple[str, str]:
    return (
        "the hub has no such model, or you have no access to it",
        "Check the name; for a private or gated model set HF_TOKEN.",
    )


@_rule(
    "model-missing",
    r"Repo id must be in the form 'repo_name' or 'namespace/repo_name': '([^']+)'|"
    r"failed to open GGUF file '([^']+)' \(No such file|Invalid repository ID or local directory specified: '([^']+)'",
)
def _missing(found: re.Match[str]) -> tuple[str, str]:
    path = found[1] or found[2] or found[3]
    return f"there is no model at {path}", "Check the path; `garrison models list` shows the models on this machine."


@_rule(
    "model-missing",
    r"does not appear to have a file named ([\w.]+)|No such file or directory: '([^']+\.(?:json|model))'",
)
def _incomplete(found: re.Match[str]) -> tuple[str, str]:
    file = found[1] or found[2]
    return f"the model lacks {file}", "`garrison models verify` shows what else is missing."


@_rule(
    "model-corrupt",
    r"model is corrupted or incomplete|SafetensorError|HeaderTooLarge|MetadataIncompleteBuffer|"
    r"not a valid GGUF|invalid magic characters|failed to read magic",
)
def _corrupt(found: re.Match[str]) -> tuple[str, str]:
    return "a weights file is damaged or truncated", "`garrison models verify` names it; then fetch it again."


@_rule(
    "architecture",
    r"Model architectures \['([^']+)'[^\]]{0,1000}\] (?:are not supported|failed to be inspected)|"
    r"unknown model architecture: '([^']+)'|Model type (\S+) not supported",
)
def _architecture(found: re.Match[str]) -> tuple[str, str]:
    name = found[1] or found[2] or found[3]
    return f"this engine does not know the architecture {name}", "Install a newer version, or use another engine."


@_rule("adapter-rank", r"LoRA rank (\d+) is greater than max_lora_rank (\d+)")
def _rank(found: re.Match[str]) -> tuple[str, str]:
    from garrison.engines.vllm import LORA_RANKS

    enough = next((rank for rank in LORA_RANKS if rank >= int(found[1])), None)
    remedy = f"Use --max-lora-rank {enough}." if enough else f"vLLM accepts ranks up to {LORA_RANKS[-1]}; leave it out."
    return f"an adapter has rank {found[1]}, and {found[2]} is the highest allowed", remedy


@_rule("glibc", r"version [`'](GLIBC(?:XX)?_[\d.]+)' not found")
def _glibc(found: re.Match[str]) -> tuple[str, str]:
    return f"the system's C library lacks {found[1]}", "Use a newer distribution, or run the engine in a container."


@_rule(
    "gpu-driver",
    r"NVIDIA driver on your system is too old|CUDA driver version is insufficient|no kernel image is available|"
    r"Failed to infer device type|Found no NVIDIA driver",
)
def _driver(found: re.Match[str]) -> tuple[str, str]:
    return (
        "the engine's build does not fit this machine's GPU or driver",
        "`garrison doctor` shows both; `garrison engine install --device cpu` installs a build without a GPU.",
    )


@_rule("system-library", MISSING.pattern)
def _system_library(found: re.Match[str]) -> tuple[str, str]:
    return f"the system's library {found[1]} is missing", remedy(found[1])


@_rule("cpu-instructions", r"Illegal instruction|Failed to import from vllm\._C_AVX2")
def _instructions(found: re.Match[str]) -> tuple[str, str]:
    return _CPU_INSTRUCTIONS


_HOST_MEMORY = (
    "the machine ran out of memory",
    "Use a smaller or quantized model; on the CPU lower VLLM_CPU_KVCACHE_SPACE and --max-model-len, or --ctx-size.",
)
_CPU_INSTRUCTIONS = (
    "the engine was built for instructions this CPU does not have",
    "Install it again on this machine, or use another engine.",
)


def _by_status(exit_code: int | None) -> Diagnosis | None:
    """SIGILL, SIGBUS and SIGKILL, as reported by subprocess (-4) and by shells (132)."""
    signal = -exit_code if exit_code is not None and exit_code < 0 else (exit_code or 0) - 128
    if signal == 4:
        return Diagnosis("cpu-instructions", *_CPU_INSTRUCTIONS)
    if signal == 7:
        return Diagnosis(
            "shared-memory", "shared memory is too small", "Enlarge /dev/shm; in a container --shm-size=2g."
        )
    if signal == 9:
        message = "it was killed, which the system does when memory runs out"
        return Diagnosis("host-memory", message, f"See `dmesg` for the reason. {_HOST_MEMORY[1]}")
    return None


def _bare(line: str) -> str:
    """Without colours, and cut: a pattern may be quadratic in the length of a line."""
    return re.sub(r"\x1b\[[0-9;]*m", "", line[:_LINE_CHARACTERS]).rstrip("\n")


CAUSES = tuple(dict.fromkeys(("unknown-flag", *(rule.cause for rule in _RULES))))
"""All causes, for the documentation."""
