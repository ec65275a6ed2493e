"""`garrison smoke`."""

import asyncio
import os
from typing import Annotated

import typer

from garrison.base.errors import InvalidError
from garrison.base.exit_codes import ExitCode
from garrison.base.redaction import SecretValueError, redacted, redacted_value, secret_text
from garrison.cli.json_answer import answer
from garrison.cli.options import Insecure, Json, KeyEnv, settings
from garrison.cli.options import app as make_app
from garrison.launch.run.address import local_port, place
from garrison.launch.smoke import SmokeStep
from garrison.launch.smoke import smoke as run_smoke

app = make_app("Try each API of an endpoint and report which work.")

_MARKS = {"ok": "[green]✓[/]", "failed": "[bold red]✗[/]", "skipped": "[dim]–[/]"}


@app.command()
def smoke(
    url: Annotated[
        str, typer.Argument(help="http://host:port, https://…, unix:/path, or a port here; /v1 at the end is ignored.")
    ],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The model to ask; default: the first listed.")
    ] = None,
    key_env: KeyEnv = None,
    timeout: Annotated[float, typer.Option("--timeout", "-t", min=0.1, help="Seconds for each answer.")] = 60.0,
    insecure: Insecure = False,
    json: Json = False,
) -> int:
    """Try health, models, completion, chat, streaming chat and adapters; print the result, time and reason of each.

    Exit code 0 if nothing failed, 31 if something did.
    """
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)

    def show(step: SmokeStep) -> None:
        if not json:
            mark = _MARKS[step.outcome]
            detail = escape(redacted(step.detail))
            console.print(f"{mark} {escape(f'{step.name:<16}')} [dim]{step.seconds * 1000:7.0f} ms[/]  {detail}")

    key = _key(key_env)
    served = None if model is not None else _served_here(url)
    report = asyncio.run(
        run_smoke(url, model=model, served=served, key=key, timeout=timeout, insecure=insecure, on_step=show)
    )
    code = ExitCode.OK if report.ok else ExitCode.UNREACHABLE
    if json:
        print(answer(redacted_value(report.to_json()), code=code))
    else:
        failed = sum(step.outcome == "failed" for step in report.steps)
        result = (
            f"[bold red]{failed} of {len(report.steps)} checks failed[/]"
            if failed
            else "[bold green]all checks passed[/]"
        )
        console.print(f"{result} at {report.url}")
        if report.hint:
            console.print(f"[dim]  →[/] {escape(report.hint)}")
    return code


def _served_here(url: str) -> str | None:
    """The name of what Garrison serves at `url`, if that is a port of this machine."""
    port = local_port(place(url))
    if port is None:
        return None
    from garrison.cli.server.running import this_machine
    from garrison.launch.served import name_served_at
    from garrison.preflight.engine_records import read_records

    return name_served_at(port, read_records(settings().engine_records).engines, this_machine())


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise InvalidError(f"variable {variable} is not set", hint=f"export {variable}=…, or omit --key-env.")
    try:
        return secret_text(os.environ[variable])
    except SecretValueError as error:
        raise InvalidError(f"variable {variable} {error}", hint=f"Export {variable} again.") from None
