from pathlib import Path

from garrison import __version__
from garrison.engines.engine import LoraModule, LoraOptions, ServeOptions
from garrison.engines.sim import Sim


def test_the_simulator_is_a_module_of_this_python_with_vllms_flags() -> None:
    options = ServeOptions(
        "/m", "127.0.0.1", 8001, "acme", ("--seed", "0"), LoraOptions((LoraModule("a", "/a"),), 1, 8)
    )
    made = Sim().command(Path("/usr/bin/python3"), options)
    assert made.argv == (
        "/usr/bin/python3", "-P", "-m", "garrison.sim", "--model", "/m", "--host", "127.0.0.1", "--port", "8001",
        "--served-model-name", "acme", "--enable-lora", "--max-loras", "1", "--max-lora-rank", "8",
        "--lora-modules", "a=/a", "--seed", "0",
    )  # fmt: skip


def test_its_version_is_garrisons() -> None:
    assert Sim().version(Path("/usr/bin/python3")) == __version__
