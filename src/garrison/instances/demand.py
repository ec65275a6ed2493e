"""What an instance needs of this machine, and what its engine is told about the room it was given. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from garrison.instances.room.estimate import GIB, Estimate, ModelShape, Shape, estimate, gpus_needed
from garrison.instances.room.shape import (
    gpus_asked_for,
    llama_gpu_layers,
    shape_of,
    utilization,
    vllm_default_share,
)
from garrison.instances.room.values import HOST, Device, Granted, Need, Source
from garrison.instances.values.record import Costs
from garrison.instances.values.spec import InstanceSpec

__all__ = ["Facts", "cost_of_return", "fills_later", "grant", "named_devices", "need_of"]

_DEFAULT_COST_SECONDS = 30.0
_LEAST_WEIGHT = 0.001
_SPACE = "VLLM_CPU_KVCACHE_SPACE"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the need of an instance is made of.

    Attributes:
        on: where its engine keeps the model.
        args: its engine's arguments; later ones override earlier ones.
        env: its engine's variables.
        visible: GPUs that its environment leaves visible, as in `CUDA_VISIBLE_DEVICES`; None for all.
        model: None where the model is not on this machine.
        devices: of this machine.
    """

    spec: InstanceSpec
    costs: Costs = field(default_factory=Costs)
    on: Literal["gpu", "host"] = "host"
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    visible: tuple[str, ...] | None = None
    model: ModelShape | None = None
    devices: Sequence[Device] = ()


def need_of(facts: Facts) -> Need:
    """What was declared, else what was measured the last time, else what is estimated; else nothing is known."""
    spec = facts.spec
    none_on_gpu = spec.engine == "llama_cpp" and llama_gpu_layers(facts.args, facts.env) == 0
    if facts.on == "host" or none_on_gpu:
        return _in_system_memory(replace(facts, on="host"))
    keys, missing = named_devices(spec.devices or facts.visible or (), facts.devices)
    need = Need(spec.name, devices=keys, missing=missing, group=spec.group)
    return _vllm_on_gpus(facts, need) if spec.engine == "vllm" else _on_gpus(facts, need)


def named_devices(declared: Sequence[str], devices: Sequence[Device]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The keys of the GPUs that are declared by index, UUID or the beginning of one, and those that are not there."""
    gpus = [one for one in devices if one.key != HOST]
    keys: dict[str, None] = {}
    missing: list[str] = []
    for name in declared:
        if name.isascii() and name.isdigit():
            found = [one.key for one in gpus if one.index == int(name)]
        else:
            found = [one.key for one in gpus if len(name) > len("GPU-") and one.key.startswith(name)]
        if len(found) == 1:
            keys[found[0]] = None
        else:
            missing.append(f"GPU {name}" if name.isdigit() else name)
    return tuple(keys), tuple(missing)


def fills_later(spec: InstanceSpec, on: Literal["gpu", "host"]) -> bool:
    """Whether an engine that is ready does not hold yet all that it will.

    mlx_lm.server loads the weights with the first request, a router its models when they are asked for, and the pages
    of vLLM's cache in system memory become resident as they are used.
    """
    return spec.router or (on == "host" and spec.engine in ("mlx_lm", "vllm"))


def cost_of_return(costs: Costs, weight: float) -> float:
    """Seconds to bring an instance back, times its weight: by a start, or by sleep and wake where that is cheaper."""
    seconds = costs.start_seconds or _DEFAULT_COST_SECONDS
    if costs.sleep_seconds is not None and costs.wake_seconds is not None:
        seconds = min(seconds, costs.sleep_seconds + costs.wake_seconds)
    return seconds * max(weight, _LEAST_WEIGHT)


def _in_system_memory(facts: Facts) -> Need:
    spec, host = facts.spec, next((one for one in facts.devices if one.key == HOST), None)
    need = Need(spec.name, group=spec.group)
    shape = shape_of(spec.engine, "host", facts.args, facts.env)
    share = utilization(facts.args) if spec.engine == "vllm" and shape.kv_space is None else None
    if share is not None and host is not None and spec.memory_bytes is None:
        return replace(need, bytes=math.ceil(share * host.total), source="declared")
    if spec.engine == "vllm" and shape.kv_space is None and share is None:
        shape = _with_cache(shape, facts)
        need = replace(need, cache=shape.kv_space)
    found = _estimated(facts, shape)
    count, source = _known(facts, found.bytes if found else None, facts.costs.memory_bytes.get(HOST))
    return replace(need, bytes=count, source=source, parts=found.parts if found and source == "estimated" else ())


def _with_cache(shape: Shape, facts: Facts) -> Shape:
    """With a KV cache of whole GiB, as vLLM is told on a CPU: what is declared leaves, else what the context takes."""
    if facts.model is None:
        return shape
    found = estimate(facts.model, shape)
    cache = sum(part.bytes for part in found.parts if part.what.startswith("KV cache"))
    if facts.spec.memory_bytes is not None:
        room = (facts.spec.memory_bytes - (found.bytes - cache)) // GIB
        return replace(shape, kv_space=max(1, room) * GIB)
    return replace(shape, kv_space=max(1, math.ceil(cache / GIB)) * GIB)


def _vllm_on_gpus(facts: Facts, need: Need) -> Need:
    """vLLM takes a share of each GPU, whatever its model takes.

    What was measured says only what it was told the last time, so it counts just beside a share that the user gave.
    """
    shape = shape_of("vllm", "gpu", facts.args, facts.env)
    count, spread = gpus_asked_for("vllm", facts.args, facts.env)
    found = _estimated(facts, shape)
    need = replace(need, count=count, host=found.host * count if found else 0)
    share = utilization(facts.args)
    if facts.spec.memory_bytes is not None:
        return replace(need, bytes=facts.spec.memory_bytes, source="declared")
    if share is not None:
        return replace(need, share=share, bytes=_measured_on_gpus(facts.costs), source="declared")
    if found is not None:
        return replace(need, bytes=found.on_each(spread), percent=True, source="estimated", parts=found.parts)
    return replace(need, share=vllm_default_share(), source="default")


def _on_gpus(facts: Facts, need: Need) -> Need:
    found = _estimated(facts, shape_of(facts.spec.engine, "gpu", facts.args, facts.env))
    if facts.spec.engine == "custom":
        asked = len(facts.spec.devices)
    else:
        asked, _ = gpus_asked_for(facts.spec.engine, facts.args, facts.env)
    usable = [one for one in facts.devices if one.key != HOST and (not need.devices or one.key in need.devices)]
    largest = max((one.total for one in usable), default=0)
    if not asked:
        asked = min(gpus_needed(found, largest), max(1, len(usable))) if found else 1
    each = found.on_each(asked) if found else None
    count, source = _known(facts, each, _measured_on_gpus(facts.costs))
    parts = found.parts if found and source == "estimated" else ()
    return replace(need, count=asked, bytes=count, host=found.host if found else 0, source=source, parts=parts)


def _known(facts: Facts, estimated: int | None, measured: int | None) -> tuple[int | None, Source]:
    if facts.spec.memory_bytes is not None:
        return facts.spec.memory_bytes, "declared"
    if measured and (estimated is None or measured >= estimated or not fills_later(facts.spec, facts.on)):
        return measured, "measured"
    return (estimated, "estimated") if estimated is not None else (None, "unknown")


def _measured_on_gpus(costs: Costs) -> int | None:
    return max((count for key, count in costs.memory_bytes.items() if key != HOST), default=None)


def _estimated(facts: Facts, shape: Shape) -> Estimate | None:
    """The simulator loads nothing, and nobody knows what a custom server does."""
    if facts.model is None or facts.spec.engine in ("sim", "custom"):
        return None
    return estimate(facts.model, shape)


def grant(
    facts: Facts, need: Need, keys: Sequence[str], devices: Sequence[Device], *, variable: str = "CUDA_VISIBLE_DEVICES"
) -> Granted:
    """What an instance holds from now on, and what its engine is told, so that it keeps within that.

    Args:
        keys: the devices that were chosen.
        variable: the one by which an engine learns which GPUs it may use.
    """
    places = [one for one in devices if one.key in keys or (one.key == HOST and need.count and need.host)]
    held = {one.key: need.on(one) or 0 for one in places}
    gpus = tuple(key for key in keys if key != HOST) if need.count else ()
    env = {variable: ",".join(gpus)} if gpus and variable else {}
    args: tuple[str, ...] = ()
    if facts.spec.engine == "vllm" and gpus and need.share is None and utilization(facts.args) is None:
        hundredths = [held[one.key] * 100 // one.total for one in places if one.key in gpus and one.total]
        if need.bytes is not None and hundredths and min(hundredths) > 0:
            args = ("--gpu-memory-utilization", f"{min(100, *hundredths) / 100:.2f}")
    if need.cache is not None and need.count == 0:
        env = {_SPACE: str(need.cache // GIB)}
    return Granted(gpus, held, need, args, env)
