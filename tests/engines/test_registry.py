import pytest

from garrison.base.errors import InvalidError
from garrison.engines import registry
from garrison.engines.engine import Engine


@pytest.mark.parametrize("name", registry.names())
def test_every_name_gives_an_engine_that_calls_itself_so(name: str) -> None:
    engine: Engine = registry.engine(name)
    assert engine.name == name
    assert engine.readiness.path.startswith("/")


@pytest.mark.parametrize(
    ("also", "name"), [("llama-cpp", "llama_cpp"), ("llama.cpp", "llama_cpp"), ("mlx-lm", "mlx_lm"), ("mlx", "mlx_lm")]
)
def test_other_spellings_are_understood(also: str, name: str) -> None:
    assert registry.engine(also).name == name


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InvalidError) as caught:
        registry.engine("vlm")
    assert caught.value.hint == "Did you mean vllm?"
    with pytest.raises(InvalidError, match="no engine 'triton'"):
        registry.engine("triton")
