"""Profiles: which route a name has while one is active; on a real server, what requests are answered by."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_lab import Labs, ServerLab, chat_body

from garrison.base.errors import NotFoundError
from garrison.fleet.values.declaration import Declaration
from garrison.gateway.link.messages import RouteValue, Tables, TargetValue
from garrison.gateway.link.route_settings import FilterValue, LimitsValue
from garrison.gateway.worker.table.targets import RouteTable
from garrison.server.adapters.routes import ends_to_load
from garrison.server.workers.profiles import Profiles, declared_profiles, pinned, pinned_ends

ROUTES = {
    "qwen": RouteValue(name="qwen", targets=("instance:qwen",), nested=True, instances=("qwen",), instance_ids=(1,)),
    "llama": RouteValue(name="llama", targets=("instance:llama",), nested=True, instances=("llama",)),
    "fast": RouteValue(
        name="fast", targets=("instance:llama",), aliases=("gpt-4", "gpt-3"),
        filters={"fast": FilterValue(strip=("stop",)), "gpt-3": FilterValue(strip=("seed",))},
    ),
}  # fmt: skip


def test_a_name_goes_where_the_other_one_goes() -> None:
    found = pinned(ROUTES, {"gpt-4": "qwen"})
    assert found["gpt-4"] == RouteValue(
        name="gpt-4", targets=("instance:qwen",), nested=True, instances=("qwen",), instance_ids=(1,),
        shares="qwen",
    )  # fmt: skip
    assert found["fast"].aliases == ("gpt-3",), "an alias of that name is not answered there any more"
    assert found["qwen"] is ROUTES["qwen"]


@pytest.mark.parametrize(("to", "strip"), [("fast", ("stop",)), ("gpt-3", ("seed",)), ("gpt-4", None)])
def test_what_changes_in_requests_comes_along(to: str, strip: tuple[str, ...] | None) -> None:
    filters = pinned(ROUTES, {"new": to})["new"].filters
    assert filters == ({} if strip is None else {"new": FilterValue(strip=strip)})


def test_nowhere() -> None:
    found = pinned(ROUTES, {"fast": None, "gpt-3": None, "new": "missing"})
    assert set(found) == {"qwen", "llama"}


def test_models_beneath_a_name_stay_where_they_are() -> None:
    found = pinned(ROUTES, {"qwen": "llama"})
    assert (found["qwen"].targets, found["qwen/"].targets) == (("instance:llama",), ("instance:qwen",))
    assert found["qwen/"].name == "qwen/"


@pytest.mark.parametrize("big", [LimitsValue(concurrent=1), None], ids=["a limit", "an instance's own route"])
def test_a_name_shares_the_limits_and_the_queue_of_its_goal(big: LimitsValue | None) -> None:
    plain = [
        RouteValue(name="big", targets=("instance:big",), limits=big, aliases=("large",)),
        *(RouteValue(name=name, targets=("instance:s",), nested=True) for name in ("chat", "code", "other")),
    ]
    targets = [TargetValue(id=f"instance:{name}", url="http://127.0.0.1:1") for name in ("big", "s")]
    routes = {one.name: one for one in plain}
    table = RouteTable()
    table.apply(Tables(version=1, whole=True, targets=targets, routes=plain))
    before = {name: table.routes[name].line for name in routes}
    profile = pinned(routes, {"chat": "big", "code": "large", "big": None})
    table.apply(Tables(version=2, whole=True, targets=targets, routes=list(profile.values())))
    assert "big" not in table.routes
    chat, code = table.routes["chat"], table.routes["code"]
    assert (chat.line, chat.limiter) == (code.line, code.limiter)
    shared = chat.line
    assert [one.line.take() for one in (chat, code)] == [True, big is None]
    beneath = table.find("chat/one")
    assert beneath is not None
    assert (beneath[0].line, table.routes["other"].line) == (before["chat"], before["other"])
    table.apply(Tables(version=3, whole=True, targets=targets, routes=plain))
    assert shared not in {table.routes[name].line for name in ("chat", "code", "other")}


def test_a_name_of_adapters_is_loaded_where_its_goal_is() -> None:
    def route(name: str, *aliases: str) -> RouteValue:
        return RouteValue(name=name, aliases=aliases, targets=("target:a", "target:b"), adapters=(name, name))

    routes = {"sql": route("sql", "db"), "chat": route("chat"), **ROUTES}
    ends = {name: (("a", name), ("b", name)) for name in ("sql", "chat")}
    pins = {"new": "db", "chat": "sql", "sql": "qwen", "db": None}
    profile, found = pinned(routes, pins), pinned_ends(ends, routes, pins)
    assert found == {"new": ends["sql"], "chat": ends["sql"]}
    assert ends_to_load(profile["new"], found["new"], "target:a", ()) == [("a", "sql"), ("b", "sql")]
    assert pinned_ends(ends, routes, {}) == ends


def test_two_names_can_change_places() -> None:
    found = pinned(ROUTES, {"qwen": "llama", "llama": "qwen"})
    assert (found["qwen"].targets, found["llama"].targets) == (("instance:llama",), ("instance:qwen",))


NAMES = st.sampled_from(["qwen", "llama", "fast", "gpt-4", "gpt-3", "new"])


@given(st.dictionaries(NAMES, NAMES | st.none()))
def test_every_name_has_one_route(pins: dict[str, str | None]) -> None:
    found = pinned(ROUTES, pins)
    assert all(key == value.name for key, value in found.items())
    answered = [
        *(key for key in found if not key.endswith("/")),
        *(one for value in found.values() for one in value.aliases),
    ]
    assert len(answered) == len(set(answered))
    assert {name for name, to in pins.items() if to is None}.isdisjoint(answered)


def test_a_profile_that_is_gone_is_not_active() -> None:
    told: list[str | None] = []
    profiles = Profiles()
    profiles.changed = lambda: told.append(profiles.active)
    profiles.declare(declared_profiles([Declaration(stack="a", profiles={"p": {"x": None}, "q": {}}),
                                        Declaration(stack="b", profiles={"p": {"y": None}})]))  # fmt: skip
    profiles.activate("p")
    assert (profiles.pins, told) == ({"x": None}, ["p"])
    with pytest.raises(NotFoundError, match="no profile 'z'") as refused:
        profiles.activate("z")
    assert "p, q" in str(refused.value.hint)
    profiles.declare({"q": {}})
    assert (profiles.active, dict(profiles.pins)) == (None, {})


MANIFEST = """\
stack: box
instances:
  small: {{model: {model}, engine: sim, served_model_name: small}}
  large: {{model: {model}, engine: sim, served_model_name: large}}
routes:
  gpt-4: {{to: large}}
profiles:
  travel: {{gpt-4: small, large: null}}
"""


def garrison(lab: ServerLab, *words: str) -> str:
    argv = [sys.executable, "-m", "garrison.cli.main", *words]
    done = subprocess.run(argv, env=lab.environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, 31), done.stdout + done.stderr
    return done.stdout


@pytest.mark.system
def test_a_profile_holds_for_the_requests_that_follow(labs: Labs, tmp_path: Path, tiny_model: Path) -> None:
    lab = labs()
    lab.start()
    path = tmp_path / "garrison.yaml"
    path.write_text(MANIFEST.format(model=tiny_model))
    garrison(lab, "apply", str(path), "--yes")
    assert lab.chat("gpt-4").json()["model"] == "large"
    chosen = json.loads(garrison(lab, "profile", "travel", "--json"))
    assert (chosen["schema"], chosen["active"]) == (1, "travel")
    assert chosen["profiles"] == {"travel": {"gpt-4": "small", "large": None}}
    assert lab.chat("gpt-4").json()["model"] == "small"
    assert lab.http.post("/v1/chat/completions", json=chat_body("large", 2)).status_code == 404
    assert "large" not in [one["id"] for one in lab.http.get("/v1/models").json()["data"]]
    table = garrison(lab, "profile").split()
    assert table[4:] == ["✓", "travel", "gpt-4", "small", "✓", "travel", "large", "nowhere"] or "nowhere" in table
    garrison(lab, "profile", "--off")
    assert lab.chat("gpt-4").json()["model"] == "large"
    assert lab.chat("large").is_success
