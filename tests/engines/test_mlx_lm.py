from pathlib import Path

import pytest

from garrison.base.errors import InvalidError, ModelInvalidError
from garrison.engines.engine import LoraModule, LoraOptions, ServeOptions
from garrison.engines.mlx_lm import MlxLm

EXECUTABLE = Path("/engines/bin/mlx_lm.server")


def argv(*args: str, lora: LoraOptions | None = None) -> tuple[str, ...]:
    return MlxLm().command(EXECUTABLE, ServeOptions("/m", "127.0.0.1", 8001, "acme", args, lora)).argv


def test_argv() -> None:
    lora = LoraOptions((LoraModule("a", "/a"),))
    ours = ("--model", "/m", "--host", "127.0.0.1", "--port", "8001", "--adapter-path", "/a")
    assert argv("--temp", "0", lora=lora) == (str(EXECUTABLE), *ours, "--temp", "0")


def test_the_users_adapter_wins() -> None:
    assert "/a" not in argv("--adapter-path", "/u", lora=LoraOptions((LoraModule("a", "/a"),)))


@pytest.mark.parametrize(
    "lora",
    [LoraOptions((LoraModule("a", "/a"), LoraModule("b", "/b"))), LoraOptions(runtime_updates=True)],
    ids=["two", "runtime"],
)
def test_what_it_cannot_do_is_refused(lora: LoraOptions) -> None:
    with pytest.raises(InvalidError):
        argv(lora=lora)


def test_an_api_key_is_refused() -> None:
    with pytest.raises(InvalidError, match="no API key"):
        MlxLm().command(EXECUTABLE, ServeOptions("/m", api_key_env="K"))


def test_it_reads_the_layout_of_hugging_face_alone(tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text("{}")
    with pytest.raises(ModelInvalidError, match=r"no config\.json"):
        MlxLm().locate_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert MlxLm().locate_model(str(tmp_path)) == str(tmp_path)
    assert MlxLm().locate_model("acme/tiny") == "acme/tiny"
