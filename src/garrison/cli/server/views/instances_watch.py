"""The list of instances as it changes: redrawn on a terminal, one line per event in a pipe."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.text import Text

from garrison.cli.json_answer import line
from garrison.cli.server.views.instances import STATE_STYLES, Instance, show_instances
from garrison.cli.views.page import Page, plain

if TYPE_CHECKING:
    from rich.live import Live

__all__ = ["InstancesWatch", "event_text"]

_REFRESHES_PER_SECOND = 2
Read = Callable[[], Sequence[Instance]]


class InstancesWatch:
    """Args: json: print every event as a line of JSON."""

    def __init__(self, *, json: bool, page: Page | None = None) -> None:
        self._json = json
        self._page = page or Page()
        self._live: Live | None = None
        self._found: Sequence[Instance] = ()

    def snapshot(self, found: Sequence[Instance]) -> None:
        """How things are now."""
        self._found = found
        if self._json:
            self._print({"kind": "snapshot", "instances": list(found)})
        elif self._page.wraps:
            self._draw()
        else:
            show_instances(self._page, found, datetime.now(UTC))
            self._page.flush()

    def event(self, kind: str, data: Mapping[str, Any], read: Read) -> None:
        """Something happened; `read` reads all instances again."""
        if self._json:
            self._print({**data, "kind": kind})
        elif self._page.wraps:
            self._found = read()
            self._draw()
        else:
            self._page.console.print(event_text(kind, data))
            self._page.flush()

    def end(self) -> None:
        """Give the terminal back. May be called more than once."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self) -> None:
        from rich.live import Live

        if self._live is None:
            self._live = Live(
                get_renderable=self._table, console=self._page.console, refresh_per_second=_REFRESHES_PER_SECOND
            )
            self._live.start()
        self._live.refresh()

    def _table(self) -> Text:
        """The table at this moment; ages go on between events."""
        lines = _Lines(self._page)
        show_instances(lines, self._found, datetime.now(UTC))
        return Text("\n").join(lines.found)

    def _print(self, content: Any) -> None:
        print(line(content), flush=True)


class _Lines(Page):
    """A page that keeps its lines."""

    def __init__(self, page: Page) -> None:
        super().__init__(page.console)
        self.found: list[Text] = []

    def print(self, what: object) -> None:
        self.found.append(what if isinstance(what, Text) else Text(str(what)))

    def entry(self, head: Text, body: Text) -> None:
        self.found += self.laid_out(head, body)


def event_text(kind: str, data: Mapping[str, Any]) -> Text:
    """One line: time, name, what happened, why."""
    at = str(data.get("at", ""))[11:19]
    word = kind.removeprefix("instance_")
    reason = str((data.get("after") or {}).get("reason") or "") if isinstance(data.get("after"), Mapping) else ""
    name = plain(str((data.get("subject") or {}).get("name", "")))
    line = Text.assemble((f"{at}  ", "dim"), (f"{name}  ", "bold"), (plain(word), STATE_STYLES.get(word, "")))
    return line + Text(f"  {plain(reason)}" if reason else "")
