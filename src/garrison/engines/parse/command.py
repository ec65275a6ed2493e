"""Parse a pasted command line into engine, model and arguments. argv is kept verbatim and in order."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from garrison.base.errors import InvalidError
from garrison.base.redaction import shown_command
from garrison.engines.argv import flag_of, is_flag
from garrison.engines.catalogue import Catalogue, Option, load
from garrison.engines.parse import container as container_command
from garrison.engines.parse.container import Container
from garrison.engines.parse.launchers import ShellCall, environment_launcher, leading_launcher, shell_call
from garrison.engines.parse.shell_words import split_commands

__all__ = ["ParsedCommand", "parse_command"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)\Z", re.DOTALL)
_PYTHON = re.compile(r"(python|pypy|py)(\d+(\.\d+)?)?\Z")
_KEYWORDS = _names("if then elif else while until do for case function select { } ! [[")
_MODULES = {
    "vllm.entrypoints.openai.api_server": ("vllm", 0),
    "vllm.entrypoints.cli.main": ("vllm", 1),
    "vllm": ("vllm", 1),
    "mlx_lm.server": ("mlx_lm", 0),
    "mlx_lm": ("mlx_lm", 1),
    "garrison.sim": ("sim", 0),
}
_PROGRAMS = {
    "vllm": ("vllm", 1),
    "vllm-rs": ("vllm", 1),
    "llama-server": ("llama_cpp", 0),
    "mlx_lm.server": ("mlx_lm", 0),
    "mlx_lm": ("mlx_lm", 1),
}
_MOST_SHELLS = 3
_SUBCOMMANDS = {"vllm": "serve", "mlx_lm": "server"}
_OTHER_SUBCOMMANDS = frozenset(
    ("bench", "chat", "collect-env", "complete", "convert", "frontend", "generate", "launch", "run-batch")
)
_POSITIONAL = {"vllm", "sim"}
_MODEL_FLAGS = {
    "vllm": {"--model"},
    "sim": {"--model"},
    "llama_cpp": {"-m", "--model"},
    "mlx_lm": {"--model"},
}


@dataclass(frozen=True, slots=True)
class ParsedCommand:
    """A parsed command line.

    Attributes:
        engine: the engine's name.
        argv: every word after the assignments, exactly as given: what a shell would execute. Empty if only arguments
            were pasted.
        executable: the first word of `argv`; None if only arguments were pasted.
        model: the positional model, or the value of the engine's model flag.
        args: the engine's arguments in order, without the subcommand and the model.
        options: each flag in its normal spelling, with the values of each occurrence: `{"--middleware":
            (("a",), ("b",)), "--enforce-eager": ((),)}`. They stand in the order of their last occurrences.
        env: assignments before the command, `export` lines, and `-e NAME=VALUE` of a container.
        container: if the command starts one.
        stray: words behind the command that belong to no option.
        notes: what could not be translated, in sentences.
    """

    engine: str
    argv: tuple[str, ...] = field(repr=False)
    executable: str | None
    model: str | None
    args: tuple[str, ...] = field(repr=False)
    options: Mapping[str, tuple[tuple[str, ...], ...]] = field(repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    container: Container | None = None
    notes: tuple[str, ...] = ()
    stray: tuple[str, ...] = ()


def parse_command(text: str, engine: str | None = None) -> ParsedCommand:
    """Parse a pasted command line.

    Args:
        engine: the expected engine; with it, arguments alone are accepted too (`serve m --x`, `--model m`).

    Raises:
        InvalidError: it is empty, needs a shell, or starts an unknown engine or another one than `engine`.
    """
    env, argv, notes = _one_command(text)
    if container_command.is_container(argv):
        parsed = _in_container(argv, env, engine)
        return replace(parsed, notes=(*notes, *parsed.notes))
    found, start = _recognise(argv, engine)
    parsed = _arguments(found, argv[start:])
    if engine is not None and found != engine:
        raise InvalidError(f"this command starts {found}, not {engine}", hint=f"Use it with --engine {found}.")
    whole = tuple(argv) if start and argv[0] != _SUBCOMMANDS.get(found) else ()
    return replace(parsed, argv=whole, executable=whole[0] if whole else None, env=env, notes=tuple(notes))


def _one_command(text: str, shells: int = 0) -> tuple[dict[str, str], list[str], list[str]]:
    """The environment, the words of the command that starts an engine, and remarks.

    `export A=1` and `A=1` lines count as environment. Shells and launchers in front of the command are left out, and so
    are other commands.
    """
    env: dict[str, str] = {}
    notes: list[str] = []
    found: list[list[str]] = []
    for words in split_commands(text, notes):
        if words[0] in _KEYWORDS:
            raise InvalidError(
                f"the command line contains `{words[0]}`, which only a shell can interpret",
                hint="Paste only the command that starts the engine.",
            )
        if words[0] in ("set", "cd", "source", ".", "ulimit", "umask", "pushd", "module"):
            notes.append(f"`{' '.join(words)}` was left out")
        elif rest := _bare_command(words, env, notes):
            found.append(rest)
    command = _only_start(found, notes)
    call = shell_call(command)
    if call is None:
        return env, command, notes
    if not call.text.strip() or shells == _MOST_SHELLS:
        raise InvalidError(
            f"{command[0]} starts a shell, and no engine", hint="Paste the command that starts the engine."
        )
    more, argv, remarks = _one_command(_exported(env) + call.text, shells + 1)
    return {**env, **more}, argv, [*notes, *_of_shell(command[0], call, argv), *remarks]


def _exported(env: Mapping[str, str]) -> str:
    """Lines that give the variables of a shell's environment to the text that it runs."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in env.items() if name.isidentifier())


def _only_start(found: Sequence[list[str]], notes: list[str]) -> list[str]:
    """The only command, or the only one of several that starts an engine; the others go to `notes`.

    Raises:
        InvalidError: there is none, or more than one.
    """
    if not found:
        raise InvalidError("the command line is empty", hint="Paste a command such as `vllm serve MODEL`.")
    if len(found) == 1:
        return found[0]
    starts = [command for command in found if _may_start(command)]
    if len(starts) != 1:
        raise InvalidError(
            f"{len(found)} commands were pasted, {found[0][0]} and {found[1][0]} among them",
            hint="Paste the one that starts the engine.",
        )
    notes += [f"`{shown_command(command)}` was left out" for command in found if command is not starts[0]]
    return starts[0]


def _may_start(command: Sequence[str]) -> bool:
    call = shell_call(command)
    if call is not None and call.text:
        return True
    try:
        if container_command.is_container(command):
            _in_container(command, {}, None)
        else:
            _recognise(command, None)
    except InvalidError:
        return False
    return True


def _of_shell(shell: str, call: ShellCall, argv: Sequence[str]) -> list[str]:
    """Remarks on what stands behind the text of a shell, which the text may use as `$0`, `$1`.

    Raises:
        InvalidError: those words were meant for the text: `bash -c vllm serve m`.
    """
    notes = [call.note] if call.note else []
    if call.behind and len(argv) == 1:
        raise InvalidError(
            f"{shell} runs `{call.text}` alone, without `{shown_command(call.behind)}` behind it",
            hint="Put quotes around the whole command that the shell is to run.",
        )
    if call.behind:
        notes.append(f"`{shown_command(call.behind)}` behind the text of {shell} was left out")
    return notes


def _bare_command(words: Sequence[str], env: dict[str, str], notes: list[str]) -> list[str]:
    """The command without what stands in front of it; assignments go to `env`, remarks to `notes`."""
    rest = list(words[1:] if words[0] == "export" else words)
    while rest:
        if assignment := _ASSIGNMENT.match(rest[0]):
            env[assignment[1]] = assignment[2]
            rest = rest[1:]
        elif (launcher := leading_launcher(rest)) is not None:
            notes += [launcher.note] if launcher.note else []
            rest = [*launcher.inside, *rest[launcher.words :]]
        else:
            break
    return rest


def _recognise(argv: Sequence[str], engine: str | None) -> tuple[str, int]:
    """The engine, and the index of its first argument."""
    words = list(argv)
    start = environment_launcher(words)
    head = PurePosixPath(words[start]).name.removesuffix(".exe") if start < len(words) else ""
    if start and words[0].endswith("uvx"):
        head = head.partition("@")[0]
    if start and head in ("-m", "--module"):
        return _module(words[start + 1] if start + 1 < len(words) else "", words, start + 2)
    if _PYTHON.match(head):
        return _python(words, start)
    if head in _PROGRAMS:
        name, subcommands = _PROGRAMS[head]
        return name, _after_subcommand(words, start + 1, name, subcommands)
    if engine is not None and head == _SUBCOMMANDS.get(engine):
        return engine, start + 1
    if engine is not None and (is_flag(words[0]) or _looks_like_model(engine, words)):
        return engine, 0
    known = ", ".join(_PROGRAMS)
    if is_flag(words[0]):
        raise InvalidError(
            f"only arguments were pasted, {flag_of(words[0])} first, and no program",
            hint=f"Paste the program in front of them ({known}), or name the engine.",
        )
    raise InvalidError(
        f"{words[start] if head else words[0]!r} is not the program of a known engine ({known})",
        hint=_hint(words),
    )


def _hint(words: Sequence[str]) -> str:
    """What to paste in place of `words`: the part of them that starts an engine, behind a program that is not known."""
    for word in words[1:]:
        if PurePosixPath(word.split(None, 1)[0] if word.strip() else "").name in _PROGRAMS:
            begin = word.split(None, 1)[0]
            return f"Paste the part that begins with `{begin}`: it is not known what {words[0]} does in front of it."
    return "Paste a command such as `vllm serve MODEL --port 8000`."


def _looks_like_model(engine: str, words: Sequence[str]) -> bool:
    """`org/name --x` alone, which llamactl accepts."""
    followed_well = len(words) == 1 or is_flag(words[1])
    return engine in _POSITIONAL and followed_well and ("/" in words[0] or len(words) == 1)


def _python(words: Sequence[str], start: int) -> tuple[str, int]:
    """Python's options end with `-m MODULE`, `-c CODE` or a script; short ones may be combined: `-um MODULE`."""
    position = start + 1
    while position < len(words) and words[position].startswith("-") and len(words[position]) > 1:
        word = words[position]
        position += 1
        if word.startswith("--"):
            position += word == "--check-hash-based-pycs"
            continue
        ends = re.search(r"[mcWX]", word[1:])
        if ends is None:
            continue
        attached = word[ends.end() + 1 :]
        if ends[0] == "m" and attached:
            return _module(attached, words, position)
        if ends[0] == "m":
            return _module(words[position] if position < len(words) else "", words, position + 1)
        if ends[0] == "c":
            raise InvalidError("python -c runs code, and no known engine", hint="Paste the engine's own command.")
        position += not attached
    script = PurePosixPath(words[position]).name if position < len(words) else ""
    if script in _PROGRAMS:
        name, subcommands = _PROGRAMS[script]
        return name, _after_subcommand(words, position + 1, name, subcommands)
    return _module(script, words, position + 1)


def _module(module: str, words: Sequence[str], position: int) -> tuple[str, int]:
    """`position` is that of the first word behind the module."""
    if module not in _MODULES:
        raise InvalidError(
            f"python runs {module or 'no module'}, which is not a known engine",
            hint="Known: " + ", ".join(f"python -m {name}" for name in _MODULES),
        )
    name, subcommands = _MODULES[module]
    return name, _after_subcommand(words, position, name, subcommands)


def _after_subcommand(words: Sequence[str], position: int, name: str, subcommands: int) -> int:
    """Skip `serve`. It may be missing, which llamactl accepts; another subcommand is rejected."""
    if not subcommands or position >= len(words) or is_flag(words[position]):
        return position
    if words[position] == _SUBCOMMANDS[name]:
        return position + 1
    if words[position] in {
        "chat",
        "complete",
        "bench",
        "run-batch",
        "collect-env",
        "launch",
        "generate",
        "convert",
        "frontend",
    }:
        raise InvalidError(
            f"`{name} {words[position]}` starts no server", hint=f"Paste a `{name} {_SUBCOMMANDS[name]}` command."
        )
    return position


def _arguments(engine: str, words: Sequence[str]) -> ParsedCommand:
    if malformed := [word for word in words if re.match(r"---+\w", word)]:
        raise InvalidError(f"invalid flag {malformed[0]!r}: it begins with three dashes", hint="Remove one.")
    catalogue = _known(engine)
    known = catalogue.by_spelling()
    model: str | None = None
    args: list[str] = []
    options: dict[str, list[tuple[str, ...]]] = {}
    stray: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not is_flag(word):
            if model is None and engine in _POSITIONAL and word != "--":
                model = word
            else:
                args.append(word)
                stray.append(word)
            continue
        flag = catalogue.spelled_out(word)
        values, position = _values(engine, word, known.get(flag), words, position)
        if flag in _MODEL_FLAGS[engine] and values:
            model = values[-1]
            continue
        args += [word, *values] if "=" not in word else [word]
        options[flag] = [*options.pop(flag, ()), values]  # the spelling that was used last stands last
    kept = {flag: tuple(times) for flag, times in options.items()}
    return ParsedCommand(engine, (), None, model, tuple(args), kept, stray=tuple(stray))


def _values(
    engine: str, word: str, option: Option | None, words: Sequence[str], position: int
) -> tuple[tuple[str, ...], int]:
    """The values of the flag `word`, and the next position. An unknown flag has one value, unless a flag follows."""
    if "=" in word:
        return (word.split("=", 1)[1],), position
    most = 1 if option is None or option.nargs == "?" else 1 << 30 if option.nargs == "+" else int(option.nargs)
    # llama-server reads the next word as a value whatever it looks like; the other parsers do not.
    greedy = engine == "llama_cpp" and option is not None
    if most == 0 and position < len(words) and words[position].lower() in ("true", "false"):
        return (words[position],), position + 1  # the engine refuses it, but it is clear what is meant
    end = position
    while end < len(words) and end - position < most and (greedy or not is_flag(words[end])) and words[end] != "--":
        end += 1
    return tuple(words[position:end]), end


def _in_container(argv: Sequence[str], env: Mapping[str, str], engine: str | None) -> ParsedCommand:
    container, inside = container_command.understand(argv)
    notes = list(container_command.notes(container))
    if shell_call(inside) is not None:
        more, inside, remarks = _one_command(_exported(container.env) + shlex.join(inside))
        env, notes = {**env, **more}, [*notes, *remarks]
    implied = container.engine
    try:
        found, start = _recognise(inside, implied or engine) if inside else (implied or engine or "", 0)
    except InvalidError:
        # An image with an entry point of its own accepts a positional model directly.
        if implied is None or any(container.values("--entrypoint")):
            raise
        found, start = implied, 0
    if not found:
        raise InvalidError(
            f"the image {container.image} belongs to no known engine",
            hint="Paste the command that runs inside the container.",
        )
    if engine is not None and found != engine:
        raise InvalidError(f"this command starts {found}, not {engine}", hint=f"Use it with --engine {found}.")
    parsed = _arguments(found, inside[start:])
    return replace(
        parsed,
        argv=tuple(argv),
        executable=argv[0],
        env={**env, **container.env},
        container=container,
        notes=tuple(notes),
    )


def _known(engine: str) -> Catalogue:
    return load("vllm" if engine == "sim" else engine)
