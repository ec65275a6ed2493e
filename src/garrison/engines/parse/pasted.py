"""A command line inside the file that it was pasted from: a systemd unit, a compose file."""

import json
import re
import shlex
from typing import Any

__all__ = ["unwrap"]

_UNIT = re.compile(r"\s*ExecStart\s*=\s*[-@:+!|]*")
_KEY = re.compile(r"\s*-?\s*(command|entrypoint|args|cmd|CMD|ENTRYPOINT)\s*:?\s*(?=\S)")
_MOST_BYTES = 64 * 1024


def unwrap(text: str) -> str:
    """Return the command line in a pasted `ExecStart=` line or `command:` entry; anything else as it is.

    A list in brackets, as compose, Kubernetes and Dockerfiles write it, becomes words that a shell would read as the
    same list. In a unit `%%` is a percent sign, and a `$$` a dollar sign.
    """
    if len(text) > _MOST_BYTES:
        return text
    if found := _UNIT.match(text):
        rest = text[found.end() :].replace("%%", "%")
        return rest.replace("$$", "\\$")
    found = _KEY.match(text)
    rest = text[found.end() :] if found else text
    stripped = rest.strip()
    if stripped.startswith("[") and stripped.endswith("]") and (words := _words(stripped)) is not None:
        return shlex.join(words)
    if found is not None and ":" in found[0]:
        return _folded(rest)
    return text


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
    return [one if isinstance(one, str) else json.dumps(one) for one in content]


def _folded(text: str) -> str:
    """The text of a YAML scalar: a block begins with `>` or `|`, and each line of it is one piece of the command."""
    first, newline, rest = text.strip().partition("\n")
    if newline and re.fullmatch(r"[>|][-+]?\d*", first.strip()):
        return " ".join(line.strip().removesuffix("\\").strip() for line in rest.splitlines())
    return text
