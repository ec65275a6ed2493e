"""The commands of README and docs: each is one that exists, with options that exist, and the tour runs as it stands."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from parsed_command import parse_command

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"(?:^|[|;&(]\s*)(?:sudo (?:-\S+ \S+ )*)?garrison ")


def blocks(page: Path) -> Iterator[tuple[int, str]]:
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        yield text.count("\n", 0, match.start()) + 2, match[1]


def commands() -> list[Any]:
    return [
        pytest.param(line[match.end() :], id=f"{page.name}:{number}:{match.end()}")
        for page in PAGES
        for first, block in blocks(page)
        for number, line in enumerate(block.replace("\\\n", "  ").splitlines(), first)
        for match in _COMMAND.finditer(line)
    ]


def words(line: str) -> list[str]:
    """The arguments of a command up to the end of it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;()<>")
    lexer.whitespace_split = True
    found = []
    for word in lexer:
        if word and set(word) <= set("|&;()<>"):
            break
        found.append(word)
    return found


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_docs_exists_with_its_options(line: str) -> None:
    argv = words(line)
    own = argv[1 : argv.index("--")] if "--" in argv else argv[1:]
    parse_command(argv[0], own)


@pytest.mark.system
@pytest.mark.timeout(300)
def test_the_tour_runs_as_it_stands(clean_environ: Mapping[str, str], tmp_path: Path) -> None:
    (tour,) = (block for _, block in blocks(ROOT / "README.md") if "garrison example" in block)
    environ = {**clean_environ, "PATH": f"{Path(sys.executable).parent}:{clean_environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", tour],
        cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for told in (
        "http://127.0.0.1:8009 is ready",
        "+ 1 create",
        "1 created on 1 target",
        "1 served",
        "tour is destroyed",
    ):
        assert told in done.stdout + done.stderr


def test_the_example_is_not_written_over(cli: Callable[..., Any], tmp_path: Path) -> None:
    assert cli("example", tmp_path / "tour").code == 0
    (tmp_path / "tour" / "fleet.yaml").write_text("mine")
    again = cli("example", tmp_path / "tour")
    assert (again.code, "exists already" in again.err) == (33, True)
    assert (tmp_path / "tour" / "fleet.yaml").read_text() == "mine"
