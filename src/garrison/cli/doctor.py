"""`garrison doctor`."""

import json as json_module
import os

from garrison.base.exit_codes import ExitCode
from garrison.cli.options import Host, Json, Offline, Port, settings
from garrison.cli.options import app as make_app
from garrison.launch.doctor.machine import machine_facts
from garrison.launch.doctor.report import checks

app = make_app("Check whether this machine can serve, with a remedy for each failure.")

_MARKS = {"ok": "[green]✓[/]", "skipped": "[dim]–[/]", "warn": "[yellow]![/]", "fail": "[bold red]✗[/]"}


@app.command()
def doctor(host: Host = None, port: Port = None, offline: Offline = False, json: Json = False) -> int:
    """Check whether this machine can serve, and show a remedy for each failure.

    Marks: ✓ passed, ! warning, ✗ failed, – not checked. Exit code 1 when a check fails.
    """
    facts = machine_facts(
        settings("endpoint", "preflight", "model", engine_host=host, engine_port=port), os.environ, offline=offline
    )
    page = checks(facts)
    healthy = all(check.status != "fail" for check in page)
    if json:
        print(json_module.dumps({"ok": healthy, "checks": [check.to_json() for check in page]}, ensure_ascii=False))
        return ExitCode.OK if healthy else ExitCode.INVALID
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for check in page:
        value = escape(check.value) + (f"\n[dim]→[/] {escape(check.remedy)}" if check.remedy else "")
        table.add_row(_MARKS[check.status], check.name, value)
    console = Console(highlight=False)
    console.print(table)
    red = sum(check.status == "fail" for check in page)
    yellow = sum(check.status == "warn" for check in page)
    failed = f"[bold red]This machine is not ready to serve: {red} of {len(page)} checks failed"
    verdict = "[bold green]This machine can serve" if healthy else failed
    console.print(f"\n{verdict}[/]" + (f", {yellow} warning{'s' if yellow > 1 else ''}." if yellow else "."))
    return ExitCode.OK if healthy else ExitCode.INVALID
