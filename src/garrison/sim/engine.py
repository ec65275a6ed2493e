"""The engine as a state machine: adapter registry, CPU cache, prefix cache, sleep, death. It uses no clock and no
sockets; the disk is behind `AdapterReader`.

It reproduces what was observed on vLLM 0.32:

- Loading registers a name and puts the weights into the CPU cache under a fresh number; unloading drops the name only,
  and the weights stay until LRU evicts them.
- A request whose adapter is not in the cache, or was loaded in place, reads it from disk. If that fails, the engine
  dies.
- Prefix-cache blocks are keyed by (adapter name, adapter path, tokens), not by content. The last token is always
  computed, so cached blocks affect only prompts that are longer than a block.
- Sleep at level 2 discards the base weights: after waking, the answers belong to no weights until they are reloaded.

One thing is assumed, not observed: sleep at level 2 discards the weights of adapters too, until they are loaded again.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from garrison.sim.adapters import AdapterBrokenError, AdapterReader, AdapterWeights
from garrison.sim.config import SimConfig

__all__ = ["Engine", "Loaded", "Refusal"]

PARTS = frozenset({"weights", "kv_cache"})
"""What sleeps, and what the tags of a wake name."""
DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error, before it is given a shape."""

    status: int
    type: str
    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """An adapter in the registry."""

    name: str
    path: str
    number: int
    in_place: bool
    parent: str | None = None


class Engine:
    """The state of one engine process.

    Attributes:
        started_at: Unix time, as `process_start_time_seconds` shows it.
        adapters: loaded adapters by name.
        revision: changes whenever the model list does.
        sleep_level: None while awake.
    """

    def __init__(self, config: SimConfig, reader: AdapterReader, *, started_at: float) -> None:
        self.config = config
        self.started_at = started_at
        self.adapters: dict[str, Loaded] = {}
        self.revision = 0
        self.sleep_level: int | None = None
        self.dead = False
        self._reader = reader
        self._counter = 0
        self._cpu: OrderedDict[int, str] = OrderedDict()
        self._blocks: OrderedDict[tuple[str, str, int], str] = OrderedDict()
        self._weights_lost = False
        self._sleeping: frozenset[str] = frozenset()

    def load(self, name: str, path: str, *, in_place: bool, base_model_name: str | None = None) -> Refusal | None:
        """Load an adapter; return None on success.

        Args:
            base_model_name: from `--lora-modules`; vLLM ignores an HTTP field of that name.
        """
        if not name or not path:
            return Refusal(400, "InvalidUserInput", "Both 'lora_name' and 'lora_path' must be provided.")
        if name in self.config.names:
            return Refusal(400, "InvalidUserInput", f"The lora adapter '{name}' conflicts with a served base model.")
        known = self.adapters.get(name)
        if known is not None and not in_place:
            return Refusal(
                400,
                "InvalidUserInput",
                f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set "
                "'load_inplace' to True.",
            )
        number = known.number if known else self._next_number()
        failure = self._bring_in(name, path, number)
        if failure is not None:
            return failure
        parent = base_model_name if base_model_name in self.config.names else None
        self.adapters[name] = Loaded(name, path, number, in_place, parent)
        self.revision += 1
        return None

    def unload(self, name: str) -> Refusal | None:
        if not name:
            return Refusal(400, "InvalidUserInput", "'lora_name' needs to be provided to unload a LoRA adapter.")
        if name not in self.adapters:
            return Refusal(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        del self.adapters[name]
        self.revision += 1
        return None

    def serves(self, model: str) -> Refusal | None:
        """Return why requests for the name are refused, or None. An empty name means the base model."""
        if not model or model in self.config.names or model in self.adapters:
            return None
        aliases = ", ".join(self.config.names)
        message = f"The model `{model}` does not exist. Valid aliases: {aliases}."
        return Refusal(404, "NotFoundError", message, "model")

    def weights(self, model: str, tokens: Sequence[str]) -> str | Refusal:
        """Return what the answer to a prompt is computed with: "" for the base model, an adapter's digest, or the name
        of a mixture, whose answers no weights would give.

        Reads adapters and fills the caches as a forward pass would; may kill the engine.
        """
        if self.dead:
            return Refusal(500, "InternalServerError", DEAD)
        base = "lost" if self._weights_lost else ""
        adapter = self.adapters.get(model)
        if adapter is None:
            return base
        if adapter.number in self._cpu and not adapter.in_place:
            self._cpu.move_to_end(adapter.number)
        elif self._bring_in(adapter.name, adapter.path, adapter.number) is not None:
            self.dead = True
            return Refusal(500, "InternalServerError", DEAD)
        return base + self._through_prefix_cache(adapter, self._cpu[adapter.number], tokens)

    def sleep(self, level: int) -> None:
        self.sleep_level = level
        self._sleeping = PARTS
        if level == 2:
            self._weights_lost = True
            self._cpu = OrderedDict((number, "lost") for number in self._cpu)
        if level:
            self._blocks.clear()

    def wake(self, parts: frozenset[str] = PARTS) -> bool:
        """Wake parts of it; return whether it is awake."""
        self._sleeping -= parts
        if not self._sleeping:
            self.sleep_level = None
        return self.sleep_level is None

    def corrupt(self) -> None:
        """From now on the answers belong to no weights."""
        self._weights_lost = True

    def reload_weights(self) -> None:
        """Load the base weights again, as `/collective_rpc` with `reload_weights` does after sleep at level 2."""
        self._weights_lost = False

    def reset_prefix_cache(self) -> None:
        self._blocks.clear()

    @property
    def cached_blocks(self) -> int:
        return len(self._blocks)

    @property
    def cpu_cached(self) -> int:
        return len(self._cpu)

    def _next_number(self) -> int:
        self._counter += 1
        return self._counter

    def _bring_in(self, name: str, path: str, number: int) -> Refusal | None:
        """Read the adapter from disk into the CPU cache. If that fails, the cached weights stay."""
        found = self._read(name, path)
        if isinstance(found, Refusal):
            return found
        self._cpu.pop(number, None)
        while len(self._cpu) >= self.config.cpu_loras:
            self._cpu.popitem(last=False)
        self._cpu[number] = found.digest
        return None

    def _read(self, name: str, path: str) -> AdapterWeights | Refusal:
        if not self.config.enable_lora:
            return _failed("LoRA is not enabled. Use --enable-lora to enable LoRA.")
        try:
            found = self._reader.read(path)
        except (FileNotFoundError, NotADirectoryError):
            return Refusal(404, "NotFoundError", f"Loading lora {name} failed: No adapter found for {path}")
        except (AdapterBrokenError, OSError) as error:
            return _failed(str(error))
        if found.rank > self.config.max_lora_rank:
            return _failed(f"LoRA rank {found.rank} is greater than max_lora_rank {self.config.max_lora_rank}.")
        return found

    def _through_prefix_cache(self, adapter: Loaded, digest: str, tokens: Sequence[str]) -> str:
        size = self.config.block_size
        if not self.config.prefix_caching or len(tokens) < size:
            return digest
        computed_with = digest
        chain = 0
        reusable = (len(tokens) - 1) // size
        for at in range(len(tokens) // size):
            chain = hash((chain, *tokens[at * size : (at + 1) * size]))
            key = (adapter.name, adapter.path, chain)
            cached = self._blocks.get(key)
            # Old blocks under new weights: a block that was computed before decides all that follow it.
            if cached is not None and at < reusable:
                computed_with = cached if cached == digest else _mixture(cached, digest)
                self._blocks.move_to_end(key)
            else:
                self._blocks[key] = computed_with
        while len(self._blocks) > self.config.cache_blocks:
            self._blocks.popitem(last=False)
        return computed_with


def _mixture(cached: str, digest: str) -> str:
    return f"{cached.partition('+')[0]}+{digest}"


def _failed(message: str) -> Refusal:
    text = f"Call to add_lora method failed: Worker failed with error '{message}', please check the stack trace above"
    return Refusal(500, "InternalServerError", f"{text} for the root cause")
