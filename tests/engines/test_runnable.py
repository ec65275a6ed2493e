import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from garrison.base.errors import EngineMissingError
from garrison.engines.runnable import interpreter_of, problem_of, require_runnable

LONG = f"/x{'/long' * 40} with a blank/bin/python3"

HEADS = {
    "#!/usr/bin/python3\n": "/usr/bin/python3",
    "#! /usr/bin/env python3\n": "/usr/bin/env",
    "#!/bin/sh -e\nexec true\n": "/bin/sh",
    f"#!/bin/sh\n'''exec' \"{LONG}\" \"$0\" \"$@\"\n' '''\n": LONG,
    "#!/bin/sh\n'''exec' /short/python \"$0\" \"$@\"\n' '''\n": "/short/python",
    "exec true\n": None,
    "\x7fELF\x02": None,
    "": None,
}


@pytest.mark.parametrize("head", HEADS, ids=[repr(head[:20]) for head in HEADS])
def test_the_interpreter_that_a_program_names(tmp_path: Path, head: str) -> None:
    path = tmp_path / "x"
    path.write_text(head)
    assert interpreter_of(path) == HEADS[head]


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def dangling(path: Path) -> None:
    path.symlink_to("gone")


def python_with(path: Path, package: str) -> None:
    script(path, f"#!{sys.executable}\n# -*- coding: utf-8 -*-\nimport re\nimport sys\nfrom {package} import main\n")


PROBLEMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "does not exist"),
    "a link that leads nowhere": (dangling, "leads to gone, which does not exist"),
    "not executable": (lambda path: path.write_text("#!/bin/sh\n"), "is not executable"),
    "a directory": (lambda path: path.mkdir(), "is not executable"),
    "no interpreter": (lambda path: script(path, "exec true\n"), "without an interpreter"),
    "an interpreter that is gone": (
        lambda path: script(path, "#!/gone/python\n"),
        "interpreter /gone/python is missing",
    ),
    "a directory for an interpreter": (lambda path: script(path, "#!/tmp\n"), "interpreter /tmp is missing"),
    "a line break of Windows": (lambda path: script(path, "#!/bin/sh\r\n"), r"interpreter '/bin/sh\r' is missing"),
}
RUN = {
    "a package that is gone": (lambda path: python_with(path, "no_such_package"), "does not find its package no_such"),
    "an interpreter that fails": (
        lambda path: (
            script(path.with_name("python3"), "#!/bin/sh\necho broken >&2\nexit 3\n"),
            script(path, f"#!{path.with_name('python3')}\nfrom json import x\n"),
        ),
        "broken",
    ),
}


@pytest.mark.parametrize(("make", "said"), PROBLEMS.values(), ids=PROBLEMS)
def test_what_is_seen_without_running_it(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    path = tmp_path / "vllm"
    make(path)
    assert said in str(problem_of(path))
    with pytest.raises(EngineMissingError) as caught:
        require_runnable(path, remedy="Do this.")
    assert said in caught.value.message
    assert caught.value.hint == "Do this."


@pytest.mark.system
@pytest.mark.parametrize(("make", "said"), RUN.values(), ids=RUN)
def test_what_its_interpreter_tells(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    path = tmp_path / "vllm"
    make(path)
    require_runnable(path, remedy="")
    assert said in str(problem_of(path))


@pytest.mark.system
def test_a_native_program_is_asked_for_its_version(tmp_path: Path) -> None:
    path = tmp_path / "llama-server"
    shutil.copy(shutil.which("true") or "/bin/true", path)
    assert problem_of(path) is None
    os.truncate(path, 256)
    assert "does not run" in str(problem_of(path))


@pytest.mark.system
def test_what_can_run(tmp_path: Path) -> None:
    for name, text in {"sh": "#!/bin/sh\n", "python": f"#!{sys.executable}\nfrom json import dumps\n"}.items():
        script(tmp_path / name, text)
        assert problem_of(tmp_path / name) is None
