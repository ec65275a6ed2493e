"""Programs in front of the one that starts the engine: `sudo -E`, `numactl …`, `uv run --with …`, `bash -c '…'`."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from garrison.base.redaction import shown_command

__all__ = ["Launcher", "ShellCall", "environment_launcher", "leading_launcher", "shell_call"]

_SHELLS = frozenset({"ash", "bash", "dash", "ksh", "sh", "zsh"})
_SHELL_VALUE = re.compile(r"[-+]\w*[oO]\Z|--(rcfile|init-file)\Z")
"""Options of a shell that take the next word: `-eo pipefail`."""


@dataclass(frozen=True, slots=True)
class Launcher:
    """A program that starts another one.

    Attributes:
        words: how many words it and its arguments are.
        note: what is lost without it; empty if nothing is.
        inside: words that it takes apart itself, `env -S 'vllm serve m'`; they come first.
    """

    words: int
    note: str = ""
    inside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ShellCall:
    """`bash -c TEXT WORDS`. `text` is empty for a shell that is given none, and `note` says what is lost without it."""

    text: str
    behind: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Form:
    """How a launcher is written.

    Attributes:
        values: its options that take the next word.
        positional: how many words of its own it takes after its options.
        matters: it changes how the engine runs.
        subcommand: the words that have to follow it.
        options: its options in front of the subcommand that take the next word.
        ends: the options end with one of these words.
    """

    values: frozenset[str] = frozenset()
    positional: int = 0
    matters: bool = False
    subcommand: tuple[str, ...] = ()
    options: frozenset[str] = frozenset()
    ends: frozenset[str] = frozenset()


def _values(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LEADING: Mapping[str, _Form] = {
    "$": _Form(),
    "chrt": _Form(_values("-T -P -D"), positional=1, matters=True),
    "catchsegv": _Form(),
    "command": _Form(),
    "doas": _Form(_values("-u -C"), matters=True),
    "dumb-init": _Form(_values("-r --rewrite")),
    "env": _Form(_values("-u --unset -C --chdir -S --split-string"), matters=True),
    "exec": _Form(_values("-a")),
    "flock": _Form(_values("-w --wait --timeout -E --conflict-exit-code"), positional=1, matters=True),
    "ip": _Form(positional=1, matters=True, subcommand=("netns", "exec")),
    "ionice": _Form(_values("-c --class -n --classdata"), matters=True),
    "nice": _Form(_values("-n --adjustment"), matters=True),
    "nohup": _Form(),
    "numactl": _Form(
        _values("-N --cpunodebind -m --membind -C --physcpubind -p --preferred -i --interleave"), matters=True
    ),
    "prlimit": _Form(_values("-p --pid -o --output"), matters=True),
    "setpriv": _Form(
        _values(
            "--reuid --regid --groups --inh-caps --ambient-caps --bounding-set --securebits --pdeathsig "
            "--selinux-label --apparmor-profile"
        ),
        matters=True,
    ),
    "setsid": _Form(),
    "srun": _Form(
        _values(
            "-n --ntasks -N --nodes -c --cpus-per-task -p --partition -t --time -J --job-name -G --gpus -w --nodelist"
        ),
        matters=True,
    ),
    "stdbuf": _Form(_values("-i -o -e")),
    "sudo": _Form(_values("-u --user -g --group -h --host -p --prompt -C -D --chdir -r -t -T"), matters=True),
    "systemd-inhibit": _Form(matters=True),
    "systemd-run": _Form(_values("-p --property -u --unit -E --setenv --slice --description -M"), matters=True),
    "taskset": _Form(positional=1, matters=True),
    "time": _Form(_values("-f --format -o --output")),
    "timeout": _Form(_values("-k --kill-after -s --signal"), positional=1, matters=True),
    "tini": _Form(_values("-p -e")),
    "unshare": _Form(_values("-S --setuid -G --setgid -R --root -w --wd"), matters=True),
    "xvfb-run": _Form(_values("-e -f -n -p -s -w --server-args --server-num")),
}
_UV = _values(
    "--with --with-editable --with-requirements --extra --no-extra --group --no-group --only-group --env-file "
    "--python -p --package --project --directory --index --default-index --index-url --extra-index-url "
    "--find-links -f --torch-backend --prerelease --resolution --config-file --cache-dir --from"
)
_PACKAGE = _values("-n --name -p --prefix --cwd -e --environment --manifest-path")
_ENVIRONMENTS: Mapping[str, tuple[_Form, ...]] = {
    "conda": (_Form(_PACKAGE, subcommand=("run",)),),
    "flox": (_Form(_values("-r --remote -d --dir"), subcommand=("activate",), ends=_values("-- -c")),),
    "hatch": (_Form(_values("-e --env"), subcommand=("run",)),),
    "mamba": (_Form(_PACKAGE, subcommand=("run",)),),
    "micromamba": (_Form(_PACKAGE, subcommand=("run",)),),
    "nix": tuple(
        _Form(subcommand=(name,), ends=_values("-c --command"), options=_values("--option"))
        for name in ("develop", "shell")
    ),
    "pdm": (_Form(_values("-p --project"), subcommand=("run",)),),
    "pipx": (_Form(_values("--spec --python --pip-args --index-url"), subcommand=("run",)),),
    "pixi": (_Form(_PACKAGE, subcommand=("run",)),),
    "poetry": (_Form(_values("-C --directory -P --project"), subcommand=("run",)),),
    "rye": (_Form(subcommand=("run",)),),
    "uv": (_Form(_UV, subcommand=("run",), options=_UV), _Form(_UV, subcommand=("tool", "run"), options=_UV)),
    "uvx": (_Form(_UV),),
}
_UNDER_OTHER_USERS = frozenset({"su", "runuser"})


def leading_launcher(words: Sequence[str]) -> Launcher | None:
    """The launcher that `words` begin with, and that may be left out; None if they begin with another program."""
    name = PurePosixPath(words[0]).name if words else ""
    form = _LEADING.get(name)
    if name == "runuser" and "--" in words:
        form = _Form(_values("-u --user -g --group -G --supp-group"), matters=True)
    if form is None or list(words[1 : 1 + len(form.subcommand)]) != list(form.subcommand):
        return None
    split = _split_string(words) if name == "env" else None
    count = split[0] if split else _length(words, form, 1 + len(form.subcommand))
    bare = count == 1 and name in ("env", "sudo")
    note = f"`{shown_command(words[:count])}` was left out" if form.matters and not bare else ""
    return Launcher(count, note, split[1] if split else ())


def environment_launcher(words: Sequence[str]) -> int:
    """How many words run a program in an environment of its own: `uv run --with X`, `uvx --from X`; 0 for none."""
    for form in _ENVIRONMENTS.get(PurePosixPath(words[0]).name if words else "", ()):
        start = _skip_options(words, form.options, 1) if form.subcommand else 1
        if list(words[start : start + len(form.subcommand)]) != list(form.subcommand):
            continue
        start += len(form.subcommand)
        if not form.ends:
            return _length(words, form, start)
        ends = (place + 1 for place in range(start, len(words)) if words[place] in form.ends)
        return next(ends, 0)
    return 0


def shell_call(words: Sequence[str]) -> ShellCall | None:
    """What a shell, or `su -c`, is told to run; None if `words` start neither."""
    name = PurePosixPath(words[0]).name if words else ""
    if name in _UNDER_OTHER_USERS:
        place = next((place for place, word in enumerate(words) if word in ("-c", "--command")), None)
        if place is None or place + 1 >= len(words):
            return ShellCall("")
        rest = (*words[:place], *words[place + 2 :])
        return ShellCall(words[place + 1], note=f"`{shown_command(rest)}` was left out")
    if name not in _SHELLS:
        return None
    position = 1
    while position < len(words) and words[position].startswith(("-", "+")):
        word = words[position]
        if word.startswith("-") and not word.startswith("--") and "c" in word:
            text = words[position + 1] if position + 1 < len(words) else ""
            return ShellCall(text, tuple(words[position + 2 :]))
        position += 2 if _SHELL_VALUE.match(word) else 1
    return ShellCall("")


def _length(words: Sequence[str], form: _Form, position: int) -> int:
    position = _skip_options(words, form.values, position)
    return min(len(words), position + form.positional)


def _skip_options(words: Sequence[str], values: frozenset[str], position: int) -> int:
    """The index of the first word that is no option. `-m` is one only where it is in `values`: `uv run -m MODULE`."""
    while position < len(words) and words[position].startswith("-"):
        if words[position] == "--":
            return position + 1
        if words[position] in ("-m", "--module") and words[position] not in values:
            return position
        position += 2 if words[position] in values else 1
    return position


def _split_string(words: Sequence[str]) -> tuple[int, tuple[str, ...]] | None:
    """How many words `env -S 'A=1 vllm serve m'` takes, and what it makes of them: another call of env, which goes on
    with the words behind. None without `-S`."""
    values = _LEADING["env"].values
    position = 1
    while position < len(words) and words[position].startswith("-") and words[position] != "--":
        word = words[position]
        flag, equals, text = word.partition("=")
        position += 2 if word in values else 1
        if word in ("-S", "--split-string"):
            text = words[position - 1] if position <= len(words) else ""
        elif word.startswith("-S"):
            text = word[2:]
        elif flag != "--split-string" or not equals:
            continue
        try:
            return min(position, len(words)), ("env", *shlex.split(text))
        except ValueError:
            return None
    return None
