"""Instances as a table, and one of them in full."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from garrison.base.redaction import shown_variable
from garrison.base.values import size_text
from garrison.cli.views.age import ago, duration
from garrison.cli.views.columns import Column, show_rows
from garrison.cli.views.page import Page, counted, plain, sentence
from garrison.engines.llama_router import RouterModel, is_router, models_of

__all__ = ["STATE_STYLES", "age_of", "facts_of", "memory_text", "show_instance", "show_instances", "table_of"]

Instance = Mapping[str, Any]
NONE = "–"

STATE_STYLES = {
    "running": "green",
    "starting": "cyan",
    "restarting": "yellow",
    "draining": "yellow",
    "sleeping": "blue",
    "failed": "bold red",
    "stopped": "dim",
}
_COLUMNS = (
    Column("name", least=12),
    Column("state", styles=STATE_STYLES),
    Column("since", right=True),
    Column("engine"),
    Column("model", least=10, keeps_end=True),
    Column("port", right=True),
    Column("memory", right=True),
    Column("requests", right=True),
)


def table_of(found: Sequence[Instance], now: datetime) -> list[list[str]]:
    """The cells of the table: name, state, since, engine, model, port, memory, requests."""
    return [_cells(one, now) for one in found]


def show_instances(page: Page, found: Sequence[Instance], now: datetime) -> None:
    """Print the table; on a terminal with the reason of each failure below its row."""
    if not found:
        page.line("no instances; `garrison instance create NAME -- vllm serve MODEL` makes one")
        return
    columns: Sequence[Column] = _COLUMNS
    cells = table_of(found, now)
    if len({one.get("node") for one in found}) > 1:
        columns = (_COLUMNS[0], Column("node"), *_COLUMNS[1:])
        cells = [[row[0], _node(one), *row[1:]] for row, one in zip(cells, found, strict=True)]
    title, *lines = show_rows(page, columns, cells)
    page.print(title)
    for one, line in zip(found, lines, strict=True):
        page.print(line)
        if page.wraps and one["state"] in ("failed", "restarting") and one.get("reason"):
            page.entry(Text("  └ ", "dim"), Text(plain(str(one["reason"]))))


def show_instance(page: Page, found: Instance, now: datetime) -> None:
    """Print everything about one instance."""
    state = str(found["state"])
    page.line((f"{found['name']}  ", "bold"), (state, STATE_STYLES.get(state, "")))
    for name, value in facts_of(found, now):
        page.entry(Text(f"  {name:<11} ", "dim"), Text(plain(value)))


def facts_of(found: Instance, now: datetime) -> Iterator[tuple[str, str]]:
    """The facts about an instance that are there, each with its name."""
    options = found["options"]
    yield "since", f"{ago(_time(found.get('since')), now)}" + (f", {found['reason']}" if found.get("reason") else "")
    yield "engine", str(options.get("backend_type", NONE))
    yield "model", _model(options)
    if _is_router(options) and (models := _models(found)):
        yield "models", models
    for name in ("port", "pid", "node", "stack"):
        if found.get(name) is not None:
            yield name, str(found[name])
    if found.get("devices"):
        yield "devices", ", ".join(map(str, found["devices"]))
    if found.get("memory"):
        each = (f"{size_text(count)} on {device}" for device, count in found["memory"].items())
        yield "memory", ", ".join(each)
    yield "requests", f"{found.get('requests', 0)} in progress, {found.get('waiting', 0)} waiting"
    yield "on demand", _on_demand(options)
    for name in ("group", "priority", "command_override"):
        if options.get(name):
            yield name.replace("_override", ""), str(options[name])
    if options.get("pin"):
        yield "pin", "it is never evicted"
    for key, value in (options.get("backend_options") or {}).items():
        if key != "model":
            yield "option", f"{key} = {value}"
    for key, value in (options.get("environment") or {}).items():
        yield "variable", shown_variable(key, str(value))
    if (seconds := (found.get("costs") or {}).get("start_seconds")) is not None:
        yield "last start", f"took {seconds:.1f} s"
    if diagnosis := (found.get("failure") or {}).get("hint"):
        yield "next step", str(diagnosis)


def age_of(found: Instance, now: datetime) -> str:
    """How long it has been in its state."""
    since = _time(found.get("since"))
    return NONE if since is None else duration(max(0.0, (now - since).total_seconds()))


def memory_text(found: Instance) -> str:
    """What it holds on all devices together."""
    held = found.get("memory") or {}
    return size_text(sum(held.values())) if held else NONE


def _cells(one: Instance, now: datetime) -> list[str]:
    options = one["options"]
    requests = str(one.get("requests", 0)) + (f"+{one['waiting']}" if one.get("waiting") else "")
    port = one.get("port")
    return [
        str(one["name"]), str(one["state"]), age_of(one, now), str(options.get("backend_type", NONE)), _model(options),
        NONE if port is None else str(port), memory_text(one), requests,
    ]  # fmt: skip


def _node(one: Instance) -> str:
    """Where it is. Of a node that does not answer its instances are as they were last seen."""
    reach = one.get("node_state")
    return f"{one.get('node')}" + (f" ({reach})" if reach not in (None, "reachable") else "")


def _model(options: Mapping[str, Any]) -> str:
    if custom := options.get("custom"):
        return " ".join(map(str, custom.get("argv") or ()))
    if _is_router(options):
        return "a router"
    return str((options.get("backend_options") or {}).get("model") or NONE)


def _is_router(options: Mapping[str, Any]) -> bool:
    engine_options = options.get("backend_options") or {}
    return is_router(str(options.get("backend_type")), engine_options, preset=bool(options.get("preset_ini")))


def _models(found: Instance) -> str:
    """The models of a router, with their states."""
    return ", ".join(map(_state, models_of(found.get("models")) or ()))


def _state(model: RouterModel) -> str:
    return f"{model.id} ({model.status}{f': {model.reason}' if model.reason else ''})"


def _on_demand(options: Mapping[str, Any]) -> str:
    starts = "a request starts it" if options.get("on_demand_start", True) else "only a command starts it"
    minutes = options.get("idle_timeout")
    if minutes is None:
        return starts
    if minutes <= 0:
        return f"{starts}; it is never stopped for idleness"
    return f"{starts}; stopped after {duration(minutes * 60)} without requests"


def _time(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def ended_text(names: Sequence[str]) -> str:
    """`2 instances go on serving: a and b`, for whoever ends a server."""
    if not names:
        return "no instance runs"
    verb = "goes" if len(names) == 1 else "go"
    return f"{counted(len(names), 'instance')} {verb} on serving: {sentence(names)}"
