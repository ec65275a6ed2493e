#!/usr/bin/env python3
"""Write docs/reference/ from the code. A test compares the two, so run this after changing a command, a setting, an
exit code, an error or the manifest."""

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from typer.main import get_command

from garrison.base.errors import all_errors
from garrison.base.exit_codes import ExitCode
from garrison.base.settings import Setting, Settings
from garrison.cli.table import COMMANDS, Command
from garrison.launch.manifest import ServeManifest

HERE = Path(__file__).resolve().parent.parent / "docs" / "reference"
_WORDS: dict[Any, str] = {str: "TEXT", list[str]: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH"}
_MADE = "<!-- Made by scripts/make_reference.py; do not edit. -->\n\n"


def main() -> int:
    HERE.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")
        print(f"docs/reference/{name}")
    return 0


def pages() -> dict[str, str]:
    """File name to content."""
    return {
        "cli.md": _MADE + _cli(),
        "settings.md": _MADE + _settings(),
        "exit-codes.md": _MADE + _exit_codes(),
        "errors.md": _MADE + _errors(),
        "manifest.md": _MADE + _manifest(),
    }


def _cli() -> str:
    parts = [
        "# Commands\n\nEvery command takes `--help`. What follows `--` goes verbatim to the engine or the "
        "downstream command.\n"
    ]
    for command in COMMANDS:
        parts += _command(command)
    return "\n".join(parts)


def _command(command: Command) -> Iterator[str]:
    yield f"## garrison {command.name}\n\n{command.help}\n"
    if command.name == "sim":
        yield "```\n" + _sim_help() + "```\n"
        return
    click: Any = get_command(import_module(command.module).app)
    children: dict[str, Any] = getattr(click, "commands", {})
    if not children:
        yield from _parameters(f"garrison {command.name}", click)
    for name, child in children.items():
        yield from _parameters(f"garrison {command.name} {name}", child)


def _parameters(path: str, click: Any) -> Iterator[str]:
    arguments = [item for item in click.params if item.param_type_name == "argument"]
    options = [item for item in click.params if item.param_type_name == "option" and item.name != "help"]
    usage = " ".join([path, *(_argument(item) for item in arguments), *(["[options]"] if options else [])])
    yield f"### `{usage}`\n\n{_paragraph(click.help or '')}\n"
    rows = [(f"`{_argument(item)}`", _cell(getattr(item, "help", "") or "")) for item in arguments]
    rows += [(f"`{_flags(item)}`", _cell(item.help or "") + _default(item)) for item in options]
    if rows:
        yield "| | |\n|---|---|\n" + "\n".join(f"| {name} | {text} |" for name, text in rows) + "\n"


def _argument(item: Any) -> str:
    name = item.metavar or str(item.name).upper()
    name = f"{name}..." if item.nargs == -1 else name
    return name if item.required else f"[{name}]"


def _flags(item: Any) -> str:
    spelled = ", ".join(sorted(item.opts, key=len)) + (
        f" / {', '.join(item.secondary_opts)}" if item.secondary_opts else ""
    )
    if item.is_flag:
        return spelled
    # Typer keeps the type under a name of its own; uv.lock holds its version, and a test runs this.
    return f"{spelled} {item.metavar or _WORDS[item.type_descriptor.annotation]}"


def _default(item: Any) -> str:
    plain = (
        item.default not in (None, False, True) and not callable(item.default) and "Default:" not in (item.help or "")
    )
    return f" Default: `{item.default}`." if plain else ""


def _sim_help() -> str:
    from garrison.sim.command import parser

    # argparse breaks lines at the width of the terminal, which must not matter here.
    with mock.patch.dict(os.environ, COLUMNS="100"):
        return parser().format_help()


def _settings() -> str:
    lines = [
        "# Settings\n",
        "A value comes from the first of: a flag, `GARRISON_<NAME>`, the variable of the system Garrison follows, the "
        "config file (`GARRISON_CONFIG`, or `garrison/config.yaml` in the XDG config directory), the default. "
        "`garrison config show` prints the values in force and where they came from.\n",
    ]
    rows = Settings.table()
    for group in dict.fromkeys(row.group for row in rows):
        lines.append(f"## {group}\n\n| name | variables | default | |\n|---|---|---|---|")
        lines += [_setting(row) for row in rows if row.group == group]
        lines.append("")
    return "\n".join(lines)


def _setting(row: Setting) -> str:
    variables = "<br>".join(f"`{name}`" for name in (row.env, *row.seeds))
    default = _shown(row.default)
    if row.seed_default is not None:
        default += f"<br>(`vllm-*`: {_shown(row.seed_default)})"
    return f"| `{row.name}` | {variables} | {default} | {_cell(row.help)} |"


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "–"
    if isinstance(value, bool):
        return f"`{int(value)}`"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _exit_codes() -> str:
    rows = "\n".join(f"| {int(code)} | {code.label} | {_cell(code.meaning)} |" for code in ExitCode)
    return (
        "# Exit codes\n\nOne space for every command, a stable contract.\n\n| code | name | when |\n|---|---|---|\n"
        f"{rows}\n\n130 is Ctrl-C. A command that was run for you (`garrison preflight -- COMMAND`) gives its own.\n"
    )


def _errors() -> str:
    rows = "\n".join(
        f"| `{error.code}` | {int(error.exit_code)} | {error.http_status} | {_paragraph(error.__doc__ or '')} |"
        for error in all_errors()
    )
    return (
        "# Errors\n\nWith `--json` a failure is one object on standard output: `ok` (false), `code`, `exit_code`, "
        "`error`, `hint` where there is a next step, and the facts that the last column names.\n\n"
        f"| code | exit | HTTP | |\n|---|---|---|---|\n{rows}\n"
    )


def _manifest() -> str:
    schema = ServeManifest.model_json_schema()
    rows = "\n".join(
        f"| `{name}` | {_type(body)} | {_shown_json(body.get('default'))} | {_cell(body.get('description', ''))} |"
        for name, body in schema["properties"].items()
    )
    return (
        "# Manifest\n\n`garrison serve` reads `garrison.yaml` from the current directory, or the file named with "
        "`--file`. YAML, JSON and TOML are understood. Relative paths (`./x`, `../x`) are relative to the file; "
        "an error names file, line and column.\n\n"
        f"| key | type | default | |\n|---|---|---|---|\n{rows}\n"
    )


def _type(body: dict[str, Any]) -> str:
    kinds = [body, *body.get("anyOf", ())]
    names = [kind["type"] for kind in kinds if kind.get("type") not in (None, "null")]
    return " or ".join({"object": "mapping", "array": "list"}.get(name, name) for name in names)


def _shown_json(value: Any) -> str:
    return "–" if value in (None, {}, []) else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _paragraph(text: str) -> str:
    """The lines of a paragraph joined; paragraphs kept."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


if __name__ == "__main__":
    sys.exit(main())
