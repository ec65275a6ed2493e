import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.models.adapters.module_names import RankPattern, Targets
from garrison.models.adapters.patterns import MAX_TEXT, Allowance, PatternError

Q = "model.layers.0.self_attn.q_proj"
LOOKAHEAD = r"(?=.*q)q_proj"


def plenty() -> Allowance:
    return Allowance(3600)


def spent() -> Allowance:
    return Allowance(0)


def as_peft(ranks: dict[str, int], module: str, default: int) -> int:
    return next((rank for key, rank in ranks.items() if re.match(rf"(.*\.)?({key})$", module)), default)


KEYS = st.one_of(
    st.text("ab.", min_size=1, max_size=4), st.sampled_from(["a|b", r"a\.b", "[ab]+", "^a", "b$", ".*", "(a)"])
)


@given(st.dictionaries(KEYS, st.integers(1, 64), max_size=6), st.text("ab.", min_size=1, max_size=8))
def test_the_rank_is_pefts(ranks: dict[str, int], module: str) -> None:
    assert RankPattern(ranks).of(module, 99, plenty()) == as_peft(ranks, module, 99)


def test_the_first_key_wins() -> None:
    ranks = RankPattern({"layers.0..*": 4, "q_proj": 8, r".*attn\.q_proj": 16})
    assert ranks.of(Q, 2, plenty()) == 4
    assert ranks.of("model.layers.1.self_attn.q_proj", 2, plenty()) == 8
    assert ranks.of("model.layers.1.mlp", 2, plenty()) == 2


def test_a_key_that_cannot_be_told_leaves_open_only_what_comes_after_it() -> None:
    ranks = RankPattern({"v_proj": 4, LOOKAHEAD: 8, "q_proj": 16})
    assert ranks.of("a.v_proj", 2, plenty()) == 4
    assert ranks.undecided is None
    assert ranks.of("a.q_proj", 2, plenty()) is None
    assert ranks.undecided is not None
    assert LOOKAHEAD in ranks.undecided


def test_a_key_for_each_of_many_modules() -> None:
    """As EVA writes them; every key is a pattern of its own."""
    modules = [f"model.layers.{layer}.mlp.experts.{expert}.up_proj" for layer in range(40) for expert in range(100)]
    ranks = RankPattern({module: number + 1 for number, module in enumerate(modules)})
    assert [ranks.of(module, 0, plenty()) for module in modules] == list(range(1, len(modules) + 1))


def test_more_patterns_than_are_looked_at() -> None:
    ranks = RankPattern({f"(a{number})": 1 for number in range(1000)} | {"q_proj": 8})
    assert ranks.of(Q, 2, plenty()) is None
    assert "too many" in (ranks.undecided or "")


def test_an_invalid_key_is_named() -> None:
    with pytest.raises(PatternError) as caught:
        RankPattern({"q_proj": 1, "(": 2})
    assert caught.value.pattern == "("


TARGETS = {
    "the end": (["q_proj"], Q, True),
    "the whole": ([Q], Q, True),
    "not a part of a word": (["proj"], Q, False),
    "a list holds no patterns": ([".*"], Q, False),
    "none": ([], Q, False),
}


@pytest.mark.parametrize(("names", "module", "expected"), TARGETS.values(), ids=TARGETS)
def test_a_list_names_the_ends_of_modules(names: list[str], module: str, expected: bool) -> None:
    assert Targets(names, pattern=False).has(module, plenty()) is expected


def test_a_pattern_is_for_the_whole_name() -> None:
    assert Targets(["q_proj"], pattern=True).has(Q, plenty()) is False
    assert Targets([r".*\.q_proj"], pattern=True).has(Q, plenty()) is True
    assert Targets(["all-linear"], pattern=True).has(Q, plenty()) is True


@pytest.mark.parametrize("pattern", [True, False], ids=["pattern", "list"])
@pytest.mark.parametrize(("module", "allowance"), [(Q, spent()), ("a." * MAX_TEXT, plenty())], ids=["time", "length"])
def test_what_is_too_much_is_left_open(pattern: bool, module: str, allowance: Allowance) -> None:
    targets = Targets(["q_proj"], pattern=pattern)
    assert targets.has(module, allowance) is None
    assert targets.undecided is not None
    assert targets.without_modules([module], allowance) == []


def test_ranks_are_left_open_when_the_time_is_spent() -> None:
    for ranks in (RankPattern({"q_proj": 8}), RankPattern({"(q_proj)": 8})):
        assert ranks.of(Q, 2, spent()) is None
        assert "too many" in (ranks.undecided or "")


def test_names_of_the_list_that_no_module_has() -> None:
    assert Targets(["q_proj", "gate", "attn"], pattern=False).without_modules([Q], plenty()) == ["attn", "gate"]
    assert Targets(["gate"], pattern=True).without_modules([Q], plenty()) == []
