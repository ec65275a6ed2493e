"""Whether a process is vLLM, by its executable and arguments. Pure.

Whole arguments are compared, never parts of a command line: a shell whose `-c` text mentions `vllm serve` is a shell.
The built-in signatures are the seed's and the simulator's. The seed searched for them anywhere in the joined text; here
they only match where they have a meaning: as the module after `-m`, or as the program that the interpreter runs.
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

__all__ = ["BUILT_IN", "SIMULATOR", "signature_of"]

SIMULATOR = "garrison.sim"
"""Its signature: it stands in for vLLM, so a preflight treats it like one."""

BUILT_IN = (
    "vllm.entrypoints.openai.api_server",
    "vllm.entrypoints.api_server",
    "vllm.entrypoints.openai.run_server",
    "vllm serve",
    "vllm.entrypoints",
    SIMULATOR,
)

_PYTHON = re.compile(r"\.?(python|pypy)[0-9.]*[dt]*(-wrapped)?\Z")
# Nix, and therefore Flox, renames the real script to this and puts a wrapper in its place.
_PROGRAMS = ("vllm", ".vllm-wrapped")
_RUST_PROGRAM = "vllm-rs"
"""vLLM's front end in Rust: a server of its own, or a child that inherits the listening socket of a `vllm serve`."""
# vLLM gives its workers such titles with setproctitle. An orphaned worker may still hold the server's socket.
_WORKER_TITLE = re.compile(r"VLLM::[A-Za-z][A-Za-z0-9_]*\Z")
_OPTIONS_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")


def signature_of(exe: str | None, argv: Sequence[str], custom: Sequence[str] = ()) -> str | None:
    """The signature that a vLLM process matches; None for other processes, and where the executable cannot be read.

    Args:
        exe: path of the executable, as the system reports it.
        custom: the user's own signatures: a module, the name of a script or program (with or without its directory and
            `.py`), or such a name and the arguments that follow it.
    """
    if exe is None or not argv:
        return None
    return _built_in(PurePosixPath(exe).name, argv) or _custom(argv, custom)


def _built_in(exe: str, argv: Sequence[str]) -> str | None:
    if not _PYTHON.match(exe):
        if exe == _RUST_PROGRAM and list(argv[1:2]) in (["serve"], ["frontend"]):
            return f"{_RUST_PROGRAM} {argv[1]}"
        # A native launcher. A process may rewrite its arguments but not the name of its executable.
        return "vllm serve" if exe in _PROGRAMS and argv[1:2] == ["serve"] else None
    if len(argv) == 1 and _WORKER_TITLE.match(argv[0]):
        return argv[0]
    module, program, rest = _program(argv)
    if module is not None:
        if module == "vllm" and rest[:1] == ["serve"]:
            return "vllm serve"
        return next((known for known in BUILT_IN if _is_module(module, known)), None)
    if program is None:
        return None
    name = PurePosixPath(program).name
    if name in _PROGRAMS and rest[:1] == ["serve"]:
        return "vllm serve"
    if name == "garrison" and rest[:1] == ["sim"]:
        return SIMULATOR
    if program.endswith(".py") and "/vllm/entrypoints/" in program:
        return "vllm.entrypoints"
    return None


def _is_module(module: str, known: str) -> bool:
    return module == known or module.startswith(known + ".")


def _program(argv: Sequence[str]) -> tuple[str | None, str | None, list[str]]:
    """Split a Python command line into (module after `-m`, script, arguments of either); `-c` gives neither."""
    index = 1
    while index < len(argv):
        argument = argv[index]
        if not argument.startswith("-") or argument == "-":
            return None, argument, list(argv[index + 1 :])
        if argument in _OPTIONS_WITH_VALUE:
            index += 2
            continue
        if argument.startswith("--"):
            index += 1
            continue
        # Short options may be combined; `m` and `c` end the cluster, and what follows is their value.
        for place, letter in enumerate(argument[1:], start=2):
            if letter == "c":
                return None, None, []
            if letter == "m":
                if attached := argument[place:]:
                    return attached, None, list(argv[index + 1 :])
                return (argv[index + 1] if index + 1 < len(argv) else None), None, list(argv[index + 2 :])
            if letter in "WX":
                index += 0 if argument[place:] else 1
                break
        index += 1
    return None, None, []


def _custom(argv: Sequence[str], custom: Sequence[str]) -> str | None:
    for signature in custom:
        words = signature.split()
        if signature in argv or any(_starts_at(argv, place, words) for place in range(len(argv))):
            return signature
        module = _program(argv)[0]
        if module is not None and _is_module(module, signature):
            return signature
    return None


def _starts_at(argv: Sequence[str], place: int, words: Sequence[str]) -> bool:
    if not words or list(argv[place + 1 : place + len(words)]) != list(words[1:]):
        return False
    name = PurePosixPath(argv[place]).name
    return words[0] in (argv[place], name, name.removesuffix(".py"))
