"""`garrison preflight`: the checks of `vllm-preflight`, with flags and Garrison's own defaults and policy."""

import os
import sys
from typing import Annotated

import typer

from garrison.cli.asker import asker
from garrison.cli.json_answer import answer
from garrison.cli.options import Host, Json, Port, settings
from garrison.cli.options import app as make_app
from garrison.cli.scripts.vllm_preflight import run
from garrison.launch.downstream_endpoint import as_the_command_says
from garrison.launch.port_server import MachineServers
from garrison.preflight.policy import REFUSE, REPLACE

app = make_app("Check and reclaim the port, check the GPUs.")


@app.command(
    context_settings={"allow_interspersed_args": False, "help_option_names": ["-h", "--help"]},
    epilog="A command after the options is started if the checks pass: garrison preflight -- vllm serve …",
)
def preflight(
    context: typer.Context,
    command: Annotated[list[str] | None, typer.Argument(help="A downstream command.", show_default=False)] = None,
    host: Host = None,
    port: Port = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would happen; signal nothing.")] = False,
    skip_gpu: Annotated[bool, typer.Option("--skip-gpu-check", help="Skip all GPU checks.")] = False,
    stop_timeout: Annotated[
        int | None, typer.Option(min=0, help="Seconds from SIGTERM to SIGKILL. Default: 15.")
    ] = None,
    bind_timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds for COMMAND to bind. Default: as long as it makes progress.")
    ] = None,
    exec_command: Annotated[
        bool, typer.Option("--exec", help="Replace this process by COMMAND instead of staying its parent.")
    ] = False,
    may_replace: Annotated[
        bool, typer.Option("--replace", help="Stop your own engine that holds the port. Default: ask, or refuse.")
    ] = False,
    json: Json = False,
) -> int:
    """Check the port and free it, check the GPUs, then run a command if one is given.

    Your own vLLM, or an engine that you started with Garrison, is stopped while it works only if you pass --replace or
    agree at the terminal; vllm-preflight stops a vLLM without asking. Exit codes 0 to 5 are those of vllm-preflight:
    2 held by something else, or not stopped, 3 held by another user's vLLM, 4 not attributable, 5 did not stop.
    """
    values = settings(
        "endpoint", "preflight", "start",
        engine_host=host,
        engine_port=port,
        dry_run=dry_run or None,
        skip_gpu_check=skip_gpu or None,
        stop_timeout=stop_timeout,
        start_bind_timeout=bind_timeout,
        preflight_proxy_child=False if exec_command else None,
        preflight_json=json or None,
    )  # fmt: skip
    words = [*(command or ()), *context.obj]
    values = as_the_command_says(values, words, os.environ)
    return run(
        values,
        words,
        json=values.preflight_json,
        say=_say,
        policy=REPLACE if may_replace else REFUSE,
        servers=MachineServers(values.engine_port),
        ask=None if values.preflight_json or values.dry_run else asker(_say),
        shape=answer,
    )


def _say(sentence: str) -> None:
    print(f"garrison: {sentence}", file=sys.stderr)
