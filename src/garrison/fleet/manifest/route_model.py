"""The keys of a route, with types and descriptions.

Defaults of what a route leaves out are the gateway's, so that none of them is stored.
"""

import json
import re
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema
from pydantic.functional_validators import AfterValidator

from garrison.fleet.manifest.fields import Integer, Keys, Name, Timeout, schema_of
from garrison.fleet.manifest.instance_model import Bytes, Count, Weight, Words, is_json

__all__ = ["RouteModel", "RoutePolicy"]

RoutePolicy = Literal[
    "least-outstanding",
    "power-of-two",
    "round-robin",
    "hash",
    "prefix",
    "sticky",
    "warm-first",
    "pin",
    "spill",
    "random",
    "failover",
]

_UNWRITABLE = re.compile(r'["\\]')


def _parameter(value: Any) -> Any:
    if is_json(value):
        with suppress(ValueError):  # an infinite number, or half of a surrogate pair
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
            return value
    raise ValueError("a parameter is text, a finite number, true, false, null, a list or a mapping")


def _parameter_name(text: str) -> str:
    if text == "model":
        raise ValueError("the model cannot be changed here; give the route another target in `to`")
    if _UNWRITABLE.search(text):
        raise ValueError("a parameter's name has no quotes and no backslashes")
    return text


def _names(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_DIGITS = r"^[0-9]+$|\$\{"
Bytes64K = Annotated[int, BeforeValidator(Integer.func), Field(ge=1, le=65536), schema_of("integer", 1, 65536, _DIGITS)]
TenThousand = Annotated[
    int, BeforeValidator(Integer.func), Field(ge=0, le=10_000), schema_of("integer", 0, 10_000, _DIGITS)
]
Million = Annotated[
    int, BeforeValidator(Integer.func), Field(ge=1, le=1_000_000), schema_of("integer", 1, 1_000_000, _DIGITS)
]
PerMinute = Annotated[
    int, BeforeValidator(Integer.func), Field(ge=1, le=10**9), schema_of("integer", 1, 10**9, _DIGITS)
]
Parameter = Annotated[Any, AfterValidator(_parameter)]
ParameterName = Annotated[Name, AfterValidator(_parameter_name)]
ParameterNames = Annotated[
    list[ParameterName],
    BeforeValidator(_names),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Header = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length=200)]
By = Annotated[
    list[Literal["session", "user", "prompt"]],
    BeforeValidator(_names),
    Field(min_length=1),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["session", "user", "prompt"]},
                {"type": "array", "items": {"enum": ["session", "user", "prompt"]}},
            ]
        }
    ),
]
Bound = Annotated[float, BeforeValidator(lambda value: float(value) if type(value) is int else value), Field(gt=1)]

_HEADER = "Header that names a session. Default: `X-Session-Id`."
_BY = "What tells requests that belong together, in this order: `session` (the header, else `prompt_cache_key` of the \
body), `user` (of the body), `prompt` (how it begins). Default: all three."
_PROMPT = "Bytes of the prompt that count. Default: 512."
_BOUND = "Load that a target may have before the next one is asked, as a multiple of the mean."


class HashModel(Keys):
    """Options of the policy `hash`."""

    header: Header | None = Field(None, description=_HEADER)
    by: By | None = Field(None, description=_BY)
    prompt_bytes: Bytes64K | None = Field(None, description=_PROMPT)
    bound: Bound | None = Field(None, description=f"{_BOUND} Default: 1.25.")


class PrefixModel(Keys):
    """Options of the policy `prefix`."""

    header: Header | None = Field(None, description=_HEADER)
    block: Bytes64K | None = Field(None, description="Bytes of a block. Default: 512.")
    blocks: Million | None = Field(None, description="Blocks to remember, a few hundred bytes each. Default: 16384.")
    bound: Bound | None = Field(None, description=f"{_BOUND} Default: 1.5.")
    floor: Count | None = Field(
        None, description="Requests in progress that a target may have whatever the mean is. Default: 4."
    )


class StickyModel(Keys):
    """Options of the policy `sticky`."""

    header: Header | None = Field(None, description=_HEADER)
    by: By | None = Field(None, description=_BY)
    prompt_bytes: Bytes64K | None = Field(None, description=_PROMPT)
    sessions: Million | None = Field(None, description="Sessions to remember, those used last. Default: 16384.")


class SpillModel(Keys):
    """Options of the policy `spill`."""

    limit: Million | None = Field(None, description="Requests in progress with which a target is full. Default: 8.")


class AliasModel(Keys):
    """What a further name of a route changes, on top of what the route changes."""

    set: dict[ParameterName, Parameter] = Field(default_factory=dict, description="As in a route.")
    strip: ParameterNames = Field(default_factory=list, description="As in a route.")


class LimitsModel(Keys):
    """How much a route carries, whoever asks. Each worker of the gateway counts by itself."""

    requests_per_minute: PerMinute | None = Field(None, description="Requests that may begin; past it, 429.")
    tokens_per_minute: PerMinute | None = Field(
        None, description="Tokens of prompts and answers together; past it, 429."
    )
    concurrent: Million | None = Field(
        None, description="Requests in progress at once; more of them wait in the queue."
    )


class QueueModel(Keys):
    """How requests wait: for one of the `concurrent` places of the route, or for an instance that does not run."""

    length: TenThousand | None = Field(
        None, description="Requests that may wait; 0 for none. Default: the setting `start_queue`."
    )
    bytes: Bytes | None = Field(None, description="Bytes of their bodies together (`64MiB`). Default: 256 MiB.")
    busy: Timeout | None = Field(
        None, description="How long one waits while all places are taken; then 429. Default: 30 s."
    )
    loading: Timeout | None = Field(
        None,
        description="How long one waits while nothing runs; then 503. Default: the setting `on_demand_start_timeout`.",
    )
    ageing: Timeout | None = Field(
        None, description="Waiting time that counts as much as one step of a key's priority. Default: 10 s."
    )


class TimeoutsModel(Keys):
    """When a request of a route is given up."""

    connect: Timeout | None = Field(None, description="For a connection to a target. Default: 10 s.")
    first_byte: Timeout | None = Field(
        None, description="From the request to the first byte of its answer. Default: none."
    )
    between_bytes: Timeout | None = Field(None, description="Between two pieces of an answer. Default: none.")
    whole: Timeout | None = Field(
        None, description="From the request's arrival to the last byte of its answer, waiting included. Default: none."
    )


class RouteModel(Keys):
    """A public model name. Its key is what clients send as `model`."""

    to: Words = Field(
        min_length=1,
        description="Where its requests go: `INSTANCE`, `TARGET`, `INSTANCE/ADAPTER`, `TARGET/ADAPTER`, or a list of "
        "these.",
    )
    policy: RoutePolicy = Field(
        "least-outstanding",
        description="How one of several is chosen: the one with the fewest requests in flight, the better of two drawn "
        "at random (`random` is the same), in turn, by session, by the beginning of the prompt, where the session went "
        "before, the first that runs, always the first while it answers (`failover` is the same), or the first that is "
        "not full.",
    )
    weights: dict[Name, Weight] = Field(
        default_factory=dict, description="Shares, by entry of `to`; 1 for those without. Not for policies in order."
    )
    hash: HashModel | None = Field(None, description="Options of the policy `hash`.")
    prefix: PrefixModel | None = Field(None, description="Options of the policy `prefix`.")
    sticky: StickyModel | None = Field(None, description="Options of the policy `sticky`.")
    spill: SpillModel | None = Field(None, description="Options of the policy `spill`.")
    set: dict[ParameterName, Parameter] = Field(
        default_factory=dict,
        description="Parameters that each request gets, whatever the client sent. Everything else in the body stays as "
        "it is.",
    )
    strip: ParameterNames = Field(
        default_factory=list, description="Parameters that are removed from each request, unless `set` has them."
    )
    aliases: dict[Name, AliasModel] = Field(
        default_factory=dict,
        description="Further names of the route, each with parameters of its own; policy, limits and queue are shared.",
    )
    limits: LimitsModel | None = Field(None, description="How much it carries.")
    queue: QueueModel | None = Field(None, description="How requests wait.")
    timeouts: TimeoutsModel | None = Field(None, description="When requests are given up.")
