"""Fixtures for all tests: a clean environment, a tiny model, waiting with a deadline, the command line."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT / "scripts"), str(ROOT / "tests" / "support")]

from tests_environment import environment  # noqa: E402 - it lies in the directory added above

pytest_plugins = ("real_engines", "served")

# How fast inputs are made depends on what else the machine does.
hypothesis.settings.register_profile("garrison", suppress_health_check=[hypothesis.HealthCheck.too_slow], deadline=None)
hypothesis.settings.load_profile("garrison")

_POLL_SECONDS = 0.02

# nohup ignores it, and every child that a test signals with it would inherit that.
# A shell without job control ignores the others for what it runs in the background.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def clean_environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """`os.environ` without anything that Garrison reads, and with a data directory for this test alone."""
    (tmp_path / "home").mkdir()
    wanted = environment(tmp_path / "home")
    for name in set(os.environ) - set(wanted):
        monkeypatch.delenv(name)
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    return os.environ


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the secrets that other tests have read, which redaction would hide in this one."""
    from garrison.base import redaction

    monkeypatch.setattr(redaction, "_KNOWN", redaction._Known())


Until = Callable[..., Any]


@pytest.fixture
def until() -> Until:
    """`until(condition, seconds=…)`: polls until `condition()` is true and returns its value; fails at the deadline."""

    def wait(condition: Callable[[], Any], *, seconds: float = 20.0, what: str = "the condition") -> Any:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > deadline:
                pytest.fail(f"{what} did not come true within {seconds:g} s")
            time.sleep(_POLL_SECONDS)
        return found

    return wait


@pytest.fixture
def cli(
    clean_environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """`cli("models", "list")`: the console script's `main`, in this process."""

    def call(*arguments: str | Path, program: str = "garrison") -> Done:
        from garrison.cli import main
        from garrison.cli.scripts import vllm_serve

        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        capsys.readouterr()
        code = {"garrison": main.main, "vllm-serve": vllm_serve.main}[program]()
        captured = capsys.readouterr()
        return Done(int(code), captured.out, captured.err)

    return call


@pytest.fixture
def run(clean_environ: Mapping[str, str]) -> Callable[..., Done]:
    """`run("-m", "garrison.cli.main", …)`: runs this Python in another process, to its end."""

    def call(*arguments: str | Path, seconds: float = 60.0, **options: Any) -> Done:
        argv = [sys.executable, *map(str, arguments)]
        options.setdefault("env", dict(clean_environ))
        done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False, **options)
        return Done(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory of a tiny Llama. Shared: do not write to it."""
    import tiny_model as maker

    return Path(maker.make_model(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[..., Path]:
    """`adapter("sql", rank=16)`: a PEFT directory that fits the tiny model unless the options say otherwise."""
    import tiny_model as maker

    return lambda name, **options: Path(maker.make_adapter(tmp_path / "made" / name, **options))


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A directory that another user can enter, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


@pytest.fixture
def unprivileged() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """A context in which the test runs as nobody, if it runs as root, which may read everything."""

    @contextlib.contextmanager
    def become_nobody() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return become_nobody
