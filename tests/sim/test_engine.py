"""The engine's state machine, against an independent model where that says more than examples."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from garrison.sim.config import LoraModule, SimConfig
from garrison.sim.engine import Engine, Refusal
from garrison.testing.adapter_reader import MemoryAdapters

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.sampled_from(["/1", "/2"])


def engine(adapters: MemoryAdapters, **options: object) -> Engine:
    config = SimConfig(**({"model": "base", "enable_lora": True, "block_size": 4} | options))  # type: ignore[arg-type] # by name
    return Engine(config, adapters, started_at=0.0)


def shelf(**digests: str) -> MemoryAdapters:
    adapters = MemoryAdapters()
    for path, digest in digests.items():
        adapters.put("/" + path, digest)
    return adapters


def test_a_prompt_of_exactly_one_block_reuses_none() -> None:
    adapters = shelf(a="old")
    one = engine(adapters)
    one.load("a", "/a", in_place=False)
    block, more = ["t"] * 4, ["t"] * 5
    assert one.weights("a", block) == "old"
    adapters.put("/a", "new")
    one.load("a", "/a", in_place=True)
    assert one.weights("a", block) == "new"
    assert one.weights("a", more) == "new"  # the block was computed anew by the request before


def test_blocks_after_a_stale_one_are_stale_too() -> None:
    adapters = shelf(a="old")
    one = engine(adapters)
    one.load("a", "/a", in_place=False)
    one.weights("a", ["t"] * 5)
    adapters.put("/a", "new")
    one.load("a", "/a", in_place=True)
    mixed = one.weights("a", [*["t"] * 4, *["u"] * 5])
    assert mixed not in ("old", "new")
    assert one.weights("a", [*["t"] * 4, *["u"] * 4, "v"]) == mixed
    assert one.weights("a", ["w"] * 9) == "new"
    one.reset_prefix_cache()
    assert one.weights("a", ["t"] * 5) == "new"


def test_another_name_at_the_same_path_has_its_own_blocks() -> None:
    adapters = shelf(a="old")
    one = engine(adapters, max_loras=4)
    one.load("a", "/a", in_place=False)
    one.weights("a", ["t"] * 9)
    adapters.put("/a", "new")
    one.load("b", "/a", in_place=False)
    assert one.weights("b", ["t"] * 9) == "new"


def test_old_weights_back_are_right_again() -> None:
    adapters = shelf(a="old")
    one = engine(adapters)
    one.load("a", "/a", in_place=False)
    one.weights("a", ["t"] * 5)
    adapters.put("/a", "new")
    one.load("a", "/a", in_place=True)
    adapters.put("/a", "old")
    one.load("a", "/a", in_place=True)
    assert one.weights("a", ["t"] * 5) == "old"


def test_the_prefix_cache_is_bounded() -> None:
    one = engine(shelf(a="d"), cache_blocks=10)
    one.load("a", "/a", in_place=False)
    for at in range(50):
        one.weights("a", [str(at)] * 9)
    assert one.cached_blocks == 10


def test_the_least_recently_used_adapter_leaves_the_cpu_cache() -> None:
    adapters = shelf(a="1", b="2", c="3")
    one = engine(adapters, max_cpu_loras=2)
    for name in "abc":
        one.load(name, "/" + name, in_place=False)
    reads = adapters.reads
    one.weights("b", [])
    one.weights("c", [])
    assert adapters.reads == reads
    one.weights("a", [])
    assert adapters.reads == reads + 1


def test_unloading_leaves_the_weights_in_the_cache() -> None:
    one = engine(shelf(a="1"), max_loras=2)
    one.load("a", "/a", in_place=False)
    one.unload("a")
    assert (one.adapters, one.cpu_cached) == ({}, 1)


def test_a_failed_in_place_load_keeps_what_was_there() -> None:
    adapters = shelf(a="1")
    one = engine(adapters)
    one.load("a", "/a", in_place=False)
    adapters.files["/a"] = "broken"
    assert isinstance(one.load("a", "/a", in_place=True), Refusal)
    assert one.weights("a", []) == "1"


def test_parent_of_a_module_of_the_command_line() -> None:
    one = engine(shelf(a="1"), served_names=("x", "y"), lora_modules=(LoraModule("a", "/a"),))
    one.load("a", "/a", in_place=False, base_model_name="y")
    assert one.adapters["a"].parent == "y"


class Life(RuleBasedStateMachine):
    """Loads, unloads, requests and vanishing files; the model knows what vLLM's sources promise."""

    def __init__(self) -> None:
        super().__init__()
        self.adapters = shelf(**{"1": "d1", "2": "d2"})
        self.engine = engine(self.adapters, max_cpu_loras=2, prefix_caching=False)
        self.names: dict[str, tuple[str, bool, int]] = {}
        self.cache: list[tuple[int, str]] = []
        self.count = 0
        self.dead = False

    def _bring_in(self, path: str, number: int) -> bool:
        if path not in self.adapters.files:
            return False
        found = self.adapters.files[path]
        assert not isinstance(found, str)
        others = [item for item in self.cache if item[0] != number]
        self.cache = [*others[-1:], (number, found.digest)]
        return True

    @rule(name=NAMES, path=PATHS, in_place=st.booleans())
    def load(self, name: str, path: str, in_place: bool) -> None:
        refusal = self.engine.load(name, path, in_place=in_place)
        if name in self.names and not in_place:
            assert refusal is not None
            assert refusal.status == 400
            return
        number = self.names[name][2] if name in self.names else self.count + 1
        self.count = max(self.count, number)
        if self._bring_in(path, number):
            assert refusal is None
            self.names[name] = (path, in_place, number)
        else:
            assert refusal is not None
            assert refusal.status == 404

    @rule(name=NAMES)
    def unload(self, name: str) -> None:
        refusal = self.engine.unload(name)
        assert (refusal is None) == (name in self.names)
        self.names.pop(name, None)

    @rule(name=NAMES)
    def ask(self, name: str) -> None:
        if name not in self.names:
            return
        found = self.engine.weights(name, [])
        if self.dead:
            assert isinstance(found, Refusal)
            return
        path, in_place, number = self.names[name]
        kept = dict(self.cache).get(number)
        if kept is not None and not in_place:
            self.cache = [item for item in self.cache if item[0] != number] + [(number, kept)]
        elif not self._bring_in(path, number):
            self.dead = True
            assert isinstance(found, Refusal)
            return
        assert found == dict(self.cache)[number]

    @rule(path=PATHS, digest=st.sampled_from(["x", "y", "z"]))
    def rewrite(self, path: str, digest: str) -> None:
        self.adapters.put(path, digest)

    @rule(path=PATHS)
    def vanish(self, path: str) -> None:
        self.adapters.files.pop(path, None)

    @invariant()
    def agree(self) -> None:
        assert self.engine.dead == self.dead
        assert set(self.engine.adapters) == set(self.names)
        assert self.engine.cpu_cached == len(self.cache) <= 2


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
