"""What vLLM's versions offer for sleep, drain and metrics. Facts are from the code and the pages of 0.32.

A sleep request has a `mode` that says what becomes of requests in progress: `abort`, the default, `wait` or `keep`. The
other modes are always asked for by name; versions that do not know `mode` ignore it and abort.
"""

import re

from garrison.engines.control import Call, Drain, SleepControl, SleepLevel
from garrison.engines.memory import GIB, Release
from garrison.engines.metrics import Metric, MetricsPage

__all__ = ["DRAIN", "METRICS", "sleep_control"]

METRICS = MetricsPage(
    running=Metric(("vllm:num_requests_running",)),
    waiting=Metric(("vllm:num_requests_waiting",)),
    kv_cache=Metric(("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"), "max"),
    prompt_tokens=Metric(("vllm:prompt_tokens_total",)),
    generated_tokens=Metric(("vllm:generation_tokens_total",)),
    # One sample for each registry of a server with several processes; the newest is that of the youngest process.
    started_at=Metric(("process_start_time_seconds",), "max"),
)
DRAIN = Drain(by_metrics=True, grace_option="--shutdown-timeout")

_KEEPS_WEIGHTS = ((0, 14), (0, 17))
"""From, and before: versions whose sleep left the weights on the GPU (vllm-project/vllm#32714)."""
_KNOWS_MODE = (0, 32)
_VERSION = re.compile(r"v?(\d{1,6})\.(\d{1,6})")
# The CUDA context, the graphs and the communicators stay. vLLM logs what is still in use after each sleep.
_ASLEEP = Release(keeps_bytes=4 * GIB)


def sleep_control(version: str | None, device: str | None) -> SleepControl | None:
    """How this version sleeps; None where it cannot: a CPU build, or a version whose sleep frees nothing."""
    number = _number(version)
    if device == "cpu" or "cpu" in (version or ""):
        return None
    if number is not None and _KEEPS_WEIGHTS[0] <= number < _KEEPS_WEIGHTS[1]:
        return None
    wake_all = Call("POST", "/wake_up")
    return SleepControl(
        levels=(
            SleepLevel(1, "host", (_sleep(1),), (wake_all,), _ASLEEP),
            # The weights are read again by a call of its own, between the two parts of the way back.
            SleepLevel(
                2,
                "dropped",
                (_sleep(2),),
                (
                    Call("POST", "/wake_up", (("tags", "weights"),)),
                    Call("POST", "/collective_rpc", body='{"method": "reload_weights"}'),
                    Call("POST", "/wake_up", (("tags", "kv_cache"),)),
                ),
                _ASLEEP,
            ),
        ),
        state=Call("GET", "/is_sleeping"),
        arguments=("--enable-sleep-mode",),
        environment={"VLLM_SERVER_DEV_MODE": "1"},
        finishes_requests=number is not None and number >= _KNOWS_MODE,
        loopback_only=True,
    )


def _sleep(level: int) -> Call:
    return Call("POST", "/sleep", (("level", str(level)), ("mode", "wait")))


def _number(version: str | None) -> tuple[int, int] | None:
    match = _VERSION.match(version or "")
    return (int(match[1]), int(match[2])) if match else None
