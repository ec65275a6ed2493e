"""What a manifest can say about a route, beside its targets: to a declaration and back, and what is refused where."""

from typing import Any, get_args

import jsonschema
import pytest
import yaml

from garrison.base.errors import InvalidError
from garrison.fleet.manifest.dump import dump_manifest
from garrison.fleet.manifest.load import load_declaration
from garrison.fleet.manifest.route_model import RoutePolicy
from garrison.fleet.manifest.schema import manifest_schema
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.route import RouteDeclaration

HEAD = "stack: s\ninstances: {a: {model: m}}\nroutes:\n"
FULL = """\
  chat:
    to: a
    policy: hash
    hash: {header: X-User, by: [user, prompt], promptBytes: 1024, bound: 2}
    set: {temperature: 0.5, stop: null, chat_template_kwargs: {enable_thinking: false}, name: "${WHO}", n: [1, "x"]}
    strip: [logit_bias, user]
    aliases:
      chat:high: {set: {reasoning_effort: high}}
      plain: {}
    limits: {requests_per_minute: 60, tokens_per_minute: 1000, concurrent: "${MOST}"}
    queue: {length: 5, bytes: 1MiB, busy: 2s, loading: 10m, ageing: 1s}
    timeouts: {connect: 1s, first_byte: 1m, between_bytes: 30, whole: 1h}
  by-prefix: {to: a, policy: prefix, prefix: {header: X-S, block: 256, blocks: 100, bound: 1.1, floor: 0}}
  stuck: {to: a, policy: sticky, sticky: {by: session, sessions: 10}}
  full: {to: a, policy: spill, spill: {limit: 2}}
"""


def load(text: str) -> Declaration:
    from io import StringIO

    stdin = StringIO(text)
    return load_declaration(["-"], environ={"WHO": "me", "MOST": "4"}, stdin=stdin).declaration


def test_every_key() -> None:
    routes = load(HEAD + FULL).routes
    assert routes["chat"].more == {
        "hash": {"header": "X-User", "by": ["user", "prompt"], "prompt_bytes": 1024, "bound": 2.0},
        "set": {
            "temperature": 0.5,
            "stop": None,
            "chat_template_kwargs": {"enable_thinking": False},
            "name": "me",
            "n": [1, "x"],
        },
        "strip": ["logit_bias", "user"],
        "aliases": {"chat:high": {"set": {"reasoning_effort": "high"}}, "plain": {}},
        "limits": {"requests_per_minute": 60, "tokens_per_minute": 1000, "concurrent": 4},
        "queue": {"length": 5, "bytes": 2**20, "busy": 2.0, "loading": 600.0, "ageing": 1.0},
        "timeouts": {"connect": 1.0, "first_byte": 60.0, "between_bytes": 30.0, "whole": 3600.0},
    }
    assert routes["by-prefix"].more == {
        "prefix": {"header": "X-S", "block": 256, "blocks": 100, "bound": 1.1, "floor": 0}
    }
    assert routes["stuck"].more == {"sticky": {"by": ["session"], "sessions": 10}}
    assert routes["full"].more == {"spill": {"limit": 2}}


def test_what_is_dumped_loads_as_the_same() -> None:
    declared = load(HEAD + FULL)
    assert load(dump_manifest(declared)) == declared
    assert Declaration.from_json(declared.to_json()) == declared


def test_a_route_without_any_of_it_is_written_as_before() -> None:
    (route,) = load(HEAD + "  r: {to: a}").routes.values()
    assert route == RouteDeclaration(name="r", to=route.to)
    assert route.to_json() == {"to": "a"}


def test_the_schema_accepts_it() -> None:
    assert jsonschema.Draft202012Validator(manifest_schema()).is_valid(yaml.safe_load(HEAD + FULL))


MISTAKES: dict[str, tuple[str, str, str]] = {
    "an unknown key": ("{to: a, limit: {}}", ":4:14: unknown key 'routes.r.limit'", "'limits'"),
    "an unknown option": ("{to: a, policy: spill, spill: {limits: 3}}", ":4:37: ", "'limit'"),
    "options of another policy": (
        "{to: a, policy: pin, hash: {bound: 2}}",
        ":4:27: routes.r.hash: these are options of the policy hash, and the policy is pin",
        "policy: hash",
    ),
    "a bound that is none": ("{to: a, policy: hash, hash: {bound: 1}}", ":4:35: ", "must be above 1"),
    "a limit of nothing": ("{to: a, policy: spill, spill: {limit: 0}}", ":4:37: ", "must be at least 1"),
    "a header that is none": ("{to: a, policy: hash, hash: {header: 'x y'}}", ":4:35: ", "does not have the form"),
    "a way that is none": ("{to: a, policy: hash, hash: {by: tenant}}", ":4:35: ", "'session', 'user' or 'prompt'"),
    "no way": ("{to: a, policy: hash, hash: {by: []}}", ":4:35: ", "is empty"),
    "the model set": ("{to: a, set: {model: x}}", ":4:20: ", "another target"),
    "the model stripped": ("{to: a, strip: [x, model]}", ":4:25: ", "another target"),
    "the model set by an alias": ("{to: a, aliases: {b: {set: {model: x}}}}", ":4:34: ", "another target"),
    "an infinite number": ("{to: a, set: {x: .inf}}", ":4:20: ", "finite"),
    "one that is nested": ("{to: a, set: {x: [{y: .nan}]}}", ":4:20: ", "finite"),
    "a date": ("{to: a, set: {x: 2024-01-01}}", ":4:20: ", "finite"),
    "a quote in a name": ("{to: a, set: {'x\"': 1}}", ":4:20: ", "quotes"),
    "an alias that is a route": ("{to: a, aliases: {q: {}}}\n  q: {to: a}", ":4:24: ", "the name is taken"),
    "an alias that is twice": (
        "{to: a, aliases: {b: {}}}\n  q: {to: a, aliases: {b: {}}}",
        ":5:24: routes.q.aliases.b: the name is taken (<standard input>:4:24)",
        "Rename",
    ),
    "an alias that ends in a slash": ("{to: a, aliases: {b/: {}}}", ":4:24: ", "end in a slash"),
    "no room for requests": ("{to: a, limits: {concurrent: 0}}", ":4:23: ", "must be at least 1"),
    "a queue that is never used": ("{to: a, queue: {busy: 3s}}", ":4:22: ", "never busy"),
    "a time that is none": ("{to: a, timeouts: {whole: soon}}", ":4:25: ", "duration"),
    "no time": ("{to: a, timeouts: {whole: 0}}", ":4:25: ", "must be at least 0.05"),
}


@pytest.mark.parametrize(("text", "message", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_name_their_line(text: str, message: str, said: str) -> None:
    with pytest.raises(InvalidError) as raised:
        load(f"{HEAD}  r: {text}\n")
    found = f"{raised.value.message} {raised.value.hint}"
    assert message in found
    assert said in found


@pytest.mark.parametrize("policy", get_args(RoutePolicy))
def test_options_belong_to_a_policy_of_their_name(policy: str) -> None:
    for options in ("hash", "prefix", "sticky", "spill"):
        text: Any = f"{HEAD}  r: {{to: a, policy: {policy}, {options}: {{}}}}"
        if options == policy:
            load(text)
        else:
            with pytest.raises(InvalidError, match=f"options of the policy {options}"):
                load(text)


def test_profiles_are_kept_as_they_are_written() -> None:
    text = HEAD + '  r: {to: a}\nprofiles: {coding: {gpt-4: a, "Some/Model-1": null}, none: {}}\n'
    declaration = load(text)
    assert declaration.profiles == {"coding": {"gpt-4": "a", "Some/Model-1": None}, "none": {}}
    assert load(dump_manifest(declaration)) == declaration
    assert Declaration.from_json(declaration.to_json()) == declaration
    with pytest.raises(InvalidError, match=r"profiles\.coding\.gpt-4"):
        load(HEAD + "  r: {to: a}\nprofiles: {coding: {gpt-4: [a]}}\n")
