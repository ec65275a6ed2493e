"""`garrison serve`."""

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TextIO, cast

import typer

from garrison.base.errors import EngineDiedError, EngineTimeoutError, UsageError
from garrison.base.output.live_stream import LiveStream
from garrison.base.presence import is_dir, is_missing
from garrison.base.redaction import shown_command, shown_variable
from garrison.base.settings import Settings
from garrison.base.systemd import notify
from garrison.cli.asker import asker
from garrison.cli.log import opened_log
from garrison.cli.options import Executable, Host, Log, Offline, Port, settings
from garrison.cli.options import app as make_app
from garrison.cli.serve.engine_flags import KnowsEngineFlags
from garrison.cli.serve.views.call_line import call_line
from garrison.cli.serve.views.start import start_view
from garrison.cli.serve.views.start_log import LogProgress, LogView
from garrison.cli.views.log_lines import show_tail
from garrison.cli.views.transfer import ShownProgress, choose
from garrison.engines.argv import Endpoint
from garrison.launch.run.view import StartView
from garrison.launch.serve import Prepared, prepare, start, start_by_exec
from garrison.launch.spec import AdapterSpec, LaunchSpec
from garrison.models.layout import Layout
from garrison.models.same_name import Meant, meant

_DRAIN_SECONDS = 1.0

_SIMULATED_MODEL = "acme/tiny"
"""What the simulator serves where nothing is named: it has no weights."""

app = make_app("Bring a model from a name to a live OpenAI endpoint: preflight, resolve, start.")

_MANIFESTS = (".yaml", ".yml", ".json", ".toml")
_GROUPS = ("endpoint", "preflight", "start", "model")


@app.command(
    cls=KnowsEngineFlags,
    epilog="Everything after -- goes to the engine verbatim: garrison serve org/name -- --max-model-len 4096",
)
def serve(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            help="A name (org/name, org/name@revision, org/name:Q4_K_M), a directory, or a file.", show_default=False
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            "-f",
            help="A manifest of one server, instead of a model. Default: serve.yaml, else garrison.yaml.",
        ),
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", "-e", help="vllm (the default), llama_cpp, mlx_lm or sim.")
    ] = None,
    executable: Executable = None,
    host: Host = None,
    port: Port = None,
    name: Annotated[str | None, typer.Option("--served-model-name", help="Model name in answers.")] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option("--adapter", "-a", metavar="NAME=PATH", help="A LoRA adapter to serve; repeatable."),
    ] = None,
    runtime_lora: Annotated[
        bool, typer.Option("--runtime-lora", help="Allow loading and unloading adapters while it runs.")
    ] = False,
    max_lora_rank: Annotated[int | None, typer.Option(min=1, help="The highest adapter rank to allow.")] = None,
    max_loras: Annotated[int | None, typer.Option(min=1, help="Adapters in one batch.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="The variable that holds the key that clients must send.")
    ] = None,
    offline: Offline = False,
    verify: Annotated[bool, typer.Option("--verify", help="Check every file of the model against its digest.")] = False,
    replace_process: Annotated[
        bool, typer.Option("--exec", help="Replace this process with the engine instead of staying its parent.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Resolve the model and print the command; stop and start nothing.")
    ] = False,
    print_cmd: Annotated[bool, typer.Option("--print-cmd", help="Print the engine's command, then run it.")] = False,
    may_replace: Annotated[
        bool, typer.Option("--replace", help="Stop your own engine that holds the port. Default: ask, or refuse.")
    ] = False,
    ready_timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds to become ready. Default: as long as it makes progress.")
    ] = None,
    logs: Annotated[
        bool | None, typer.Option("--logs/--no-logs", help="Show the engine's log. Default: only without a terminal.")
    ] = None,
    detached: Annotated[
        bool, typer.Option("--detach", help="Return when it is ready, and leave it in the background.")
    ] = False,
    log: Log = None,
) -> int:
    """Bring a model from a name to a live OpenAI endpoint: preflight, resolve, start.

    By default Garrison stays the engine's parent: it shows the phases of the start, passes signals on, and leaves no
    process behind. Ctrl-C stops the engine; a second one kills it.
    """
    _refuse_empty(
        {
            "MODEL": model,
            "--engine": engine,
            "--host": host,
            "--served-model-name": name,
            "--api-key-env": api_key_env,
            "--adapter": "" if "" in (adapter or ()) else None,
        }
    )
    flags = {"engine_host": host, "engine_port": port, "ready_timeout": ready_timeout, "log_format": log}
    values = settings(*_GROUPS, "log", **flags)
    if replace_process or dry_run:  # nothing of Garrison runs for long
        values = replace(values, log_format=None)
    found = None if model is None or file is not None else _meant(model, values)
    logged = context.with_resource(opened_log(values, "serve", model=model, manifest=file))
    spec = _spec(model if found is None else found.text, file, values, engine=engine)
    spec = replace(
        spec,
        host=host or spec.host,
        port=port or spec.port,
        executable=executable or spec.executable,
        served_name=name or spec.served_name,
        args=(*spec.args, *context.obj),
        adapters=(*spec.adapters, *(_adapter(text) for text in adapter or ())),
        runtime_lora=runtime_lora or spec.runtime_lora,
        max_loras=max_loras or spec.max_loras,
        max_lora_rank=max_lora_rank or spec.max_lora_rank,
        api_key_env=api_key_env or spec.api_key_env,
    )
    dry_run = dry_run or values.dry_run
    if detached:
        if dry_run or replace_process:
            raise UsageError("--detach goes with neither --dry-run nor --exec", hint="Omit one of them.")
        return _detached(spec, values)
    view = LogView(logs=_shows_logs(logs)) if logged else start_view(logs=logs)
    if found is not None and found.word is not None:
        view.note(found.word)
    with LogProgress() if logged else choose(json_lines=False) as progress:
        prepared = prepare(
            spec,
            values,
            os.environ,
            view=view,
            progress=_Transfers(progress),
            offline=offline,
            verify=verify,
            may_replace=may_replace,
            ask=None if dry_run else asker(view.note),
        )
    if dry_run or print_cmd:
        _print_command(prepared)
    if dry_run:
        return 0
    if replace_process:
        start_by_exec(prepared, values, os.environ, view)
    if isinstance(view, LogView):
        return start(prepared, values, os.environ, _WithCall(view, prepared))
    return _start(prepared, values, logs=logs)


def _refuse_empty(given: Mapping[str, str | None]) -> None:
    """An unset variable of a script, as in `--api-key-env "$NAME"`, must not stand for a default."""
    for name, text in given.items():
        if text == "":
            raise UsageError(f"there is no value for {name}", hint="Give it a value, or leave it out.")


def _shows_logs(logs: bool | None) -> bool:
    return not sys.stderr.isatty() if logs is None else logs


def _start(prepared: Prepared, values: Settings, *, logs: bool | None) -> int:
    # From here on one event loop handles the engine's output and the signals. A reader of this process's output that
    # stops reading must not block it.
    out = LiveStream(sys.stderr)
    view = start_view(logs=logs, out=cast("TextIO", out))
    try:
        return start(prepared, values, os.environ, _WithCall(view, prepared))
    except (EngineDiedError, EngineTimeoutError) as error:
        out.drain(_DRAIN_SECONDS)
        if not view.logs:
            show_tail(error.details)
        raise
    finally:
        out.drain(_DRAIN_SECONDS)


def _detached(spec: LaunchSpec, values: Settings) -> int:
    from garrison.cli.serve.detached import detach

    own = list(sys.argv[1:])
    own.remove("--detach")
    if not {"--logs", "--no-logs"} & set(own):
        at = own.index("--") if "--" in own else len(own)
        own.insert(at, "--no-logs")  # the engine's log has a file of its own
    log = values.data_dir / "logs" / f"serve-{spec.port}.log"
    return detach(own, log, f"http://{spec.host}:{spec.port}/v1")


class _WithCall:
    """The view, with a command to paste after `ready`, which systemd is told, too."""

    def __init__(self, view: StartView, prepared: Prepared) -> None:
        self._prepared = prepared
        self.note, self.starting, self.phase, self.line = view.note, view.starting, view.phase, view.line
        self.stopping, self.stopped, self.end = view.stopping, view.stopped, view.end
        self._ready, self._running, self._reached = view.ready, view.running, view.reached

    def ready(self, *, seconds: float, memory_bytes: int) -> None:
        notify("READY=1")
        self._ready(seconds=seconds, memory_bytes=memory_bytes)

    def running(self, why: str, *, seconds: float, memory_bytes: int) -> None:
        notify("READY=1")
        self._running(why, seconds=seconds, memory_bytes=memory_bytes)

    def reached(self, endpoint: Endpoint) -> None:
        self._reached(endpoint)
        line = call_line(endpoint, self._prepared.served_name, self._prepared.spec.api_key_env)
        if line is not None:
            self.note(f"try it: {line}")


class _Transfers:
    """Progress of a resolve, without what the search finds: sources that lack the model are named in the error if all
    do."""

    def __init__(self, progress: ShownProgress) -> None:
        self._progress = progress
        self.started, self.advanced, self.finished = progress.started, progress.advanced, progress.finished

    def step(self, name: str, **facts: Any) -> None:
        if name in ("tried", "found"):
            facts.pop("message", None)
        self._progress.step(name, **facts)


def _meant(model: str, values: Settings) -> Meant:
    return meant(model, Layout.from_settings(values))


def _is_there(path: Path) -> bool:
    """Whether there is a file, or something that this user may not look at: reading says why."""
    return not is_missing(path) and not is_dir(path)


def _spec(model: str | None, file: Path | None, values: Settings, *, engine: str | None) -> LaunchSpec:
    from garrison.launch.manifest import default_manifest, load_manifest

    if file is None and model is None:
        file = default_manifest(Path())
    if file is None and model is not None and model.endswith(_MANIFESTS) and _is_there(Path(model)):
        file, model = Path(model), None
    if file is not None and model is not None:
        raise UsageError("give a model or a manifest, not both", hint="Omit MODEL, or omit --file.")
    if file is not None:
        return load_manifest(file, host=values.engine_host, port=values.engine_port, engine=engine)
    if model is None and (values.model or values.model_id):
        model = values.model_id or "/".join(part for part in (values.model_org, values.model) if part)
    if model is None and engine == "sim":
        model = _SIMULATED_MODEL
    if model is None:
        raise UsageError(
            "no model given, and neither serve.yaml nor garrison.yaml in this directory",
            hint="Run garrison serve org/name, garrison serve ./directory, or garrison serve --file garrison.yaml.",
        )
    return LaunchSpec(model=model, engine=engine or "vllm", host=values.engine_host, port=values.engine_port)


def _adapter(text: str) -> AdapterSpec:
    name, equals, source = text.partition("=")
    if not equals:
        return AdapterSpec(Path(text).name, text)
    if not name or not source:
        raise UsageError(f"--adapter {text!r} is not NAME=PATH", hint="For example: --adapter sql=/models/adapters/sql")
    return AdapterSpec(name, source)


def _print_command(prepared: Prepared) -> None:
    made = prepared.command
    variables = [shown_variable(name, value) for name, value in sorted(made.env.items())]
    variables += [f'{name}="${source}"' for name, source in sorted(made.env_from.items())]
    print(" ".join(["CMD:", *variables, shown_command(made.argv)]), file=sys.stderr)
