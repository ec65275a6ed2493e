"""`garrison config`."""

import os
from typing import Annotated, Any

import typer

from garrison.base.config_file import config_path
from garrison.base.setting import Setting
from garrison.base.settings import Settings
from garrison.cli.json_answer import answer
from garrison.cli.options import Json
from garrison.cli.options import app as make_app
from garrison.cli.outermost import warned

app = make_app("Show every setting, its value and where it came from.")


Changed = Annotated[bool, typer.Option("--changed", help="Show only settings that are not at their default.")]


@app.callback(invoke_without_command=True)
def _config(context: typer.Context, json: Json = False, changed: Changed = False) -> int:
    """Show every setting, its value and where it came from.

    Secrets are shown as set or unset.
    """
    return _show(json=json, changed=changed) if context.invoked_subcommand is None else 0


@app.command()
def show(json: Json = False, changed: Changed = False) -> int:
    """Show every setting, its value and where it came from.

    Secrets are shown as set or unset.
    """
    return _show(json=json, changed=changed)


def _show(*, json: bool, changed: bool) -> int:
    values = warned(Settings.load(os.environ))
    rows = [row for row in Settings.table() if not changed or row.name in values.origins]
    if json:
        print(answer({"settings": {row.name: _entry(row, values) for row in rows}}))
        return 0
    from garrison.cli.views.table import print_table

    entries = [(row.name, _entry(row, values)) for row in rows]
    print_table(
        ("setting", "value", "from", "variables"),
        [(name, _shown(one["value"]), one["from"], " ".join(one["variables"])) for name, one in entries],
        empty="every setting has its default",
    )
    file = config_path(os.environ) or "none, since this user has no home directory"
    print(f"\nconfig file: {file}")
    return 0


def _entry(row: Setting, values: Settings) -> dict[str, Any]:
    value = getattr(values, row.name)
    if row.secret:
        value = "set" if value else "unset"
    elif value is not None and not isinstance(value, str | int | float | bool | tuple):
        value = str(value)
    return {
        "value": list(value) if isinstance(value, tuple) else value,
        "from": values.origins.get(row.name, "default"),
        "variables": [row.env, *row.seeds],
        "group": row.group,
        "help": row.help,
    }


def _shown(value: Any) -> str:
    if value is None or value == []:
        return "–"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
