"""Whether a process is vLLM, judged on its own executable and arguments.

Whole arguments are compared, never parts of a command line: a shell whose `-c` text mentions `vllm serve` is a shell.
The built-in signatures are the seed's and the simulator's. Where the seed searched for them in the joined text, they
are matched here where they mean something: the module after `-m`, or the program that the interpreter runs.
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

__all__ = ["BUILT_IN", "signature_of"]

BUILT_IN = (
    "vllm.entrypoints.openai.api_server",
    "vllm.entrypoints.api_server",
    "vllm.entrypoints.openai.run_server",
    "vllm serve",
    "vllm.entrypoints",
    # The simulator stands in for vLLM: what holds a port is told, asked and stopped in the same way.
    "garrison.sim",
)

_PYTHON = re.compile(r"\.?(python|pypy)[0-9.]*[dt]*(-wrapped)?\Z")
# Nix, and so Flox, hides the real script behind a wrapper of this name.
_PROGRAMS = ("vllm", ".vllm-wrapped")
# What vLLM calls its processes with setproctitle; an orphaned worker may still hold the server's socket.
_WORKER_TITLE = re.compile(r"VLLM::[A-Za-z][A-Za-z0-9_]*\Z")
_OPTIONS_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")


def signature_of(exe: str | None, argv: Sequence[str], custom: Sequence[str] = ()) -> str | None:
    """The signature by which this is vLLM, or None when it is not, or when its executable cannot be read.

    Args:
        exe: path of the executable, as the system says it.
        custom: further signatures of the user's: a module, the name of a script or program (with or without its
            directory and `.py`), or such a name and the arguments that follow it.
    """
    if exe is None or not argv:
        return None
    return _built_in(PurePosixPath(exe).name, argv) or _custom(argv, custom)


def _built_in(exe: str, argv: Sequence[str]) -> str | None:
    if not _PYTHON.match(exe):
        # A launcher of its own: what runs must really be called so, whatever it calls itself.
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
        return "garrison.sim"
    if program.endswith(".py") and "/vllm/entrypoints/" in program:
        return "vllm.entrypoints"
    return None


def _is_module(module: str, known: str) -> bool:
    return module == known or module.startswith(known + ".")


def _program(argv: Sequence[str]) -> tuple[str | None, str | None, list[str]]:
    """A Python command line to (module after `-m`, script, arguments of either); `-c` gives neither."""
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
        # Short options may be run together; `m` and `c` end the cluster and take what follows.
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
