"""`garrison instance`: the group, put together."""

import typer

from garrison.base.errors import UsageError
from garrison.cli.options import app as make_app
from garrison.cli.server.instance import carrying, create, edit, logs, looking, starting

app = make_app("Create, list, start, stop, change and delete instances.", no_args_is_help=True)


@app.callback()
def _instance(context: typer.Context) -> None:
    """Create, list, start, stop, change and delete instances."""
    if context.obj and context.invoked_subcommand not in (None, "create"):
        raise UsageError(
            f"`garrison instance {context.invoked_subcommand}` accepts no arguments after --: {context.obj[0]!r}",
            hint=f"`garrison instance {context.invoked_subcommand} --help` shows the usage.",
        )


app.command("create")(create.create)
app.command("list")(looking.list_)
app.command("show")(looking.show)
app.command("start")(starting.start)
app.command("stop")(starting.stop)
app.command("restart")(starting.restart)
app.command("edit")(edit.edit)

app.command("delete")(starting.delete)
app.command("logs")(logs.logs)
app.command("explain")(looking.explain)
app.command("export")(carrying.export)
app.command("import")(carrying.import_)
