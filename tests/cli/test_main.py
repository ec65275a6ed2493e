import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from garrison.base.errors import ModelError, PortError, all_errors
from garrison.cli.documentation import _OF_AN_ERROR, page_of, page_of_error, pages
from garrison.cli.main import root_help, run
from garrison.cli.table import COMMANDS, find

HEAVY = ("typer", "rich", "pydantic", "fastapi", "nicegui", "sqlalchemy", "huggingface_hub", "obstore", "httpx2",
         "asyncio", "yaml", "psutil", "pynvml", "uvloop", "httptools", "structlog", "logging")  # fmt: skip

# What each may import of them. A slower cold path delays every start of a server.
COLD = {
    "garrison --help": ("garrison.cli.main", ["garrison", "--help"]),
    "garrison": ("garrison.cli.main", ["garrison"]),
    "garrison --version": ("garrison.cli.main", ["garrison", "--version"]),
    "garrison unknown": ("garrison.cli.main", ["garrison", "srve"]),
    "vllm-preflight": ("garrison.cli.scripts.vllm_preflight", ["vllm-preflight"]),
    "vllm-preflight with a command": ("garrison.cli.scripts.vllm_preflight", ["vllm-preflight", "--", "true"]),
    "vllm-preflight --help": ("garrison.cli.scripts.vllm_preflight", ["vllm-preflight", "--help"]),
    "vllm-serve --help": ("garrison.cli.scripts.vllm_serve", ["vllm-serve", "--help"]),
}


@pytest.mark.parametrize(("module", "argv"), COLD.values(), ids=COLD)
def test_cold_imports(run: Any, clean_environ: Any, tmp_path: Any, module: str, argv: list[str]) -> None:
    program = (
        f"import sys; sys.argv = {argv!r}\n"
        f"from {module} import main\n"
        "code = main()\n"
        f"print('IMPORTED', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    environ = {
        **clean_environ,
        "GARRISON_SKIP_GPU_CHECK": "1",
        "GARRISON_ENGINE_PORT": "54321",
        "GARRISON_PREFLIGHT_LOCKFILE": str(tmp_path / "x.lock"),
        "GARRISON_PREFLIGHT_PROXY_CHILD": "1",
    }
    done = run("-c", program, env=environ)
    assert "IMPORTED []" in done.out, done


COMMAND_LINES = [[command.name] for command in COMMANDS] + [
    [group, name] for group in ("models", "adapters") for name in ("import", "list", "show", "verify", "remove")
] + [["config", "show"]]  # fmt: skip


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("words", COMMAND_LINES, ids=" ".join)
def test_help_of_every_command(cli: Any, words: list[str], flag: str) -> None:
    if words == ["sim"]:
        pytest.importorskip("garrison.sim.command")
        with pytest.raises(SystemExit) as ended:
            cli(*words, flag)
        assert ended.value.code == 0
        return
    done = cli(*words, flag)
    assert done.code == 0, done
    assert "Usage:" in done.out or "usage:" in done.out


def commands_of(path: tuple[str, ...], command: Any) -> Iterator[tuple[str, ...]]:
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from commands_of((*path, name), below)


def every_command() -> Iterator[tuple[str, ...]]:
    for command in COMMANDS:
        yield from commands_of((command.name,), get_command(import_module(command.module).app))


def test_help_fits_80_columns_and_names_no_types(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for words in every_command():
        if words == ("sim",):  # an argparse, which ends the process
            continue
        lines = cli(*words, "--help").out.splitlines()
        assert lines.pop().startswith("Documentation: ")  # a path, which is not broken
        assert [line for line in lines if len(line) > 80 or re.search(r"<[a-z]+( range)?>|<=x", line)] == [], words


def test_help_is_filled(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that were broken for the source are not broken there again."""
    monkeypatch.setenv("COLUMNS", "80")
    text = cli("serve", "--help").out
    assert "Ctrl-C stops the\n engine; a second one kills it." in re.sub(r" +\n", "\n", text)


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]], ids=str)
def test_root_help(cli: Any, argv: list[str]) -> None:
    done = cli(*argv)
    assert done.code == 0
    for command in COMMANDS:
        assert re.search(rf"(?m)^  {command.name} +{re.escape(command.help)}$", done.out)
    assert "\x1b" not in done.out


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one.name)
def test_the_page_about_a_command_exists(command: Any) -> None:
    docs = pages()
    assert docs is not None
    assert (docs / page_of(command)).is_file()


@pytest.mark.parametrize(
    ("words", "page"), [(["serve", "--help"], "serve.md"), (["models"], "resolve.md"), (["help", "plan"], "fleet.md")]
)
def test_help_names_its_page(cli: Any, words: list[str], page: str) -> None:
    assert cli(*words).out.splitlines()[-1] == f"Documentation: {pages()}/{page}"


@pytest.mark.parametrize(
    ("words", "page"),
    [
        (["models", "show", "nothing"], "resolve.md"),
        (["engine", "describe", "vllm", "--executable", "/nonexistent/vllm"], "engines.md"),
    ],
)
def test_an_error_names_the_page_about_its_cause(cli: Any, words: list[str], page: str) -> None:
    assert cli(*words).err.splitlines()[-1] == f"  Documentation: {pages()}/{page}"


def test_an_error_that_says_enough_names_none(cli: Any) -> None:
    assert "Documentation" not in cli("models", "show").err + cli("keys", "show", "nobody").err


def test_the_page_about_each_error_exists() -> None:
    codes = {error.code for error in all_errors()}
    assert {one.code for one in all_errors() if issubclass(one, PortError | ModelError)} <= set(_OF_AN_ERROR)
    assert set(_OF_AN_ERROR) <= codes
    assert all((found := page_of_error(code)) is not None and found.is_file() for code in _OF_AN_ERROR)


def test_the_package_has_the_pages() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"] == {"docs": "share/doc/garrison"}


def test_the_pages_of_an_installation_for_one_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "lib" / "python3.11" / "site-packages" / "garrison" / "cli" / "documentation.py"
    monkeypatch.setattr("garrison.cli.documentation.__file__", str(module))
    installed = tmp_path / "share" / "doc" / "garrison"
    installed.mkdir(parents=True)
    (installed / "serve.md").touch()
    assert pages() == installed


def test_the_pages_of_an_installation(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.cli.documentation.__file__", str(tmp_path / "lib" / "garrison" / "cli" / "x.py"))
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    assert pages() is None
    assert "Documentation" not in cli("--help").out + cli("serve", "--help").out
    installed = tmp_path / "share" / "doc" / "garrison"
    installed.mkdir(parents=True)
    (installed / "serve.md").touch()
    assert f"Documentation: {installed}\n" in cli("--help").out
    content = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    shared = content["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert shared == {"docs": "share/doc/garrison"}


def test_root_help_in_colour() -> None:
    assert "\x1b[1m" in root_help(color=True)
    assert re.sub(r"\x1b\[[0-9]*m", "", root_help(color=True)) == root_help(color=False)


def test_help_of_one_command(cli: Any) -> None:
    assert cli("help", "wait").out == cli("wait", "--help").out


@pytest.mark.parametrize("flag", ["--version", "-V", "version"])
def test_version(cli: Any, flag: str) -> None:
    from garrison import __version__

    assert cli(flag).out == f"garrison {__version__}\n"


UNKNOWN = {
    "srve": "Did you mean `garrison serve`?",
    "model": "Did you mean `garrison models`?",
    "zzz": "`garrison --help` lists the commands.",
    "hlep": "Did you mean `garrison help`?",
}


@pytest.mark.parametrize(("word", "hint"), UNKNOWN.items(), ids=UNKNOWN)
def test_unknown_command(cli: Any, word: str, hint: str) -> None:
    done = cli(word)
    assert done.code == 64
    assert done.out == ""
    assert done.err == f"error: unknown command {word!r}\n  → {hint}\n"


@pytest.mark.parametrize(
    ("word", "hint"),
    {
        "-v": "Before a command, there are --help and --version.",
        "--nope": "Before a command, there are --help and --version.",
        "--verison": "Did you mean `garrison --version`?",
    }.items(),
)
def test_an_unknown_option_is_not_called_a_command(cli: Any, word: str, hint: str) -> None:
    done = cli(word)
    assert done.code == 64
    assert done.err == f"error: unknown option {word!r}\n  → {hint}\n"


IN_OUR_WORDS = {
    "too large": (["serve", "m", "--port", "70000"], "'--port' / '-p': must be at most 65535"),
    "too small": (["wait", "http://x", "--timeout", "-1"], "'--timeout' / '-t': must be at least 0"),
    "no whole number": (["serve", "m", "--port", "eight"], "'--port' / '-p': must be a whole number"),
    "no number": (["wait", "http://x", "--timeout", "x"], "'--timeout' / '-t': must be a number"),
    "a missing choice": (["completion"], "Missing argument SHELL. Choose from: bash, zsh, fish"),
    "a missing argument": (["keys", "create"], "Missing argument NAME."),
}


@pytest.mark.parametrize(("argv", "said"), IN_OUR_WORDS.values(), ids=IN_OUR_WORDS)
def test_usage_errors_are_one_line_in_our_words(cli: Any, argv: list[str], said: str) -> None:
    done = cli(*argv)
    assert done.code == 64
    first, hint = done.err.splitlines()
    assert said in first
    assert hint.startswith("  → ")


USAGE = {
    "unknown flag": (["wait", "http://x", "--tiemout", "3"], "--tiemout"),
    "unknown flag of serve": (["serve", "m", "--prot", "3"], "--prot"),
    "missing argument": (["wait"], "Missing argument URL"),
    "too many arguments": (["wait", "http://x", "http://y"], "http://y"),
    "text for a number": (["serve", "m", "--port", "eight"], "'--port'"),
    "port out of range": (["serve", "m", "--port", "70000"], "'--port'"),
    "port zero": (["preflight", "--port", "0"], "'--port'"),
    "negative timeout": (["wait", "http://x", "--timeout", "-1"], "'--timeout'"),
    "flag without a value": (["serve", "m", "--port"], "--port"),
    "unknown subcommand": (["models", "lst"], "lst"),
    "unknown source": (["resolve", "acme/tiny", "--source", "floppy"], "floppy"),
    "no model and no manifest": (["serve"], "no model given"),
    "model and manifest": (["serve", "m", "--file", "garrison.yaml"], "not both"),
    "adapter without a path": (["serve", "m", "--adapter", "sql="], "--adapter 'sql=' is not NAME=PATH"),
    "adapter without a name": (["serve", "m", "--adapter", "=x"], "--adapter '=x' is not NAME=PATH"),
}


@pytest.mark.parametrize(("argv", "said"), USAGE.values(), ids=USAGE)
def test_usage_errors(cli: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, argv: list[str], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli(*argv)
    assert done.code == 64, done
    assert said in done.err
    assert done.err.startswith("error: ")
    assert "Traceback" not in done.err


JSON_FAILURES = {
    "usage": (["wait", "--json"], "usage", 64),
    "unknown command": (["srve", "--json"], "usage", 64),
    "invalid": (["wait", "ftp://x", "--json"], "invalid", 1),
    "model not found": (["models", "show", "nope", "--json"], "model-not-found", 10),
    "adapter not found": (["adapters", "show", "nope", "--json"], "model-not-found", 10),
    "timeout": (["wait", "http://127.0.0.1:9", "--timeout", "0", "--json"], "engine-timeout", 22),
    "resolve": (["resolve", "acme/nope", "--offline", "--json"], "model-not-found", 10),
}


@pytest.mark.parametrize(("argv", "code", "exit_code"), JSON_FAILURES.values(), ids=JSON_FAILURES)
def test_json_on_failure_is_one_object(cli: Any, argv: list[str], code: str, exit_code: int) -> None:
    done = cli(*argv)
    last = json.loads(done.out.splitlines()[-1])
    assert len(done.out.splitlines()) == 1 or argv[0] == "resolve"  # resolve prints one a step
    assert (last["ok"], last["code"], last["exit_code"], done.code) == (False, code, exit_code, exit_code)
    assert last["error"]


def test_json_after_the_separator_belongs_to_the_engine(cli: Any) -> None:
    done = cli("serve", "acme/nope", "--engine", "nope", "--", "--json")
    assert (done.code, done.out) == (1, "")


def test_an_engine_argument_is_not_parsed(cli: Any) -> None:
    done = cli("serve", "acme/nope", "--engine", "nope", "--", "--port", "eight")
    assert done.code == 1
    assert "nope" in done.err


@pytest.mark.parametrize("argv", [["wait", "http://x", "--", "y"], ["models", "list", "--", "y"]], ids=" ".join)
def test_unexpected_arguments_after_the_separator_are_a_usage_error(cli: Any, argv: list[str]) -> None:
    done = cli(*argv)
    assert done.code == 64
    assert "y" in done.err


def test_run_gives_the_code_and_raises_the_error(clean_environ: Any) -> None:
    from garrison.base.errors import UsageError

    with pytest.raises(UsageError):
        run(["srve"])


def test_find() -> None:
    assert find("serve") is COMMANDS[0]
    assert find("serv") is None


def test_the_names_are_distinct() -> None:
    assert len({command.name for command in COMMANDS}) == len(COMMANDS)


@pytest.mark.system
def test_as_a_module(run: Any) -> None:
    done = run("-m", "garrison.cli.main", "srve")
    assert (done.code, done.out) == (64, "")


@pytest.mark.system
def test_console_scripts_are_installed() -> None:
    from importlib.metadata import entry_points

    scripts = {point.name: point.value for point in entry_points(group="console_scripts") if "garrison" in point.value}
    assert scripts == {
        "garrison": "garrison.cli.main:main",
        "vllm-preflight": "garrison.cli.scripts.vllm_preflight:main",
        "vllm-resolve-model": "garrison.cli.scripts.vllm_resolve_model:main",
        "vllm-serve": "garrison.cli.scripts.vllm_serve:main",
    }


@pytest.mark.system
@pytest.mark.parametrize(
    "argv", [["--help"], ["config", "show", "--json"], ["config", "show"], ["doctor", "--offline"]], ids=" ".join
)
def test_a_closed_pipe_is_not_an_error(clean_environ: Any, argv: list[str]) -> None:
    """`garrison … | head -0`: quiet, and with the code a shell gives for it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "garrison.cli.main", *argv],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(clean_environ), text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 141
    assert said == ""


def test_only_the_outermost_call_catches_whatever_comes() -> None:
    root = Path(sys.modules["garrison.cli.main"].__file__ or "").parent
    caught = {
        file.name
        for file in root.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler) and (node.type is None or "Exception" in ast.unparse(node.type).split())
    }
    assert caught == {"outermost.py"}
