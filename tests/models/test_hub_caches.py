from pathlib import Path

import pytest

from garrison.models.hub_caches import user_hub_caches

CASES: dict[str, tuple[dict[str, str], list[str]]] = {
    "nothing": ({}, ["/home/u/.cache/huggingface/hub"]),
    "HF_HOME": ({"HF_HOME": "/a"}, ["/a/hub"]),
    "XDG_CACHE_HOME": ({"XDG_CACHE_HOME": "/x"}, ["/x/huggingface/hub"]),
    "HF_HOME before XDG_CACHE_HOME": ({"HF_HOME": "/a", "XDG_CACHE_HOME": "/x"}, ["/a/hub"]),
    "HF_HUB_CACHE": ({"HF_HUB_CACHE": "/c", "HF_HOME": "/a"}, ["/c"]),
    "HUGGINGFACE_HUB_CACHE": ({"HUGGINGFACE_HUB_CACHE": "/d"}, ["/d"]),
    "the newer of two": ({"HF_HUB_CACHE": "/c", "HUGGINGFACE_HUB_CACHE": "/d"}, ["/c"]),
    "TRANSFORMERS_CACHE": ({"TRANSFORMERS_CACHE": "/t", "HF_HOME": "/a"}, ["/a/hub", "/t"]),
    "all of transformers": (
        {"TRANSFORMERS_CACHE": "/t", "PYTORCH_TRANSFORMERS_CACHE": "/p", "PYTORCH_PRETRAINED_BERT_CACHE": "/t",
         "HF_HUB_CACHE": "/c"},
        ["/c", "/t", "/p"],
    ),
    "a home": ({"HF_HOME": "~/hf"}, ["/home/u/hf/hub"]),
    "a variable": ({"HF_HOME": "$SCRATCH/hf"}, ["/scratch/hf/hub"]),
    "empty": ({"HF_HOME": "", "HF_HUB_CACHE": ""}, ["/home/u/.cache/huggingface/hub"]),
}  # fmt: skip


@pytest.mark.parametrize(("environ", "caches"), CASES.values(), ids=CASES)
def test_what_moves_the_cache(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], caches: list[str]) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.setenv("SCRATCH", "/scratch")
    assert user_hub_caches(environ) == tuple(map(Path, caches))


def test_without_a_home_what_does_not_need_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda text: text)
    assert user_hub_caches({}) == ()
    assert user_hub_caches({"HF_HUB_CACHE": "/c"}) == (Path("/c"),)
