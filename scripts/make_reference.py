#!/usr/bin/env python3
"""Write docs/reference/ from the code.

A test compares the two, so run this after changing a command, a setting, an exit code, an error or the manifest.
"""

import os
import sys
from collections.abc import Iterator
from enum import EnumType
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from typer.main import get_command

from garrison.base.errors import all_errors
from garrison.base.exit_codes import ExitCode
from garrison.base.setting import Setting
from garrison.base.settings import Settings
from garrison.cli.table import COMMANDS, Command
from garrison.fleet.manifest.schema import manifest_schema
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
    """Return the pages, file name to content."""
    return {
        "cli.md": _MADE + _cli(),
        "settings.md": _MADE + _settings(),
        "exit-codes.md": _MADE + _exit_codes(),
        "errors.md": _MADE + _errors(),
        "manifest.md": _MADE + _manifest(),
        "fleet-manifest.md": _MADE + _fleet_manifest(),
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
    # A private attribute of Typer's; uv.lock pins the version, and a test covers this.
    return f"{spelled} {item.metavar or _word(item.type_descriptor.annotation)}"


def _word(kind: Any) -> str:
    return "|".join(kind) if isinstance(kind, EnumType) else _WORDS[kind]


def _default(item: Any) -> str:
    plain = (
        item.default not in (None, False, True) and not callable(item.default) and "Default:" not in (item.help or "")
    )
    return f" Default: `{item.default}`." if plain else ""


def _sim_help() -> str:
    from garrison.sim.command import parser

    # argparse wraps lines at the width of the terminal, which must not affect the page.
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
        return f"`{','.join(map(str, value))}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _exit_codes() -> str:
    rows = "\n".join(f"| {int(code)} | {code.label} | {_cell(code.meaning)} |" for code in ExitCode)
    return (
        "# Exit codes\n\nOne space for all commands, and a stable contract.\n\n| code | name | when |\n|---|---|---|\n"
        f"{rows}\n\nA command that is ended by a signal gives 128 and its number: 130 for Ctrl-C, 143 for SIGTERM, 129 "
        "for a closed terminal. Commands on a fleet finish the action in progress first, and give 130 for each. "
        "A `garrison serve` that is stopped once its engine is ready, and a `garrison up` that is, end with 0: to be "
        "stopped is their regular end. A `serve` that is stopped before ends with the code of the signal. "
        "`garrison preflight -- COMMAND` passes on the exit code of COMMAND.\n"
    )


def _errors() -> str:
    rows = "\n".join(
        f"| `{error.code}` | {int(error.exit_code)} | {error.http_status} | {_paragraph(error.__doc__ or '')} |"
        for error in all_errors()
    )
    return (
        "# Errors\n\nWith `--json` a failure is one object on standard output: `ok` (false), `code`, `exit_code`, "
        "`error`, `hint` if there is a next step, and the details named in the last column.\n\n"
        f"| code | exit | HTTP | |\n|---|---|---|---|\n{rows}\n"
    )


def _manifest() -> str:
    schema = ServeManifest.model_json_schema()
    rows = "\n".join(
        f"| `{name}` | {_type(body)} | {_shown_json(body.get('default'))} | {_cell(body.get('description', ''))} |"
        for name, body in schema["properties"].items()
    )
    return (
        "# Manifest\n\n`garrison serve` reads `serve.yaml`, or else `garrison.yaml`, from the current directory, or "
        "the file named with `--file`. YAML, JSON and TOML are supported. Relative paths (`./x`, `../x`) are relative "
        "to the file. Up to ten errors are shown at once, with file, line and column; a key without a value is one.\n\n"
        f"| key | type | default | |\n|---|---|---|---|\n{rows}\n"
    )


_FLEET = """# Fleet manifest

`garrison apply`, `plan`, `destroy` and `eval` read `garrison.yaml` from the current directory, or what `--file` names:
files, directories (all manifests directly in one are merged), and `-` for standard input. YAML, JSON and TOML are
supported, and `.pkl` if the `pkl` program is installed. Several files form one declaration: `stack` and `policy` must
occur once or be equal, the rest is joined, and nothing may be declared twice. Up to ten errors are shown at once, with
file, line and column. `garrison schema` prints the JSON Schema for editors; `examples/fleet/` has sample manifests.

A file with `model:` at its top is the [short form](manifest.md) that `garrison serve` takes: a stack of one instance,
named after the model. The stack is called as `stack:` says, or else like the directory of the file; `adapters` become
adapters of the instance, by path; `host` and `api_key_env` are for `serve` alone.

- **Keys** may be written `base_url`, `baseUrl` or `BaseUrl`.
- **Variables**: `${NAME}` and `${NAME:-default}` (used when unset or empty) work in any value, but not in keys; `$${`
  is a literal `${`. A variable may supply a number or a flag. An unset variable without a default is an error.
- **Secrets** are references: `{env: NAME}`, `{file: PATH}` or `{command: [program, argument]}`, read when needed;
  `api_key: ${NAME}` means `{env: NAME}`. A key written into the manifest is rejected, and so is a user or a password in
  a URL. `VLLM_API_KEY` is sent only to targets that refer to it.
- **Paths** on this machine (`tls`, a secret's `file`, `adapter_store`) are relative to the manifest, and `~` is your
  home directory. `lora_path` is a path on the server; only `./x` and `../x` are relative to the manifest. A manifest on
  standard input is relative to the current directory.
- **Times** are seconds or text: `500ms`, `30s`, `5m`, `1h`. **Sizes** are bytes or text: `600MB`, `14GiB`.
- **Instances** are targets: `adapters` and `routes` refer to both by name, so the names must differ. An option that
  says where an engine listens, or with which key, is ignored with a warning: the server decides that.
- **Addresses**: `base_url`, or `host` with `port` and `scheme`. Two targets with one address are an error, as are two
  adapters with one `lora_name` on one target, an adapter with the name of its target's `base_model`, and a `select`
  that matches nothing.

## Formas of formae

A document with `Stacks`, `Targets` and `Resources`, as printed by `formae eval` and `pkl eval -f json`, is accepted.
Resources of other plugins are skipped with a warning; a reference to one is an error, since only formae can resolve it.
A policy of type `auto-reconcile` becomes `on_drift: restore`. The read-only fields `id`, `parent` and `root` of an
extract are skipped with a warning. If `VLLM_API_KEY` is set, the targets of a forma get `api_key: {env: VLLM_API_KEY}`
with a warning, because the plugin sends that key to every target. `${NAME}` is plain text in a forma.

A `.pkl` file is evaluated in a clean environment: it sees the variables it reads by name (`read("env:NAME")`), and the
packages it imports see no others. `--prop NAME=VALUE` sets a property that the file reads as `prop:NAME`.
"""


def _fleet_manifest() -> str:
    schema = manifest_schema()
    sections = {title: schema["$defs"][name] for title, name in _FLEET_SECTIONS.items()}
    return _FLEET + "".join(_keys(title, body) for title, body in sections.items())


_FLEET_SECTIONS = {
    "The manifest": "FleetManifest",
    "`instances.NAME`": "InstanceModel",
    "`custom`": "CustomModel",
    "`targets.NAME`": "TargetModel",
    "`adapters.LABEL`": "AdapterModel",
    "`models.LABEL`": "ModelModel",
    "`routes.NAME`": "RouteModel",
    "`hash`": "HashModel",
    "`prefix`": "PrefixModel",
    "`sticky`": "StickyModel",
    "`spill`": "SpillModel",
    "`aliases.NAME`": "AliasModel",
    "`limits`": "LimitsModel",
    "`queue`": "QueueModel",
    "`timeouts`": "TimeoutsModel",
    "`policy`": "PolicyModel",
    "`hooks[]`": "HookModel",
    "`tls`": "TlsModel",
    "A secret": "SecretModel",
}


def _keys(title: str, body: dict[str, Any]) -> str:
    """Render one kind of mapping as a table, each key once, without its alternative spellings."""
    required = {way["required"][0] for rule in body.get("allOf", ()) for way in rule.get("anyOf", ())}
    rows = []
    for name, value in body["properties"].items():
        if value["description"].startswith("Same as"):
            continue
        default = "required" if name in required else _shown_json(value.get("default"))
        rows.append(f"| `{name}` | {_fleet_type(value)} | {default} | {_cell(value['description'])} |")
    head = f"\n## {title}\n\n{body['description']}\n\n| key | type | default | |\n|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def _fleet_type(body: dict[str, Any]) -> str:
    if "enum" in body or "const" in body:
        return " or ".join(f"`{word}`" for word in body.get("enum", [body.get("const")]))
    if "$ref" in body:
        return {"SecretModel": "secret"}.get(body["$ref"].rsplit("/", 1)[-1], "mapping")
    if "anyOf" in body:
        # Values of other types also accept text, for a variable or a time; that alternative is left out.
        kinds = [_fleet_type(way) for way in body["anyOf"] if "pattern" not in way]
        timed = any("ms|s|m|h" in way.get("pattern", "") for way in body["anyOf"])
        return " or ".join(["time" if timed else kind for kind in kinds])
    if body.get("type") == "array":
        return f"list of {_fleet_type(body['items'])}"
    return {"object": "mapping", "string": "text", "boolean": "`true` or `false`"}.get(body["type"], str(body["type"]))


def _type(body: dict[str, Any]) -> str:
    kinds = [body, *body.get("anyOf", ())]
    names = [kind["type"] for kind in kinds if kind.get("type") not in (None, "null")]
    return " or ".join({"object": "mapping", "array": "list"}.get(name, name) for name in names)


def _shown_json(value: Any) -> str:
    return "–" if value in (None, {}, []) else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _paragraph(text: str) -> str:
    """Join the lines of each paragraph."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


if __name__ == "__main__":
    sys.exit(main())
