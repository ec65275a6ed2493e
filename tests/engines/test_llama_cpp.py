from dataclasses import replace
from pathlib import Path

import pytest

from garrison.base.errors import InvalidError, ModelInvalidError
from garrison.engines.engine import LoraModule, LoraOptions, ServeOptions
from garrison.engines.llama_cpp import LlamaCpp

EXECUTABLE = Path("/engines/bin/llama-server")


def argv(*args: str, lora: LoraOptions | None = None) -> tuple[str, ...]:
    return LlamaCpp().command(EXECUTABLE, ServeOptions("/m.gguf", "127.0.0.1", 8001, "acme", args, lora)).argv


def test_argv() -> None:
    ours = ("--model", "/m.gguf", "--host", "127.0.0.1", "--port", "8001", "--alias", "acme", "--metrics")
    assert argv("-ngl", "-1", "-c", "0") == (str(EXECUTABLE), *ours, "-ngl", "-1", "-c", "0")


@pytest.mark.parametrize(
    ("args", "absent"),
    [(("-m", "/x.gguf"), "/m.gguf"), (("-hf", "a/b"), "--model"), (("-a", "n"), "--alias"), (("--port=9",), "8001")],
)
def test_the_users_flags_replace_ours_in_their_short_forms_too(args: tuple[str, ...], absent: str) -> None:
    assert absent not in argv(*args)


def test_a_router_has_no_model_and_no_name() -> None:
    args = ("--models-preset", "/p.ini")
    made = LlamaCpp().command(EXECUTABLE, ServeOptions("", "127.0.0.1", 8001, "", args, api_key_env="MY_KEY"))
    assert made.argv == (str(EXECUTABLE), "--host", "127.0.0.1", "--port", "8001", "--metrics", *args)
    assert made.env_from == {"LLAMA_API_KEY": "MY_KEY"}


def test_one_adapter_is_applied_and_several_wait_to_be_chosen() -> None:
    one, two = LoraModule("a", "/a.gguf"), LoraModule("b", "/b.gguf")
    assert argv(lora=LoraOptions((one,)))[-3:] == ("--lora", "/a.gguf", "--metrics")
    several = argv(lora=LoraOptions((one, two)))
    assert several[-4:] == ("--lora", "/a.gguf,/b.gguf", "--lora-init-without-apply", "--metrics")


@pytest.mark.parametrize(
    "lora", [LoraOptions(runtime_updates=True), LoraOptions((LoraModule("a", "/a,b.gguf"),))], ids=["runtime", "comma"]
)
def test_what_it_cannot_do_is_refused(lora: LoraOptions) -> None:
    with pytest.raises(InvalidError):
        argv(lora=lora)


def test_the_key_goes_through_its_own_variable() -> None:
    made = LlamaCpp().command(EXECUTABLE, ServeOptions("/m.gguf", api_key_env="MY_KEY"))
    assert made.env_from == {"LLAMA_API_KEY": "MY_KEY"}


def _touch(directory: Path, *names: str) -> str:
    for name in names:
        (directory / name).touch()
    return str(directory)


def test_a_directory_with_one_model_stands_for_it(tmp_path: Path) -> None:
    assert LlamaCpp().locate_model(_touch(tmp_path, "m.gguf", "mmproj-m.gguf", "README.md")) == str(tmp_path / "m.gguf")


def test_the_first_part_stands_for_a_split_model(tmp_path: Path) -> None:
    model = _touch(tmp_path, "m-00001-of-00002.gguf", "m-00002-of-00002.gguf")
    assert LlamaCpp().locate_model(model).endswith("m-00001-of-00002.gguf")


@pytest.mark.parametrize("beside", ["imatrix.gguf", "mtp-m-Q4_0.gguf", "m-mmproj-F16.gguf", "eagle3-m.gguf"])
def test_what_lies_beside_a_model_is_none(tmp_path: Path, beside: str) -> None:
    assert LlamaCpp().locate_model(_touch(tmp_path, "best-of-all.gguf", beside)).endswith("best-of-all.gguf")


PROJECTORS: dict[str, tuple[list[str], bool]] = {
    "the only one": (["m.gguf", "mmproj-m.gguf"], True),
    "of a split model": (["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "mmproj-m.gguf"], True),
    "one of two": (["m.gguf", "mmproj-m.gguf", "mmproj-n.gguf"], False),
    "beside two models": (["m.gguf", "n.gguf", "mmproj-m.gguf"], False),
    "none": (["m.gguf"], False),
}


@pytest.mark.parametrize(("names", "given"), PROJECTORS.values(), ids=PROJECTORS)
def test_the_projector_of_a_model(tmp_path: Path, names: list[str], given: bool) -> None:
    _touch(tmp_path, *names)
    expected = ("--mmproj", str(tmp_path / "mmproj-m.gguf")) if given else ()
    assert LlamaCpp().model_args(str(tmp_path / names[0])) == expected
    assert LlamaCpp().model_args(names[0]) == ()


@pytest.mark.parametrize("flag", ["--mmproj", "-mm", "--mmproj-url", "--no-mmproj"])
def test_the_users_own_projector_wins(flag: str) -> None:
    options = ServeOptions("/m.gguf", model_args=("--mmproj", "/p.gguf"))
    assert "/p.gguf" in LlamaCpp().command(EXECUTABLE, options).argv
    assert "/p.gguf" not in LlamaCpp().command(EXECUTABLE, replace(options, args=(flag, "x"))).argv


def test_a_file_stands_for_itself() -> None:
    assert LlamaCpp().locate_model("/m.gguf") == "/m.gguf"


@pytest.mark.parametrize("names", [(), ("a.gguf", "b.gguf"), ("model.safetensors",)], ids=["none", "two", "other"])
def test_no_model_and_two_models_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(ModelInvalidError, match=str(tmp_path)):
        LlamaCpp().locate_model(_touch(tmp_path, *names))
