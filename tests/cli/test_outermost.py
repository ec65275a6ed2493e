import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import InvalidError, all_errors
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
    error = cls("it broke", hint="Mend it.", details={"path": Path("/x")})
    assert outermost(raising(error), json=as_json) == int(cls.exit_code)
    out, err = capsys.readouterr()
    assert err == "error: it broke\n  → Mend it.\n"
    if not as_json:
        assert out == ""
        return
    (line,) = out.splitlines()
    body = json.loads(line)
    assert (body["ok"], body["code"], body["exit_code"]) == (False, cls.code, int(cls.exit_code))
    assert (body["error"], body["hint"], body["path"]) == ("it broke", "Mend it.", "/x")


def test_no_hint(capsys: Any) -> None:
    report(InvalidError("it broke"), json=False)
    assert capsys.readouterr().err == "error: it broke\n"


def test_interrupt(capsys: Any) -> None:
    assert outermost(raising(KeyboardInterrupt()), json=False) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_interrupt_inside_a_command(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.cli.wait.wait_ready", raising(KeyboardInterrupt()))
    assert cli("wait", "http://x").code == 130


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


def test_a_full_disk_is_no_bug(capsys: Any) -> None:
    assert outermost(raising(OSError(errno.ENOSPC, "No space left on device", "/data/x")), json=False) == 14
    assert "no room left on the disk (/data/x)" in capsys.readouterr().err
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
from garrison.cli.asker import asker
from garrison.cli.outermost import outermost

def call():
    for number in range(3):
        os.fstat(number)
    print("out")
    print("err", file=sys.stderr)
    return 7 if asker() is None and sys.stdin.read() == "" else 1

sys.exit(outermost(call, json=False))
"""


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_closed_stream_is_an_empty_one(closed: tuple[int, ...]) -> None:
    def close() -> None:
        for number in closed:
            os.close(number)

    done = subprocess.run(
        [sys.executable, "-c", CLOSED], stdin=subprocess.DEVNULL, capture_output=True, check=False, preexec_fn=close
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout == (b"" if 1 in closed else b"out\n")
    assert done.stderr == (b"" if 2 in closed else b"err\n")
