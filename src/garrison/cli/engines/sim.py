"""`garrison sim`: passes everything on to the simulator's own parser, whose flags are vLLM's."""

import typer

from garrison.cli.options import app as make_app

app = make_app("Run the vLLM simulator.")


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def sim(context: typer.Context) -> int:
    """Run the vLLM simulator. Its flags are vLLM's, plus some of its own that make it slow or faulty."""
    from garrison.sim.command import main

    return main([*context.args, *context.obj])
