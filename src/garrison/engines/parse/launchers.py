"""Programs in front of the one that starts the engine: `sudo -E`, `numactl …`, `uv run --with …`, `bash -c '…'`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from garrison.base.redaction import shown_command

__all__ = ["Launcher", "environment_launcher", "leading_launcher", "shell_text"]

_SHELLS = frozenset({"ash", "bash", "dash", "ksh", "sh", "zsh"})


@dataclass(frozen=True, slots=True)
class Launcher:
    """A program that starts another one.

    Attributes:
        words: how many words it and its arguments are.
        note: what is lost without it; empty if nothing is.
    """

    words: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Form:
    """How a launcher is written.

    Attributes:
        values: its options that take the next word.
        positional: how many words of its own it takes after its options.
        matters: it changes how the engine runs.
        subcommand: the word that has to follow it.
    """

    values: frozenset[str] = frozenset()
    positional: int = 0
    matters: bool = False
    subcommand: str | None = None


def _values(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LEADING: Mapping[str, _Form] = {
    "$": _Form(),
    "chrt": _Form(_values("-T -P -D"), positional=1, matters=True),
    "command": _Form(),
    "dumb-init": _Form(_values("-r --rewrite")),
    "env": _Form(_values("-u --unset -C --chdir -S --split-string"), matters=True),
    "exec": _Form(_values("-a")),
    "ionice": _Form(_values("-c --class -n --classdata"), matters=True),
    "nice": _Form(_values("-n --adjustment"), matters=True),
    "nohup": _Form(),
    "numactl": _Form(
        _values("-N --cpunodebind -m --membind -C --physcpubind -p --preferred -i --interleave"), matters=True
    ),
    "setsid": _Form(),
    "stdbuf": _Form(_values("-i -o -e")),
    "sudo": _Form(_values("-u --user -g --group -h --host -p --prompt -C -D --chdir -r -t -T"), matters=True),
    "systemd-run": _Form(_values("-p --property -u --unit -E --setenv --slice --description -M"), matters=True),
    "taskset": _Form(positional=1, matters=True),
    "time": _Form(_values("-f --format -o --output")),
    "timeout": _Form(_values("-k --kill-after -s --signal"), positional=1, matters=True),
    "tini": _Form(_values("-p -e")),
}
_ENVIRONMENTS: Mapping[str, _Form] = {
    "conda": _Form(_values("-n --name -p --prefix --cwd"), subcommand="run"),
    "hatch": _Form(_values("-e --env"), subcommand="run"),
    "mamba": _Form(_values("-n --name -p --prefix --cwd"), subcommand="run"),
    "pdm": _Form(_values("-p --project"), subcommand="run"),
    "pipx": _Form(_values("--spec --python --pip-args --index-url"), subcommand="run"),
    "poetry": _Form(_values("-C --directory -P --project"), subcommand="run"),
    "uv": _Form(
        _values(
            "--with --with-editable --with-requirements --extra --no-extra --group --no-group --only-group --env-file "
            "--python -p --package --project --directory --index --default-index --index-url --extra-index-url "
            "--find-links -f --torch-backend --prerelease --resolution --config-file --cache-dir"
        ),
        subcommand="run",
    ),
    "uvx": _Form(
        _values(
            "--from --with --with-editable --with-requirements --python -p --index --default-index --index-url "
            "--extra-index-url --find-links -f --torch-backend --prerelease --resolution --env-file --config-file"
        )
    ),
}


def leading_launcher(words: Sequence[str]) -> Launcher | None:
    """The launcher that `words` begin with, and that may be left out; None if they begin with another program."""
    name = PurePosixPath(words[0]).name if words else ""
    form = _LEADING.get(name)
    if form is None:
        return None
    count = _length(words, form, 1)
    bare = count == 1 and name in ("env", "sudo")
    note = f"`{shown_command(words[:count])}` was left out" if form.matters and not bare else ""
    return Launcher(count, note)


def environment_launcher(words: Sequence[str]) -> int:
    """How many words run a program in an environment of its own: `uv run --with X`, `uvx --from X`; 0 for none."""
    form = _ENVIRONMENTS.get(PurePosixPath(words[0]).name if words else "")
    if form is None or (form.subcommand is not None and list(words[1:2]) != [form.subcommand]):
        return 0
    return _length(words, form, 1 if form.subcommand is None else 2)


def shell_text(words: Sequence[str]) -> str | None:
    """The text that `bash -c TEXT` runs; empty for a shell without one; None if `words` start no shell."""
    if not words or PurePosixPath(words[0]).name not in _SHELLS:
        return None
    for position, word in enumerate(words[1:], 1):
        if word.startswith("-") and not word.startswith("--") and "c" in word:
            return words[position + 1] if position + 1 < len(words) else ""
        if not word.startswith("-"):
            break
    return ""


def _length(words: Sequence[str], form: _Form, position: int) -> int:
    while position < len(words) and words[position].startswith("-"):
        if words[position] == "--":
            position += 1
            break
        position += 2 if words[position] in form.values else 1
    return min(len(words), position + form.positional)
