"""`garrison resolve`."""

import os
from typing import Annotated

import typer

from garrison.cli.json_answer import answer
from garrison.cli.options import Json, Offline, settings
from garrison.cli.options import app as make_app
from garrison.cli.scripts.vllm_resolve_model import run
from garrison.cli.views.transfer import choose
from garrison.models.hub_caches import user_hub_caches
from garrison.models.layout import Layout
from garrison.models.same_name import meant

app = make_app("Find or fetch a model and pin it.")


@app.command()
def resolve(
    model: Annotated[
        str | None,
        typer.Argument(
            help="org/name, org/name@revision, org/name:Q4_K_M, a directory or a .gguf file. Default: VLLM_MODEL.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", help="flox, local, hf-cache, r2 or hf-hub; repeatable, tried in order."),
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option("--allow", metavar="PATTERN", help="Fetch only matching files; repeatable.")
    ] = None,
    offline: Offline = False,
    verify: Annotated[bool, typer.Option("--verify", help="Check every file against its digest.")] = False,
    skip_tokenizer: Annotated[
        bool, typer.Option("--skip-tokenizer-check", help="Accept a model without tokenizer files.")
    ] = False,
    json: Json = False,
) -> int:
    """Find or fetch a model and pin it.

    Prints a path that names one version of the model and keeps naming it. With
    --json, prints one JSON object per step; the last has the path. Exit codes: 10
    not found, 11 broken, 12 fetch failed, 13 locked, 14 disk full.
    """
    flags = {"model_sources": _sources(source)} if source else {}
    values = settings("model", **flags)
    with choose(json_lines=json) as progress:
        if model is not None:
            named = meant(model, Layout.from_settings(values))
            model = named.text
            if named.word is not None:
                progress.step("remark", message=f"note: {named.word}")
        found = run(
            values,
            model,
            progress=progress,
            offline=offline,
            verify=verify,
            skip_tokenizer=skip_tokenizer or None,
            allow_patterns=tuple(allow or ()),
            hub_caches=user_hub_caches(os.environ),
        )
    print(answer({"step": "resolved", **found}) if json else found["path"])
    return 0


def _sources(given: list[str]) -> tuple[str, ...]:
    from garrison.base import values
    from garrison.base.errors import UsageError
    from garrison.base.settings import SOURCES

    try:
        return tuple(values.csv(SOURCES)(",".join(given)))
    except ValueError as error:
        raise UsageError(f"--source must be {error}", hint="For example: --source local --source hf-cache") from None
