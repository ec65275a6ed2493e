"""`garrison ps`."""

import sys
from datetime import UTC, datetime

from garrison.cli.json_answer import answer
from garrison.cli.options import Json, settings
from garrison.cli.options import app as make_app
from garrison.cli.server.options import ServerUrl

app = make_app("List what runs: instances, and what `garrison serve` started.")


@app.command()
def ps(server: ServerUrl = None, json: Json = False) -> int:
    """List instances, and what `garrison serve` runs on this machine.

    Instances are those of this data directory's server; where none runs, as the database has them and with what still
    lives. With --server only the instances there are listed.
    """
    from garrison.cli.server.running import instances_here, this_machine, what_runs
    from garrison.cli.server.views.ps import show_runs
    from garrison.cli.views.page import Page
    from garrison.launch.served import served_engines

    values = settings("server", server_url=server)
    instances, told = instances_here(values)
    served = () if values.server_url is not None else served_engines(values, this_machine())
    rows = what_runs(instances, served)
    if json:
        print(answer({"runs": rows}))
        return 0
    show_runs(Page(), rows, datetime.now(UTC))
    if instances and not told:
        print("no server runs here; its instances are as it left them", file=sys.stderr)
    return 0
