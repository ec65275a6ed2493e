"""Tokens and answers."""

from hypothesis import given, settings
from hypothesis import strategies as st

from garrison.sim.text import answer, answer_key, embedding, split


@settings(deadline=None)
@given(st.text())
def test_split_loses_nothing(text: str) -> None:
    assert "".join(split(text)) == text


def test_split() -> None:
    assert split("The quickest-brown fox! ") == ["The", " quickest", "-", "brown", " fox", "!", " "]


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(1, 200), st.integers(1, 200))
def test_a_longer_limit_continues_the_same_answer(key: bytes, one: int, other: int) -> None:
    shorter, longer = sorted((one, other))
    assert answer(key, longer).text.startswith(answer(key, shorter).text)


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(1, 200))
def test_limits(key: bytes, limit: int) -> None:
    found = answer(key, limit)
    assert 1 <= len(found.tokens) <= limit
    assert (found.finish_reason == "length") == (len(found.tokens) == limit and limit < len(answer(key, 1000).tokens))
    assert len(answer(key, limit, ignore_eos=True).tokens) == limit
    assert len(answer(key, 300, at_least=250).tokens) == 250


@settings(deadline=None)
@given(st.binary(max_size=40), st.lists(st.text(min_size=1, max_size=3), max_size=3))
def test_stop_strings(key: bytes, stop: list[str]) -> None:
    whole, cut = answer(key, 60).text, answer(key, 60, stop=stop)
    ends = [whole.index(word) for word in stop if word in whole]
    assert cut.text == whole[: min(ends, default=len(whole))]
    assert (cut.stop_reason in stop) == bool(ends)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(), st.text(), st.text(), st.integers()), unique=True, min_size=2, max_size=2))
def test_keys_tell_their_parts_apart(parts: list[tuple[str, str, str, int]]) -> None:
    clean = [(prompt, base.replace("\0", ""), weights.replace("\0", ""), seed) for prompt, base, weights, seed in parts]
    if clean[0] != clean[1]:
        assert answer_key(*clean[0]) != answer_key(*clean[1])


def test_one_token_tells_weights_apart() -> None:
    firsts = {answer(answer_key("hi", "base", f"w{at}", 0), 1).text for at in range(200)}
    assert len(firsts) > 195


def test_embedding_has_length_one() -> None:
    assert abs(sum(value * value for value in embedding(b"k", 64)) - 1) < 1e-9
