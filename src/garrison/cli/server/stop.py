"""`garrison stop`."""

import asyncio

from garrison.cli.json_answer import answer
from garrison.cli.options import Json, settings
from garrison.cli.options import app as make_app
from garrison.cli.server.instance.arguments import Name
from garrison.cli.server.options import ServerUrl

app = make_app("Stop an instance, or a `garrison serve`.")


@app.command()
def stop(name: Name, server: ServerUrl = None, json: Json = False) -> int:
    """Stop an instance, or what a `garrison serve` runs, and return when nothing of it is left.

    A name is one of `garrison ps`; what `serve` runs is also found by its port or pid. It is stopped as by Ctrl-C.
    """
    from garrison.base.clock import SystemClock
    from garrison.cli.server.client import ServerClient
    from garrison.cli.server.instance.starting import stopped
    from garrison.cli.server.running import chosen, instances_here, this_machine
    from garrison.launch.served import stop_served

    values = settings("server", "instances", "preflight", "start", server_url=server)
    processes = this_machine()
    instances, told = instances_here(values)
    _, found = chosen(name, instances, values, processes)
    if not isinstance(found, str):
        stop_served(found, values, processes, SystemClock())
        gone = {"kind": "serve", "name": found.name, "pid": found.main.pid, "port": found.port}
        print(answer(gone) if json else f"stopped {found.name}, pid {found.main.pid}")
        return 0
    if not told:
        from garrison.server.left_running import stop_left_engines

        stopped_here = asyncio.run(stop_left_engines(values, "garrison stop", [name]))
        if json:
            print(answer({"kind": "instance", "name": name, "stopped": bool(stopped_here)}))
        else:
            print(f"stopped {name}" if stopped_here else f"{name} does not run")
        return 0
    with ServerClient(values) as there:
        now = stopped(there, name)
    print(answer({"kind": "instance", **now}) if json else f"{name} is {now['state']}: {now['reason']}")
    return 0
