"""`garrison instance edit`."""

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from garrison.api.instances.own_options import own_options
from garrison.base.errors import DeclinedError, InvalidError, UsageError
from garrison.cli.asker import confirm
from garrison.cli.json_answer import answer
from garrison.cli.options import Json
from garrison.cli.server.client import ServerClient
from garrison.cli.server.instance.arguments import Name, Yes
from garrison.cli.server.instance.calls import Instance, path_of, print_notes, with_tag
from garrison.cli.server.instance.documents import as_yaml, options_in, read_file
from garrison.cli.server.instance.options import Options, changed, patch_of, restarts
from garrison.cli.server.options import ServerUrl, client

__all__ = ["edit"]

_HEAD = """\
# Instance {name}. Save and close the editor to change it; leave it as it is, or empty, to change nothing.
"""


def edit(
    name: Name,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change an option; repeatable.")
    ] = None,
    unsets: Annotated[
        list[str] | None, typer.Option("--unset", metavar="KEY", help="Take an option away; repeatable.")
    ] = None,
    yes: Yes = False,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """Change an instance: in your $EDITOR, or with --set and --unset.

    A key is an option of the instance (idle, pin, group, on_demand, memory, devices, env.NAME) or of its engine
    (max_model_len). If the change restarts an instance that runs, the command asks first; elsewhere than on a terminal
    it needs --yes. Nothing is changed if somebody else changed the instance in the meantime.
    """
    patch = patch_of(sets or (), unsets or ())
    if not patch and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "there is no terminal for an editor, and no --set or --unset",
            hint=f"garrison instance edit {name} --set idle=30m",
        )
    with client(server) as there:
        found, tag = with_tag(there, name)
        before = own_options(found)
        after = changed(before, patch) if patch else _edited(name, before)
        if after == before:
            print(answer(found) if json else f"{name} is unchanged")
            return 0
        _ask(found, before, after, yes=yes, json=json)
        sent = _send(there, name, tag, patch, after)
    restarted = bool(sent.get("restarted"))
    if json:
        print(answer(sent))
    else:
        print_notes(sent)
        print(f"changed {name}" + (", and restarted it" if restarted else ""))
    return 0


def _send(server: ServerClient, name: str, tag: str, patch: Options, after: Options) -> Instance:
    method, body = ("PATCH", patch) if patch else ("PUT", after)
    found: Instance = server.exchange(method, path_of(name), body=body, headers={"If-Match": tag}).body
    return found


def _ask(found: Instance, before: Options, after: Options, *, yes: bool, json: bool) -> None:
    """Ask where a running engine would be restarted."""
    running = found["state"] in ("running", "starting", "sleeping", "draining", "restarting") or "loading" in found
    if yes or not running or not restarts(before, after):
        return
    if json:
        raise UsageError("this restarts the instance, and --json does not ask", hint="Confirm with --yes (-y).")
    busy = found.get("requests", 0)
    confirm(f"Restart {found['name']} for it" + (f", with {busy} requests in progress" if busy else "") + "?")


def _edited(name: str, before: Options) -> Options:
    """What a person makes of the options.

    Raises:
        DeclinedError: the file is empty.
        InvalidError: it cannot be read any more; it is kept.
        UsageError: there is no editor.
    """
    directory = Path(tempfile.mkdtemp(prefix="garrison-"))  # mode 0700: the options may have secrets
    path = directory / f"{name}.yaml"
    path.write_text(_HEAD.format(name=name) + as_yaml(before), encoding="utf-8")
    words = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    try:
        code = subprocess.run([*words, str(path)], check=False).returncode
    except OSError as error:
        _remove(path)
        raise UsageError(f"the editor {words[0]!r} cannot be run: {error.strerror}", hint="Set EDITOR.") from None
    if code != 0:
        raise UsageError(f"the editor ended with {code}; nothing was changed", hint=f"What you wrote is in {path}.")
    try:
        content = read_file(str(path))
        if content is None:
            _remove(path)
            raise DeclinedError("Nothing was done.")
        after = options_in(content, str(path))
    except InvalidError as error:
        raise InvalidError(error.message, hint=f"What you wrote is in {path}; nothing was changed.") from None
    _remove(path)
    return after


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
        path.parent.rmdir()
