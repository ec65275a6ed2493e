"""`garrison usage`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from garrison.cli.json_answer import answer
from garrison.cli.options import Json
from garrison.cli.options import app as make_app
from garrison.cli.server.options import ServerUrl, client
from garrison.cli.views.age import parse_since

app = make_app("Show requests and tokens by day, key and route.")

Since = Annotated[
    str | None, typer.Option("--since", metavar="WHEN", help="First day: 7d ago, or a date; 30d without it.")
]
Until = Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Last day, included; today without it.")]
Key = Annotated[int | None, typer.Option("--key", metavar="ID", help="Only this key; 0 for requests without one.")]
Route = Annotated[str | None, typer.Option("--route", metavar="NAME", help="Only this route or instance.")]
By = Annotated[str, typer.Option("--by", metavar="NAMES", help="What sums are split by: some of day, key, route.")]


@app.command()
def usage(
    since: Since = None,
    until: Until = None,
    key: Key = None,
    route: Route = None,
    by: By = "day,key,route",
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """Show what the models of a server were used for: requests, and the tokens that their engines named."""
    now = datetime.now(UTC)
    asked = {"from": _day(since, now), "to": _day(until, now), "key": key, "route": route, "group_by": by}
    with client(server) as there:
        found = there.call("GET", "/usage", params={name: one for name, one in asked.items() if one is not None})
    if json:
        print(answer(found))
        return 0
    from garrison.cli.server.views.traffic import show_usage

    show_usage(found)
    return 0


def _day(text: str | None, now: datetime) -> str | None:
    return None if text is None else parse_since(text, now).astimezone(UTC).date().isoformat()
