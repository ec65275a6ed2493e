import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.models.names import hash12, model_from_directory, parse_model, safe_element, slug


def nothing(_path: str) -> bool:
    return False


@pytest.mark.parametrize(
    ("text", "org", "name", "revision", "model_id"),
    [
        pytest.param("Qwen/Qwen2.5-0.5B", "Qwen", "Qwen2.5-0.5B", None, "Qwen/Qwen2.5-0.5B", id="ORG/NAME"),
        pytest.param("acme/tiny@v1.0", "acme", "tiny", "v1.0", "acme/tiny", id="ORG/NAME@REVISION"),
        pytest.param("acme/tiny@refs/pr/3", "acme", "tiny", "refs/pr/3", "acme/tiny", id="a revision with slashes"),
        pytest.param("gpt2", None, "gpt2", None, "gpt2", id="a bare name"),
        pytest.param("gpt2@main", None, "gpt2", "main", "gpt2", id="a bare name at a revision"),
    ],
)
def test_names(text: str, org: str | None, name: str, revision: str | None, model_id: str) -> None:
    model = parse_model(text, exists=nothing)
    assert (model.org, model.name, model.revision, model.model_id) == (org, name, revision, model_id)
    assert model.path is None


def test_a_bare_name_takes_the_organisation_of_the_settings() -> None:
    assert parse_model("tiny", org="acme", revision="r1", exists=nothing).model_id == "acme/tiny"
    assert parse_model("tiny@r2", org="acme", revision="r1", exists=nothing).revision == "r2"


@pytest.mark.parametrize("text", ["/models/tiny", "./tiny", "../tiny", "~/tiny", "."], ids=str)
def test_paths_by_their_looks(text: str) -> None:
    model = parse_model(text, exists=nothing)
    assert model.path is not None
    assert model.path.is_absolute()
    assert ".." not in model.path.parts
    assert model.model_id == str(model.path)


@pytest.mark.parametrize("text", ["acme/tiny", "tiny/", "tiny.gguf", "a/b/c"], ids=str)
def test_paths_that_exist(text: str) -> None:
    assert parse_model(text, exists=lambda _: True).path == Path.cwd() / text


def test_a_bare_name_is_a_name_even_where_a_directory_has_it() -> None:
    assert parse_model("tiny", exists=lambda _: True).path is None


@pytest.mark.parametrize(
    ("text", "quantization", "directory", "shown"),
    [
        ("acme/tiny-GGUF:Q4_K_M", "Q4_K_M", "tiny-GGUF--Q4_K_M", "acme/tiny-GGUF:Q4_K_M"),
        ("acme/tiny-GGUF:q4_k_m", "Q4_K_M", "tiny-GGUF--Q4_K_M", "acme/tiny-GGUF:Q4_K_M"),
        ("acme/tiny-GGUF:UD-Q4_K_XL@main", "UD-Q4_K_XL", "tiny-GGUF--UD-Q4_K_XL", "acme/tiny-GGUF:UD-Q4_K_XL@main"),
        ("acme/tiny-GGUF:latest", "", "tiny-GGUF--latest", "acme/tiny-GGUF:latest"),
    ],
)
def test_a_quantization_of_a_repository(text: str, quantization: str, directory: str, shown: str) -> None:
    model = parse_model(text, exists=nothing)
    assert (model.model_id, model.file, model.quantization) == ("acme/tiny-GGUF", None, quantization)
    assert (model.directory, str(model)) == (directory, shown)


@pytest.mark.parametrize("text", ["acme/tiny:", "acme/tiny:a/b", "acme/tiny/q4.gguf:Q4_K_M", "acme/tiny:a b", "a/b::c"])
def test_what_is_no_quantization(text: str) -> None:
    with pytest.raises(InvalidError, match="QUANTIZATION"):
        parse_model(text, exists=nothing)


def test_one_gguf_file_of_a_repository() -> None:
    model = parse_model("acme/tiny-GGUF/sub/q4.gguf@main", exists=nothing)
    assert (model.model_id, model.file, model.directory) == ("acme/tiny-GGUF", "sub/q4.gguf", "tiny-GGUF--sub-q4")
    assert str(model) == "acme/tiny-GGUF/sub/q4.gguf@main"


@pytest.mark.parametrize(
    "text",
    ["", "  ", "a/b/c", "acme/", "/", "acme/..", "../..@x\0", "acme/tiny@", "acme/tiny@a..b", "acme/tiny@-x", "hub",
     ".staging", "acme/.locks", "a\nb", "a\\b", "x" * 300, "~nobody-has-this-name/x", "a/../b.gguf"],
)  # fmt: skip
def test_refused(text: str) -> None:
    if text == "/":
        assert parse_model(text, exists=nothing).path == Path("/")
        return
    with pytest.raises(InvalidError):
        parse_model(text, exists=nothing)


@pytest.mark.parametrize(
    "value", ["", ".", "..", "a/b", "/a", "a\\b", "a\0b", "a\nb", "a\x1bb", "a\x7f", "hub", ".locks"]
)
def test_vllm_model_is_a_single_safe_path_element(value: str) -> None:
    with pytest.raises(InvalidError, match="VLLM_MODEL must"):
        safe_element(value)


@given(st.text(max_size=60))
def test_a_safe_element_stays_below_its_parent(value: str) -> None:
    try:
        safe_element(value)
    except InvalidError:
        return
    path = Path("/root") / value
    assert path.parent == Path("/root")
    assert path.name == value


@given(st.text(max_size=80))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        model = parse_model(text, exists=nothing)
    except InvalidError:
        return
    assert "/" not in model.slug
    assert len(model.hash12) == 12


def test_slug_and_hash() -> None:
    assert slug("meta-llama/Llama 3:x") == "meta-llama-Llama-3-x"
    assert hash12("acme/tiny") == "e7f063adcf7c" == hashlib.sha256(b"acme/tiny").hexdigest()[:12]


def test_cache_directory() -> None:
    assert parse_model("acme/tiny", exists=nothing).cache_directory == "models--acme--tiny"
    assert parse_model("gpt2", exists=nothing).cache_directory == "models--gpt2"


class TestFromDirectory:
    def test_the_id_is_given(self) -> None:
        model = model_from_directory("mine", model_id="acme/tiny", org=None, revision="main")
        assert (model.name, model.model_id, model.cache_directory) == ("mine", "acme/tiny", "models--acme--tiny")
        assert str(model) == "acme/tiny@main"

    def test_the_id_is_derived(self) -> None:
        assert model_from_directory("tiny", model_id=None, org="acme", revision=None).model_id == "acme/tiny"

    def test_the_id_wins_over_the_organisation(self) -> None:
        assert model_from_directory("tiny", model_id="a/b", org="acme", revision=None).model_id == "a/b"

    @pytest.mark.parametrize(
        ("name", "model_id", "org"),
        [
            ("tiny", None, None),
            ("a/b", "a/b", None),
            ("tiny", "a/b/c", None),
            ("tiny", "../x", None),
            ("tiny", None, ".."),
        ],
    )
    def test_refused(self, name: str, model_id: str | None, org: str | None) -> None:
        with pytest.raises(InvalidError):
            model_from_directory(name, model_id=model_id, org=org, revision=None)
