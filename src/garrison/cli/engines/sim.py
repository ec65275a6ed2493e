"""`garrison sim`: passes everything on to the simulator's own parser, whose flags are vLLM's."""

from collections.abc import Sequence
from dataclasses import replace

import typer

from garrison.base.errors import GarrisonError, PortError, PortForeignError, UsageError
from garrison.cli.options import app as make_app
from garrison.cli.options import settings

app = make_app("Run the vLLM simulator.")


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def sim(context: typer.Context) -> int:
    """Run the vLLM simulator. Its flags are vLLM's, plus some of its own that make it slow or faulty."""
    from garrison.sim.command import run, unknown_flags

    argv = [*context.args, *context.obj]
    _require_known(unknown_flags(argv))
    try:
        return run(argv)
    except PortForeignError as error:
        raise _with_holder(error) from None


def _require_known(unknown: Sequence[str]) -> None:
    """Accept flags of vLLM, which the simulator ignores: it is started in place of one.

    Raises:
        UsageError: vLLM does not have one of them either.
    """
    if not unknown:
        return
    from garrison.engines.nearest import nearest_of
    from garrison.engines.registry import engine
    from garrison.sim.command import flags

    known = engine("vllm").catalogue().by_spelling()
    for flag in unknown:
        if flag.partition(".")[0] in known:
            continue
        near = nearest_of(flag, flags(), cutoff=0.6) or nearest_of(flag, known, cutoff=0.75)
        hint = f"Did you mean {near}?" if near else "`garrison sim --help` lists the flags; those of vLLM are ignored."
        raise UsageError(f"neither the simulator nor vLLM has the flag {flag}", hint=hint)


def _with_holder(error: PortForeignError) -> GarrisonError:
    """The error of a taken port, with the process that holds it where that is known."""
    if "port" not in error.details:
        return error
    from garrison.preflight.machine import Machine
    from garrison.preflight.policy import REFUSE
    from garrison.preflight.port import look_at_port
    from garrison.preflight.refusal import holder_details
    from garrison.preflight.report import PreflightRequest

    host, port = error.details["host"], error.details["port"]
    request = replace(PreflightRequest.from_settings(settings("endpoint", "preflight")), host=host, port=port)
    kind: type[PortError] = PortForeignError
    try:
        verdict = look_at_port(request, REFUSE, Machine(lambda _: None)).verdict
        details = holder_details(verdict.roots, verdict.listeners) if verdict is not None else {}
    except PortError as found:
        kind, details = type(found), found.details
    except GarrisonError:
        return error
    held = [
        f"pid {pid}: {line}" for pid, line in zip(details.get("pids", ()), details.get("cmdlines", ()), strict=True)
    ]
    if not held:
        return error
    return kind(
        f"port {port} of {host} is taken by {'; '.join(held)}",
        hint="Stop it, or choose another --port; 0 takes any that is free.",
        details=error.details | details,
    )
