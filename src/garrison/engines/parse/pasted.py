"""A command line inside the file that it was pasted from: a systemd unit, a compose file, a Kubernetes manifest."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["unwrap"]

_UNIT = re.compile(r"\s*ExecStart\s*=\s*[-@:+!|]*")
_UNIT_LINE = re.compile(r"^[ \t]*(ExecStart|Environment)[ \t]*=", re.MULTILINE)
_UNIT_COMMENT = re.compile(r"^[ \t]*[#;].*\n?", re.MULTILINE)
_UNIT_ENTRY = re.compile(r"^[ \t]*(ExecStart|Environment)[ \t]*=[ \t]*((?:[^\n]*\\\r?\n)*[^\n]*)", re.MULTILINE)
_KEY = re.compile(r"\s*-?\s*(command|entrypoint|args|cmd|CMD|ENTRYPOINT)\s*:?\s*(?=\S)")
_MAPPING = re.compile(r"\s*(?:-\s+)?[A-Za-z_][\w.-]*\s*:(?:\s|\Z)")
_PROMPT = re.compile(
    r"\s*(?:\([\w.-]+\)\s*)?(?:\[?[\w.-]+@[\w.-]+[:\s][^\s$#]*[$#]|[$%>\u276f\u279c](?:\s+~)?)\s+|\s*!(?=[\w./])"
)
"""`(venv) user@host:~$ `, `% `, `> `, and the `!` of a notebook."""
_FENCE = re.compile(r"\s*(?:```|~~~)[\w-]*[ \t]*\n(.*?)\n[ \t]*(?:```|~~~)\s*\Z", re.DOTALL)
_MAGIC = re.compile(r"\s*%%(?:bash|sh)\b[^\n]*\n")
_CONTINUATION = re.compile(r"(?:\\[ \t]+|[ \t]`[ \t]*|[ \t]\^[ \t]*)(?=\r?\n)")
"""Ends of lines that go on: a backslash with blanks behind it, PowerShell's backtick, the caret of `cmd`."""
_BLANKS = re.compile(r"""('[^']*'|"(?:\\.|[^"\\])*")|[\u00a0\u2002-\u200a\u202f\u3000]""")
"""Quoted text, and the blanks of pages and word processors, which no shell takes for blanks."""
_VARIABLE = re.compile(r"\$(?:\(?[A-Za-z_]|\{)")
_KUBERNETES_VARIABLE = re.compile(r"\$\$|\$\(([A-Za-z_][\w.-]*)\)")
_MOST_BYTES = 64 * 1024
_MOST_NODES = 10_000
_WORDS = ("entrypoint", "command", "args")


def unwrap(text: str) -> str:
    """Return the command line in a pasted `ExecStart=` line, `command:` entry, service or unit; anything else as it is.

    A list in brackets or of lines, as compose, Kubernetes and Dockerfiles write it, becomes words that a shell would
    read as the same list; a service with an image becomes `docker run`. In a unit `%%` is a percent sign, and a `$$` a
    dollar sign.
    """
    if len(text) > _MOST_BYTES:
        return text
    text = _CONTINUATION.sub(r" \\", _of_page(text))
    if (unit := _from_unit(text)) is not None:
        return unit
    if found := _UNIT.match(text):
        return _unescaped(_UNIT_COMMENT.sub("", text[found.end() :]))
    if _MAPPING.match(text) and (service := _from_yaml(text)) is not None:
        return service
    found = _KEY.match(text)
    rest = text[found.end() :] if found else text
    stripped = rest.strip()
    if stripped.startswith("[") and stripped.endswith("]") and (words := _words(stripped)) is not None:
        return " ".join(map(_quoted, words))
    if found is not None and ":" in found[0]:
        return _folded(rest)
    if found is not None and found[1].isupper():
        return rest
    return _PROMPT.sub("", text, count=1) if _PROMPT.match(text) else text


def _of_page(text: str) -> str:
    """The text in a fenced block, or in a cell of a notebook, with plain blanks between its words."""
    text = _BLANKS.sub(lambda found: found[1] or " ", text.lstrip("\ufeff"))
    if fenced := _FENCE.match(text):
        text = fenced[1]
    return _MAGIC.sub("", text, count=1)


def _from_unit(text: str) -> str | None:
    """The command of a unit of several lines, with its environment in front; None for anything else."""
    if not re.match(r"\s*(\[|#|;|[A-Z]\w*=)", text) or not _UNIT_LINE.search(text) or _UNIT.match(text):
        return None
    text = _UNIT_COMMENT.sub("", text)  # also where they stand between the lines of one value, as systemd reads them
    entries = [(found[1], found[2]) for found in _UNIT_ENTRY.finditer(text)]
    commands = [value for name, value in entries if name == "ExecStart"]
    while "" in commands:  # an empty one takes back those above it, as in a drop-in
        commands = commands[commands.index("") + 1 :]
    if len(commands) != 1:
        return None
    variables = [_unescaped(value) for name, value in entries if name == "Environment"]
    lines = [f"export {one}" for value in variables for one in _assignments(value)]
    return "\n".join([*lines, _unescaped(commands[0].lstrip("-@:+!|"))])


def _assignments(text: str) -> list[str]:
    try:
        found = shlex.split(text)
    except ValueError:
        return []
    return [f"{name}={shlex.quote(value)}" for name, equals, value in (one.partition("=") for one in found) if equals]


def _unescaped(text: str) -> str:
    return text.replace("%%", "%").replace("$$", "\\$")


def _from_yaml(text: str) -> str | None:
    """The services or containers in a YAML text, a command line each; None where there is none."""
    import yaml

    try:
        content: Any = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        return None
    services = [node for node in _mappings(content) if _is_service(node)]
    if len(services) > 1:  # the parser finds the one that starts an engine
        services = [node for node in services if isinstance(node.get("image"), str)]
    commands = [command for node in services if (command := _command(node)) is not None]
    return "\n".join(commands) if commands else None


def _mappings(content: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping below `content`, up to a limit: aliases can make a small text a large tree."""
    waiting, seen = [content], 0
    while waiting and seen < _MOST_NODES:
        node = waiting.pop()
        seen += 1
        if isinstance(node, dict):
            if all(isinstance(key, str) for key in node):
                yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _is_service(node: Mapping[str, Any]) -> bool:
    return any(isinstance(node.get(name), str | list) and node.get(name) for name in _WORDS)


def _command(service: Mapping[str, Any]) -> str | None:
    env = _environment(service.get("environment", service.get("env")))
    # Kubernetes puts the values of `env` for `$(NAME)`; what compose puts for `$NAME` is not in the file.
    known = env if "environment" not in service else {}
    parts: dict[str, str] = {}
    for name in _WORDS:
        value = service.get(name)
        if isinstance(value, str):
            parts[name] = " ".join(value.replace("$$", "\\$").splitlines())
        elif isinstance(value, list):
            if not all(isinstance(one, str | int | float) for one in value):
                return None
            parts[name] = " ".join(_quoted(_with_values(_text(one), known)) for one in value)
    image = service.get("image")
    if isinstance(image, str):
        flags = [word for name, value in env.items() for word in ("-e", f"{name}={value}")]
        entry, rest = _entry_point(parts)
        return " ".join([shlex.join(["docker", "run", *flags, *entry, image]), *rest])
    return "\n".join(
        [*(f"export {name}={shlex.quote(value)}" for name, value in env.items()), " ".join(parts.values())]
    )


def _with_values(word: str, values: Mapping[str, str]) -> str:
    return _KUBERNETES_VARIABLE.sub(lambda found: values.get(found[1] or "", found[0]), word)


def _quoted(word: str) -> str:
    """A word of a list, so that a shell reads the same. A variable in it stays one, which the parser refuses by its
    name: no value is known. The text that is given to a shell is for that shell."""
    bare = word.replace("$$", "")
    if not _VARIABLE.search(bare) or any(character.isspace() for character in word):
        return shlex.quote(word.replace("$$", "$"))
    return '"' + re.sub(r'([\\"`])', r"\\\1", word).replace("$$", "\\$") + '"'


def _entry_point(parts: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """What takes the place of the image's own program, as an option of `docker run`, and what follows the image.

    That is compose's `entrypoint`, and `command` beside Kubernetes' `args`.
    """
    name = "entrypoint" if "entrypoint" in parts else "command" if "args" in parts else ""
    try:
        words = shlex.split(parts.get(name, ""))
    except ValueError:
        words = []
    if not words:
        return [], list(parts.values())
    return ["--entrypoint", words[0]], [shlex.join(words[1:]), *(text for key, text in parts.items() if key != name)]


def _environment(given: Any) -> dict[str, str]:
    """Variables as compose has them, a mapping or a list, and as Kubernetes has them, a list of names and values."""
    if isinstance(given, dict):
        return {str(name): _text(value) for name, value in given.items() if isinstance(value, str | int | float)}
    found: dict[str, str] = {}
    for one in given if isinstance(given, list) else ():
        if isinstance(one, str) and "=" in one:
            name, _, value = one.partition("=")
            found[name] = value
        elif isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("value"), str):
            found[one["name"]] = one["value"]
    return found


def _words(text: str) -> list[str] | None:
    """The strings of a list in brackets, as JSON or as YAML's flow style; None if it is something else."""
    try:
        content: Any = json.loads(text)
    except ValueError:
        import yaml

        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError:
            return None
    except RecursionError:
        return None
    if not isinstance(content, list) or not all(isinstance(one, str | int | float) for one in content):
        return None
    return [_text(one) for one in content]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _folded(text: str) -> str:
    """The text of a YAML scalar: a block begins with `>` or `|`, and each line of it is one piece of the command."""
    first, newline, rest = text.strip().partition("\n")
    if newline and re.fullmatch(r"[>|][-+]?\d*", first.strip()):
        return " ".join(line.strip().removesuffix("\\").strip() for line in rest.splitlines())
    return text
