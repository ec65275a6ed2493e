import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import DeclinedError, InvalidError, all_errors
from garrison.cli.documentation import page_of_error
from garrison.cli.outermost import outermost, report

SECRET = "sk-very-secret"


@pytest.fixture(autouse=True)
def _clean(clean_environ: Any) -> None:
    pass


def raising(error: BaseException) -> Any:
    def call(*_: object, **__: object) -> int:
        raise error

    return call


def test_the_result_is_the_code(capsys: Any) -> None:
    assert outermost(lambda: 3, json=False) == 3
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.code)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_every_error(capsys: Any, cls: Any, as_json: bool) -> None:
    error = cls("it broke", hint="Fix it.", details={"path": Path("/x")})
    assert outermost(raising(error), json=as_json) == int(cls.exit_code)
    out, err = capsys.readouterr()
    label = "" if cls is DeclinedError else "error: "
    page = page_of_error(cls.code)
    assert err == f"{label}it broke\n  → Fix it.\n" + (f"  Documentation: {page}\n" if page else "")
    if not as_json:
        assert out == ""
        return
    (line,) = out.splitlines()
    body = json.loads(line)
    assert (body["ok"], body["code"], body["exit_code"]) == (False, cls.code, int(cls.exit_code))
    assert (body["error"], body["hint"], body["path"]) == ("it broke", "Fix it.", "/x")


def test_no_hint(capsys: Any) -> None:
    report(InvalidError("it broke"), json=False)
    assert capsys.readouterr().err == "error: it broke\n"


def test_interrupt(capsys: Any) -> None:
    assert outermost(raising(KeyboardInterrupt()), json=False) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_interrupt_inside_a_command(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.cli.serve.wait.wait_ready", raising(KeyboardInterrupt()))
    done = cli("wait", "http://x")
    assert (done.code, done.err) == (130, "interrupted\n")


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_a_bug_is_reported(capsys: Any, clean_environ: Any, monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    monkeypatch.setattr("sys.argv", ["garrison", "serve", SECRET])
    assert outermost(raising(ZeroDivisionError("division by zero")), json=as_json) == 70
    out, err = capsys.readouterr()
    (path,) = (Path(clean_environ["GARRISON_DATA_DIR"]) / "reports").iterdir()
    assert "error: this is a bug: ZeroDivisionError: division by zero" in err
    assert str(path) in err
    assert "Traceback" not in err
    content = path.read_text()
    assert content.startswith("Traceback")
    assert "ZeroDivisionError" in content
    assert SECRET not in content
    assert "MY_KEY" not in content
    assert path.stat().st_mode & 0o077 == 0
    if as_json:
        assert json.loads(out)["code"] == "internal"


def test_a_bug_without_a_place_for_the_report(capsys: Any, clean_environ: Any) -> None:
    Path(clean_environ["GARRISON_DATA_DIR"]).write_text("a file")
    assert outermost(raising(ZeroDivisionError("x")), json=False) == 70
    err = capsys.readouterr().err
    assert "this is a bug" in err
    assert "Traceback" in err


@pytest.mark.parametrize(
    ("no_color", "coloured"), [(None, True), ("1", False), ("", False)], ids=["unset", "1", "empty"]
)
def test_no_color(capsys: Any, monkeypatch: pytest.MonkeyPatch, no_color: str | None, coloured: bool) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    if no_color is None:
        monkeypatch.delenv("NO_COLOR")
    else:
        monkeypatch.setenv("NO_COLOR", no_color)
    report(InvalidError("x"), json=False)
    assert ("\x1b" in capsys.readouterr().err) == coloured


def test_dumb_terminals_get_no_colour(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    report(InvalidError("x"), json=False)
    assert "\x1b" not in capsys.readouterr().err


def test_a_full_disk_is_not_a_bug(capsys: Any) -> None:
    assert outermost(raising(OSError(errno.ENOSPC, "No space left on device", "/data/x")), json=False) == 14
    assert "no space left on disk (/data/x)" in capsys.readouterr().err
    assert outermost(raising(OSError(errno.EIO, "Input/output error")), json=False) == 70


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_what_a_library_says_is_shown_without_secrets(
    capsys: Any, as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_x\n")
    monkeypatch.setenv("MY_API_KEY", "k3y-of-mine")
    said = "Illegal header value b'Bearer hf_x\\n' at https://me:pw@host/?X-Amz-Signature=abc k3y-of-mine"
    error = InvalidError(said, hint=said, details={"log_tail": [said], "response": {"said": said}})
    report(error, json=as_json)
    out, err = capsys.readouterr()
    for secret in ("hf_x", "me:pw", "=abc", "k3y-of-mine"):
        assert secret not in out + err
    assert "Illegal header value" in err


def test_the_report_of_a_bug_holds_no_secret(capsys: Any, monkeypatch: pytest.MonkeyPatch, clean_environ: Any) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    assert outermost(raising(RuntimeError("b'Bearer hf_x\\n', {'api_key': 'sk-other-key-1'}")), json=True) == 70
    (written,) = (Path(clean_environ["GARRISON_DATA_DIR"]) / "reports").iterdir()
    captured = capsys.readouterr()
    for text in (written.read_text(), captured.out, captured.err):
        assert "RuntimeError" in text
        assert "hf_x" not in text
        assert "sk-other" not in text


CLOSED = """
import os, sys
from pathlib import Path
from garrison.cli.outermost import outermost

def call():
    print("said", file=sys.stderr)
    opened = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
    assert opened > 2, opened
    assert os.system("true <&0 && echo from a child && echo from a child >&2") == 0
    return 3

sys.exit(outermost(call, json=False))
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_stream_is_no_bug(tmp_path: Path, closed: str) -> None:
    """Its descriptor is not given to the next file that is opened either, where a child would write into it."""
    script = tmp_path / "script.py"
    script.write_text(CLOSED)
    file = tmp_path / "file"
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" "$1" "$2" {closed}', sys.executable, str(script), str(file)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, file.read_bytes()) == (3, b"")
    assert "bug" not in done.stderr


def test_a_closed_standard_error_does_not_hide_the_exit_code(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys; from garrison.cli.main import main; sys.exit(main())")
    command = ["/bin/sh", "-c", 'exec "$0" "$1" nonsense >&- 2>&-', sys.executable, str(script)]
    assert subprocess.run(command, timeout=60).returncode == 64


FULL = "error: no space left for standard output"


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    ("words", "redirected", "code", "said"),
    {
        "output": ("--version", ">&-", 1, "error: cannot write to standard output: it is closed"),
        "rich output": ("config show", ">&-", 1, "error: cannot write to standard output: it is closed"),
        "a group's help": ("config", ">&-", 1, "error: cannot write to standard output: it is closed"),
        "a command's help": ("status --help", ">&-", 1, "error: cannot write to standard output: it is closed"),
        "output of the agent": ("agent --once", ">&-", 1, "error: cannot write to standard output: it is closed"),
        "another exit code": ("resolve no/model --offline --json", ">&-", 10, "error: model no/model not found"),
        "read-only": ("--version", "1</dev/null", 1, "error: cannot write to standard output: bad file descriptor"),
        "no space left": ("--version", ">/dev/full", 14, FULL),
        "no space left for rich output": ("config show", ">/dev/full", 14, FULL),
        "no space left for JSON": ("ps --json", ">/dev/full", 14, FULL),
        "no space left for long output": ("schema", ">/dev/full", 14, FULL),
        "no output": ("wait http://127.0.0.1:1 --timeout 0 --quiet", ">&-", 22, "error: http://127.0.0.1:1 was not"),
    }.values(),
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_output_that_cannot_be_written_is_an_error(
    tmp_path: Path, clean_environ: Any, words: str, redirected: str, code: int, said: str, unbuffered: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys; from garrison.cli.main import main; sys.exit(main())")
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" "$1" {words} {redirected}', sys.executable, str(script)],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        env=dict(clean_environ) | {"PYTHONUNBUFFERED": unbuffered},
    )
    assert (done.returncode, done.stderr[: len(said)]) == (code, said)
    assert "bug" not in done.stderr
    assert "Exception" not in done.stderr


def homeless(environ: Any) -> dict[str, str]:
    """The environment of a user without a home: `HOME` is no path, and nothing else names a directory."""
    dropped = ("GARRISON_DATA_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME")
    return {name: value for name, value in environ.items() if name not in dropped} | {"HOME": "~"}


HOMELESS = {
    "engine list": ("engine", "list"),
    "serve": ("serve", "./m", "--dry-run"),
    "status": ("status",),
    "preflight": ("preflight", "--dry-run"),
}


@pytest.mark.system
@pytest.mark.parametrize("words", HOMELESS.values(), ids=HOMELESS)
def test_a_user_without_a_home_gets_a_message(run: Any, clean_environ: Any, words: tuple[str, ...]) -> None:
    environ = homeless(clean_environ)
    done = run("-m", "garrison.cli.main", *words, env=environ)
    assert done.code == 1
    assert "this user has no home directory" in done.err
    assert "Set GARRISON_DATA_DIR" in done.err


@pytest.mark.system
def test_vllm_preflight_needs_no_home(run: Any, clean_environ: Any, tmp_path: Path) -> None:
    environ = homeless(clean_environ)
    environ |= {"VLLM_SKIP_GPU_CHECK": "1", "VLLM_DRY_RUN": "1", "VLLM_PORT": "1025"}
    done = run("-c", "from garrison.cli.scripts.vllm_preflight import main; raise SystemExit(main())", env=environ)
    assert done.code == 0, done.err


@pytest.mark.system
def test_a_bug_of_a_user_without_a_home_is_printed(run: Any, clean_environ: Any) -> None:
    environ = homeless(clean_environ)
    code = "from garrison.cli.outermost import outermost; raise SystemExit(outermost(lambda: 1 / 0, json=False))"
    done = run("-c", code, env=environ)
    assert done.code == 70
    assert "error: this is a bug: ZeroDivisionError" in done.err
    assert done.err.count("Traceback") == 1


@pytest.mark.parametrize("raw", [b"vllm serve \xff\xfe", b"\x80"])
@pytest.mark.system
def test_standard_input_that_is_no_text(clean_environ: Any, raw: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "garrison.cli.main", "parse", "-"],
        input=raw, capture_output=True, check=False, timeout=60,
        env={**clean_environ, "PYTHONIOENCODING": "utf-8:strict"},
    )  # fmt: skip
    assert done.returncode == 1
    assert b"standard input is no utf-8 text" in done.stderr
