"""Names close to one that does not exist."""

import difflib
from collections import Counter

import pytest

from garrison.gateway.requests.near import near_names

FEW = ["qwen", "qwen/sql", "gpt-4o-mini", "Qwen/Qwen2.5-7B-Instruct", "llama-3.1-8b", "whisper"]
MANY = [*(f"tenant-{number:05d}-sql" for number in range(10_000)), *FEW]


@pytest.mark.parametrize("names", [FEW, MANY], ids=["few", "many"])
@pytest.mark.parametrize(
    ("wanted", "first"),
    [
        ("qwn", "qwen"),
        ("QWEN", "qwen"),
        ("qwen/sqll", "qwen/sql"),
        ("gpt4o-mini", "gpt-4o-mini"),
        ("gtp-4o-mini", "gpt-4o-mini"),
        ("qwen2.5-7b-instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("llama-3-8b", "llama-3.1-8b"),
        ("wisper", "whisper"),
    ],
)
def test_the_one_that_was_meant_comes_first(names: list[str], wanted: str, first: str) -> None:
    found = near_names(wanted, names)
    assert found[0] == first
    assert len(found) <= 3
    assert set(found) <= set(names)


def test_among_many() -> None:
    assert near_names("tenant-01234-sqll", MANY)[0] == "tenant-01234-sql"
    assert "tenant-01234-sql" in near_names("tenant-0l234-sql", MANY)


@pytest.mark.parametrize("wanted", ["", "zzz", "mistral-large", "q" * 5000])
@pytest.mark.parametrize("names", [[], FEW, MANY], ids=["none", "few", "many"])
def test_nothing_close(wanted: str, names: list[str]) -> None:
    assert near_names(wanted, names) == []


def test_letters_whose_lower_case_is_longer() -> None:
    names = ["İstanbul-7b", *MANY]
    assert near_names("İstanbul-8b", names)[0] == "İstanbul-7b"
    assert near_names("gpt4o-mini", names)[0] == "gpt-4o-mini"


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("tenant-00000-sqq", MANY),
        ("a" * 99, ["a" * 95 + str(number) for number in range(10_000)]),
        ("ab" * 49, ["ab" * 47 + str(number) for number in range(10_000)]),
    ],
)
def test_few_are_compared(wanted: str, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    class Counted(difflib.SequenceMatcher[str]):
        def quick_ratio(self) -> float:
            calls["counted"] += 1
            return super().quick_ratio()

        def ratio(self) -> float:
            calls["aligned"] += 1
            return super().ratio()

    monkeypatch.setattr(difflib, "SequenceMatcher", Counted)
    assert near_names(wanted, names)
    assert calls["counted"] <= 48
    assert calls["aligned"] <= 12
