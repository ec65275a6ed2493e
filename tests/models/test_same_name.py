"""A name that is also a directory here."""

from pathlib import Path

import pytest

from garrison.models.layout import Layout
from garrison.models.same_name import Meant, meant


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(root=tmp_path / "models", data_dir=tmp_path / "data")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name in ("broken", "acme/tiny"):
        (tmp_path / "here" / name).mkdir(parents=True)
    return tmp_path / "here"


@pytest.mark.parametrize("text", ["broken", "acme/tiny"])
def test_a_directory_that_exists_wins_over_a_hub_name_and_is_named(layout: Layout, here: Path, text: str) -> None:
    found = meant(text, layout, here=here)
    assert found.text == f"./{text}"
    assert found.word is not None
    assert f"./{text}" in found.word


PLAIN = ["./broken", "../x", "/broken", "~/broken", "broken/", ".", "..", "", "gpt2", "acme/other", "acme/tiny@main",
         "acme/tiny:Q4_K_M", "x" * 5000, "a\0b"]  # fmt: skip


@pytest.mark.parametrize("text", PLAIN, ids=[repr(text[:20]) for text in PLAIN])
def test_what_is_clear_is_left_as_it_is(layout: Layout, here: Path, text: str) -> None:
    assert meant(text, layout, here=here) == Meant(text)


@pytest.mark.parametrize("place", ["models/broken", "models/hub/models--broken"])
def test_a_bare_name_is_first_one_of_the_library(layout: Layout, here: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(parents=True)
    found = meant("broken", layout, here=here)
    assert found.text == "broken"
    assert found.word == "broken is the model of the library; the directory here is ./broken"
