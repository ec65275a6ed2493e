"""References become text when they are needed, and the text shows up nowhere."""

import asyncio
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from garrison.base.redaction import redacted
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.net import child_process as child_process_module
from garrison.net import secrets as secrets_module
from garrison.net.endpoint import Secret
from garrison.net.errors import TransportCause, TransportError
from garrison.net.secrets import SecretError, Secrets

WORD = "s3cr3t"


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def python(code: str) -> Secret:
    return Secret("command", (sys.executable, "-c", code))


async def error_of(secret: Secret, secrets: Secrets | None = None) -> str:
    with pytest.raises(SecretError) as caught:
        await (secrets or Secrets({})).text(secret)
    return str(caught.value)


async def test_a_variable_is_read_each_time() -> None:
    environ = {"KEY": "one"}
    secrets = Secrets(environ)
    assert await secrets.text(Secret("env", "KEY")) == "one"
    environ["KEY"] = "two"
    assert await secrets.text(Secret("env", "KEY")) == "two"
    del environ["KEY"]
    assert await error_of(Secret("env", "KEY"), secrets) == "the variable KEY is not set"
    environ["KEY"] = ""
    assert await error_of(Secret("env", "KEY"), secrets) == "the variable KEY is empty"


CONTENTS = {b"s3cr3t": WORD, b"s3cr3t\n": WORD, b"s3cr3t\r\n": WORD, b" s3cr3t \n\n": WORD, b"\t s3cr3t\r\n\r\n": WORD}


@pytest.mark.parametrize(("content", "text"), CONTENTS.items())
async def test_a_file_is_its_content_without_white_space_at_its_ends(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / "key").write_bytes(content)
    assert await Secrets({}).text(Secret("file", str(tmp_path / "key"))) == text


@pytest.mark.parametrize("inside", ["\n", "\r", "\x00", "\x1b", "\u2028", "\x85"])
async def test_a_secret_of_more_than_one_line_is_named_and_not_shown(tmp_path: Path, inside: str) -> None:
    value = f"s3cr3t-one{inside}s3cr3t-two"
    (tmp_path / "key").write_bytes(value.encode())
    code = f"import sys; sys.stdout.buffer.write(bytes({list(value.encode())}))"
    for secret in (Secret("env", "KEY"), Secret("file", str(tmp_path / "key")), python(code)):
        message = await error_of(secret, Secrets({"KEY": value} if secret.kind == "env" else {}))
        assert message.endswith("contains a line break or a control character")
        assert "s3cr3t" not in message


async def test_what_was_read_is_hidden_from_then_on(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(" s3cr3t\n")
    assert redacted("the server said s3cr3t") == "the server said s3cr3t"
    await Secrets({}).text(Secret("file", str(tmp_path / "key")))
    assert redacted("the server said s3cr3t") == "the server said ***"
    assert TransportError(TransportCause.MALFORMED, "bad header b's3cr3t\\n'").detail == "bad header b'***\\n'"
    assert Failure(code=FailureCode.INVALID_REQUEST, message="no: s3cr3t").message == "no: ***"


async def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").write_bytes(b"\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"x" * 65537)
    found = {name: await error_of(Secret("file", str(tmp_path / name))) for name in ("none", "pipe", ".")}
    assert "no such file" in found["none"]
    assert "is not a file" in found["pipe"]
    assert "is not a file" in found["."] or "is a directory" in found["."]
    assert "is empty" in await error_of(Secret("file", str(tmp_path / "empty")))
    assert "is not text" in await error_of(Secret("file", str(tmp_path / "binary")))
    assert "larger than 65536" in await error_of(Secret("file", str(tmp_path / "large")))


async def test_kept_for_a_while_and_doubted_after_a_refusal(tmp_path: Path) -> None:
    clock, key = Time(), tmp_path / "key"
    secrets, secret = Secrets({}, monotonic=clock), Secret("file", str(key))
    key.write_text("one")
    assert await secrets.text(secret) == "one"
    key.write_text("two")
    secrets.doubt(secret)  # it was read a moment ago
    assert await secrets.text(secret) == "one"
    clock.now += 6
    assert await secrets.text(secret) == "one"
    secrets.doubt(secret)
    assert await secrets.text(secret) == "two"
    key.write_text("three")
    clock.now += 61
    assert await secrets.text(secret) == "three"


async def test_a_failure_is_kept_for_a_shorter_while(tmp_path: Path) -> None:
    clock, key = Time(), tmp_path / "key"
    secrets, secret = Secrets({}, monotonic=clock), Secret("file", str(key))
    await error_of(secret, secrets)
    key.write_text("one")
    await error_of(secret, secrets)
    clock.now += 11
    assert await secrets.text(secret) == "one"


@pytest.mark.system
async def test_a_command_runs_once_for_all_who_ask(tmp_path: Path) -> None:
    log = tmp_path / "log"
    secret = python(f"open({str(log)!r}, 'a').write('x'); print('s3cr3t')")
    secrets = Secrets({"PATH": os.environ["PATH"]})
    assert set(await asyncio.gather(*(secrets.text(secret) for _ in range(5)))) == {WORD}
    assert log.read_text() == "x"


@pytest.mark.system
async def test_a_command_gets_no_shell_no_input_and_none_of_our_variables() -> None:
    code = "import os, sys; print(sorted(os.environ), repr(sys.stdin.read()), sys.argv[1])"
    environ = {"HOME": "/h", "GARRISON_API_KEY": "a", "VLLM_API_KEY": "b", "LC_ALL": "C.UTF-8"}
    found = await Secrets(environ).text(Secret("command", (sys.executable, "-c", code, "$HOME; `id`")))
    assert found == "['HOME', 'LC_ALL', 'PYTHONSAFEPATH'] '' $HOME; `id`"


@pytest.mark.system
async def test_commands_that_fail() -> None:
    assert await error_of(Secret("command", ("/no/such/program", WORD))) == (
        "program cannot be run: no such file or directory"
    )
    name = Path(sys.executable).name
    assert await error_of(python(f"import sys; print('{WORD}', file=sys.stderr); sys.exit(3)")) == (
        f"{name} ended with status 3"
    )
    assert await error_of(python("")) == f"the output of {name} is empty"
    assert "larger than" in await error_of(python("print('x' * 10**6)"))


@pytest.mark.system
async def test_a_command_that_does_not_end_is_killed_with_what_it_started(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    code = f"import subprocess; open({str(mark)!r}, 'w').write(str(subprocess.Popen(['sleep', '60']).pid)); input()"
    code = code.replace("input()", "import time; time.sleep(60)")
    secrets = Secrets({"PATH": os.environ["PATH"]}, seconds=1.0)
    assert "did not end within 1 s" in await error_of(python(code), secrets)
    pid = int(mark.read_text())
    deadline = time.monotonic() + 10
    while _runs(pid):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


@pytest.mark.system
async def test_who_leaves_early_leaves_no_process_and_no_lock(tmp_path: Path) -> None:
    secrets = Secrets({"PATH": os.environ["PATH"]})
    begun = tmp_path / "begun"
    secret = python(
        f"import os, time; first = not os.path.exists({str(begun)!r}); open({str(begun)!r}, 'w').close()\n"
        "first and time.sleep(60); print('s3cr3t')"
    )
    first = asyncio.create_task(secrets.text(secret))
    async with asyncio.timeout(10):
        while not begun.exists():
            await asyncio.sleep(0.01)
    second = asyncio.create_task(secrets.text(secret))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == WORD


def test_no_text_in_any_repr() -> None:
    secrets = Secrets({"KEY": WORD})
    asyncio.run(secrets.text(Secret("env", "KEY")))
    from garrison.net.secrets import _Kept

    assert WORD not in repr(_Kept(0.0, WORD))
    assert WORD not in repr(secrets)


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


async def test_a_file_on_a_disk_that_hangs_has_a_deadline_and_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, go_on = [], threading.Event()

    def read(path: str) -> bytes:
        reads.append(path)
        assert go_on.wait(10)
        return b"s3cr3t"

    monkeypatch.setattr(secrets_module, "_file", read)
    clock = Time()
    secrets = Secrets({}, seconds=0.05, monotonic=clock)
    key = Secret("file", "/mnt/key")
    async with asyncio.timeout(5):
        for _ in range(3):
            assert await error_of(key, secrets) == "/mnt/key could not be read within 0.05 s"
            clock.now += 60
        assert reads == ["/mnt/key"], "who asks again waits for the read that hangs"
        go_on.set()
        while threading.active_count() > 1 and any(one.name == "secret-file" for one in threading.enumerate()):
            await asyncio.sleep(0.01)
        assert await secrets.text(key) == WORD


async def test_a_program_that_may_not_be_killed_fails_its_secret_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that changes its user, such as sudo."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(child_process_module.os, "killpg", refuse)
        secrets = Secrets({"PATH": os.environ["PATH"]}, seconds=0.2)
        assert "did not end within 0.2 s" in await error_of(python("import time; time.sleep(0.6)"), secrets)
