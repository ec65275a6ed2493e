"""`garrison instance export` and `import`."""

from typing import Annotated

import typer

from garrison.api.instances.own_options import own_options
from garrison.base.errors import ApplyFailedError, ConflictError, GarrisonError
from garrison.cli.json_answer import answer
from garrison.cli.options import Json
from garrison.cli.server.client import ServerClient
from garrison.cli.server.instance.calls import all_instances, instance, path_of
from garrison.cli.server.instance.documents import as_yaml, exported, instances_of, read_file
from garrison.cli.server.instance.options import Options
from garrison.cli.server.options import ServerUrl, client

__all__ = ["export", "import_"]


def export(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One instance. Default: all.", show_default=False)
    ] = None,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """Print what instances are, as YAML that `import` reads. It has the values of their variables."""
    with client(server) as there:
        found = all_instances(there, local=True) if name is None else [instance(there, name)]
        document = exported({one["name"]: own_options(one) for one in found})
    print(answer(document) if json else as_yaml(document), end="\n" if json else "")
    return 0


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="YAML or JSON of an export; - reads standard input.")],
    replace: Annotated[bool, typer.Option("--replace", help="Replace those that exist. Default: skip them.")] = False,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """Create the instances of an export. Those that exist are skipped, or replaced with --replace.

    Nothing is started. A replaced one that runs is restarted if its engine's command changes.
    """
    wanted = instances_of(read_file(file), file)
    done: dict[str, str] = {}
    failed: dict[str, GarrisonError] = {}
    with client(server) as there:
        for name, options in wanted.items():
            try:
                done[name] = _put(there, name, options, replace=replace)
            except GarrisonError as error:
                if error.code == "unreachable":
                    raise
                failed[name] = error
            if not json:
                print(f"{name}: {done[name]}" if name in done else f"{name}: failed: {failed[name].message}")
    if failed:
        raise ApplyFailedError(
            f"{len(failed)} of {len(wanted)} instances could not be imported",
            hint=next(iter(failed.values())).hint,
            details={"done": done, "failed": {name: error.message for name, error in failed.items()}},
        )
    if json:
        print(answer({"done": done}))
    return 0


def _put(server: ServerClient, name: str, options: Options, *, replace: bool) -> str:
    try:
        server.call("POST", path_of(name), body=options)
    except ConflictError as error:
        if error.details.get("instance") != name:  # its port is another's, or there are too many
            raise
        if not replace:
            return "exists, skipped"
        now = server.call("PUT", path_of(name), body=options)
        return "replaced, and restarted" if now.get("restarted") else "replaced"
    return "created"
