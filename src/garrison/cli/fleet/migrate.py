"""`garrison migrate`."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from garrison.cli.json_answer import answer
from garrison.cli.options import Json
from garrison.cli.options import app as make_app

app = make_app("Write the manifest that is the equivalent of another system's configuration.")


class System(StrEnum):
    """A system whose configuration can be read."""

    LLAMACTL = "llamactl"
    LLAMA_SWAP = "llama-swap"
    OLLAMA = "ollama"


@app.command()
def migrate(
    system: Annotated[System, typer.Argument(help="Whose configuration it is.", show_default=False)],
    configs: Annotated[
        list[Path],
        typer.Argument(
            metavar="CONFIG",
            help="Its files. llamactl: config, database or exported instances. llama-swap: config. ollama: Modelfiles, "
            "an environment file or a systemd unit.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the manifest to this file. Default: standard output.", show_default=False
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Write the manifest that is the equivalent of another system's configuration.

    What has no equivalent, or is not quite the same, is listed on standard
    error and in comments of the manifest. Nothing is started, and values of
    secrets are not copied. An existing file is not overwritten.
    """
    import os

    from garrison.base.errors import InvalidError
    from garrison.base.files import is_disk_full, write_atomic
    from garrison.base.presence import exists
    from garrison.cli.views.page import counted, plain
    from garrison.migrate.sources import migrate as read
    from garrison.migrate.write import manifest_text, read_back

    if output is not None and exists(output):
        _refuse(output)
    found = read(system.value, configs, os.environ.get("HOME", ""))
    text = manifest_text(found, f"{system.value} ({', '.join(map(str, configs))})")
    read_back(text, Path.cwd())
    if output is not None:
        try:
            write_atomic(output.absolute(), text, mode=0o644)
        except OSError as error:
            if is_disk_full(error):
                raise
            raise InvalidError(f"cannot write {output}: {error.strerror}", hint="Name another file.") from None
    remarks = [one.to_json() for one in found.remarks]
    if json:
        print(answer({"manifest": text, "settings": found.settings, "remarks": remarks}))
        return 0
    if output is None:
        print(text, end="")
    else:
        print(f"{output}: {counted(len(found.instances), 'instance')}, {counted(len(found.routes), 'route')}")
    for name, value in sorted(found.settings.items()):
        print(f"setting: {name}={plain(value)}", file=sys.stderr)
    for one in found.remarks:
        print(f"note: {plain(one.where)}: {plain(one.text)}", file=sys.stderr)
    return 0


def _refuse(output: Path) -> None:
    from garrison.base.errors import ConflictError

    raise ConflictError(f"{output} exists and is not overwritten", hint="Name another file with --output.")
