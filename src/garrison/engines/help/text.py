"""Read an option's default, and the type of its value, from the prose of its help."""

import re

__all__ = ["default_of", "kind_of"]

_DEFAULT = re.compile(r"\s*\((?:[Dd]efault): ((?:[^()]|\([^()]*\))*)\)\s*\Z")
_JSON = re.compile(r"valid JSON string|JSON keys passed|[Jj][Ss][Oo][Nn] formatted|JSON object|json object")


def default_of(help: str) -> tuple[str | None, str]:
    """argparse's `(default: X)` at the end, and the help without it. `None` in the help means no default."""
    found = _DEFAULT.search(help)
    if found is None:
        return None, help
    return (None if found[1] == "None" else found[1]), help[: found.start()].strip()


def kind_of(nargs: str, choices: tuple[str, ...], default: str | None, help: str) -> str:
    """`flag`, `choice`, `json`, `integer`, `number` or `text`. A guess for forms: nothing is rejected because of it."""
    if nargs == "0":
        return "flag"
    if choices:
        return "choice"
    if _JSON.search(help) or (default is not None and default.startswith("{")):
        return "json"
    if default is not None and re.fullmatch(r"[+-]?\d+", default):
        return "integer"
    if default is not None and re.fullmatch(r"[+-]?(\d+\.\d*|\.\d+|\d+(\.\d+)?e[+-]?\d+)", default):
        return "number"
    return "text"
