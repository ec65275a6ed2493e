"""`garrison doctor`."""

import os
from collections.abc import Sequence

from garrison.base.exit_codes import ExitCode
from garrison.cli.json_answer import answer
from garrison.cli.options import Host, Json, Offline, Port, settings
from garrison.cli.options import app as make_app
from garrison.launch.doctor.machine import machine_facts
from garrison.launch.doctor.report import Check, checks

app = make_app("Check whether this machine can serve, with a remedy for each failure.")

_MARKS = {"ok": ("✓", "green"), "skipped": ("–", "dim"), "warn": ("!", "yellow"), "fail": ("✗", "bold red")}


@app.command()
def doctor(host: Host = None, port: Port = None, offline: Offline = False, json: Json = False) -> int:
    """Check whether this machine can serve, and show a remedy for each failure.

    Marks: ✓ passed, ! warning, ✗ failed, – not checked. Exit code 1 when a check fails.
    """
    facts = machine_facts(
        settings("endpoint", "preflight", "model", engine_host=host, engine_port=port), os.environ, offline=offline
    )
    found = checks(facts)
    healthy = all(check.status != "fail" for check in found)
    code = ExitCode.OK if healthy else ExitCode.INVALID
    if json:
        print(answer({"checks": [check.to_json() for check in found]}, code=code))
    else:
        _show(found, healthy=healthy)
    return code


def _show(found: Sequence[Check], *, healthy: bool) -> None:
    from rich.text import Text

    from garrison.cli.views.page import Page, counted, plain

    page = Page()
    width = max(len(check.name) for check in found)
    for check in found:
        mark, style = _MARKS[check.status]
        head = Text.assemble((mark, style), " ", (f"{check.name:<{width}}", "bold"), "  ")
        for number, line in enumerate(check.value.splitlines() or [""]):
            page.entry(Text(" " * head.cell_len) if number else head, Text(plain(line)))
        if check.remedy:
            page.entry(Text.assemble(" " * head.cell_len, ("→ ", "dim")), Text(plain(check.remedy)))
    red = sum(check.status == "fail" for check in found)
    yellow = sum(check.status == "warn" for check in found)
    page.blank()
    page.line(
        ("This machine can serve", "bold green")
        if healthy
        else (f"This machine is not ready to serve: {red} of {len(found)} checks failed", "bold red"),
        f", {counted(yellow, 'warning')}." if yellow else ".",
    )
