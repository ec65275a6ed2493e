"""What is sent. Values, encoded with msgpack; the tag of each is its name."""

from typing import Any

import msgspec

from garrison.gateway.link.reports import (
    Cancel,
    Cancelled,
    Captured,
    Finished,
    ListLive,
    LiveRequests,
    Spent,
    SpentStored,
    Used,
)
from garrison.gateway.link.route_settings import AffinityValue, FilterValue, LimitsValue, QueueValue, TimeoutsValue
from garrison.store.key_store import KeyRow

__all__ = [
    "PROTOCOL",
    "Abandon",
    "Activate",
    "Activated",
    "Begun",
    "Cancel",
    "Cancelled",
    "Close",
    "Closed",
    "Counts",
    "Drain",
    "Failed",
    "FromControl",
    "FromWorker",
    "Hello",
    "InUse",
    "Keys",
    "Leave",
    "Left",
    "Listening",
    "LiveRequests",
    "Load",
    "Loading",
    "Refused",
    "RouteValue",
    "Settings",
    "Stored",
    "Sync",
    "Synced",
    "Tables",
    "Taken",
    "TargetValue",
]  # fmt: skip

PROTOCOL = 3
"""Both ends must speak the same one; a worker of another version is drained and replaced."""


class TargetValue(msgspec.Struct, frozen=True, kw_only=True):
    """One place where requests go.

    Attributes:
        id: `instance:NAME`, `node:NAME` or `target:NAME`.
        url: scheme, host and port; None while it is cold, when the control process has to be asked for it.
        key: what it asks for.
        model: the name it knows its model by; empty where the client's name is passed on.
        engine: which paths it answers.
        hop: it is another server, which must answer by itself: two that know each other would go round in circles.
        foreign: nobody here started it, so that it may be this server under another address, or lead back to it.
        counted: the control process wants to know of its requests, since it stops what is idle.
    """

    id: str
    url: str | None = None
    key: str | None = None
    model: str = ""
    engine: str = "vllm"
    hop: bool = False
    foreign: bool = False
    counted: bool = True

    def __repr__(self) -> str:
        return f"TargetValue(id={self.id!r}, url={self.url!r})"


class RouteValue(msgspec.Struct, frozen=True, kw_only=True):
    """A public model name.

    Attributes:
        name: one that ends in a slash stands only for what is beneath it, since another route has the name itself.
        targets: ids, in order of preference.
        models: for each target, the name that it is asked for; empty for its own.
        adapters: for each target, the declared adapter that is asked for, by the name that clients use; empty for
            none. One without a name in `models` is not loaded there, so the control process has to be asked for it.
        rest: what all targets are asked for, instead of `models`, where there are very many routes to the same ones.
        nested: `NAME/REST` asks the same targets for `REST`.
        names: those that `REST` may be, where the engine answers to any; None where it looks for itself.
        bare: `NAME` alone is a model, too.
        listed: it is in `/v1/models`.
        policy, options, weights: how one of several targets is chosen; no weights are equal ones.
        affinity: what the policy has to know of a request; None for what it always asks.
        aliases: further names.
        filters: what changes in requests, by the name that they were sent to; nothing for names without.
        limits, queue, timeouts: None for those of every route.
        shares: the name of the route that it stands in for, whose limits and queue hold for both; empty for none.
        instances: all that are behind it, for permissions; none if something else is behind it as well.
        instance_ids: of each of these; None for one of another node.
        created: Unix time.
        facts: further fields of its entry in `/v1/models`.
    """

    name: str
    targets: tuple[str, ...]
    models: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    policy: str = "least-outstanding"
    options: dict[str, int | float] = {}
    weights: tuple[float, ...] = ()
    affinity: AffinityValue | None = None
    aliases: tuple[str, ...] = ()
    filters: dict[str, FilterValue] = {}
    limits: LimitsValue | None = None
    queue: QueueValue | None = None
    timeouts: TimeoutsValue | None = None
    shares: str = ""
    rest: str = ""
    nested: bool = False
    names: tuple[str, ...] | None = None
    bare: bool = True
    listed: bool = True
    instances: tuple[str, ...] = ()
    instance_ids: tuple[int | None, ...] = ()
    created: int = 0
    owned_by: str = "garrison"
    facts: dict[str, Any] = {}


# From the control process


class Settings(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The first message, and again when one of them changes. Times are in seconds.

    Attributes:
        host, port: where to listen; None for a worker that listens already.
        control_socket: where everything but requests to models goes.
        via: a word by which this server recognises requests that it has sent itself.
        start_queue, start_timeout: how many requests wait for an instance, and how long, where a route does not say.
        forwarded: whether targets are told who asked: `off`, `set`, or `append` to what the client says.
        loading_comments: between two comments to a client that waits for a stream; 0 for none.
        report_requests: each request that has ended is reported; see `Finished`.
        stream_usage: engines are asked for the usage of every stream.
        captures: how many requests and answers are kept to be looked at. `capture_bytes`: of each of their bodies.
        traces: the share of traces that begin here and are recorded; None to pass traces on as they are.
    """

    host: str
    port: int
    control_socket: str
    via: str = "garrison"
    tls_cert: str | None = None
    tls_key: str | None = None
    open_inference: bool = False
    open_management: bool = False
    max_body_bytes: int = 64 * 2**20
    drain_seconds: float = 30.0
    start_queue: int = 256
    start_timeout: float = 120.0
    forwarded: str = "off"
    loading_comments: float = 0.0
    report_requests: bool = False
    stream_usage: bool = False
    captures: int = 0
    capture_bytes: int = 0
    traces: float | None = None


class Keys(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """All keys, whenever one changes."""

    secret: bytes
    config_keys: tuple[str, ...]
    revision: int
    rows: list[KeyRow]

    def __repr__(self) -> str:
        return f"Keys(revision={self.revision}, rows={len(self.rows)})"


class Tables(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Targets and routes: all of them if `whole`, else those that changed and those that are gone."""

    version: int
    whole: bool = False
    targets: list[TargetValue] = []
    routes: list[RouteValue] = []
    gone_targets: list[str] = []
    gone_routes: list[str] = []


class Activated(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The target of `Activate` is ready, and stays so until the worker says `Taken`. `wake`: seconds of its start."""

    id: int
    target: TargetValue
    wake: float = 0.0


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The target of `Activate` cannot be had."""

    id: int
    code: str
    message: str
    hint: str | None = None
    details: dict[str, Any] = {}


class Synced(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The answer to `Sync`."""

    id: int


class Begun(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What `Load` asked for has begun."""

    id: int


class Loading(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Where the start of a target is, again and again while requests wait for it; see `instances.progress.loading`."""

    target: str
    loading: dict[str, Any]


class Stored(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A target has a response that was made there, of a model as its client named it. Told to the other workers."""

    id: str
    target: str
    model: str


class Close(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Let no further request through to a target, and say so."""

    target: str


class Leave(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Answer with `Left` as soon as no request to a target is in progress that asks for `model`."""

    id: int
    target: str
    model: str


class Drain(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Accept no more connections, finish what is in progress within the limit, and exit."""

    seconds: float


FromControl = (
    Settings | Keys | Tables | Activated | Refused | Begun | Synced | Loading | Stored | Close | Leave | Drain
    | SpentStored | ListLive | Cancel
)  # fmt: skip


# From a worker


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The first message.

    Attributes:
        port: where it listens already; None for one that has just started.
        running: requests in progress, by target.
    """

    protocol: int
    version: str
    pid: int
    start: int
    host: str | None = None
    port: int | None = None
    running: dict[str, int] = {}


class Listening(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """It accepts connections."""

    port: int


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """It cannot listen. `taken`: somebody else has the port."""

    message: str
    taken: bool = False


class Activate(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A request waits for a cold target. `start`: it may be started for it.

    Attributes:
        seconds: for which it waits; None for as long as the settings say.
        route: of which the target is to have an adapter loaded; another one of the route's may get it instead. Empty
            for a target's own model.
        tried: targets of that route which have failed the request.
    """

    id: int
    target: str
    start: bool = True
    seconds: float | None = None
    route: str = ""
    tried: tuple[str, ...] = ()


class Sync(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Tell everything that has changed, then answer: a request names something that is not known here yet."""

    id: int


class Load(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Start a target, or with `load` false have it give up its memory; answered by `Begun` or `Refused`.

    Only the adapter of `route`, or that `model` of a router, is loaded or unloaded where one is given.
    """

    id: int
    target: str
    load: bool = True
    route: str = ""
    model: str = ""


class Abandon(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The request of an `Activate` has gone."""

    id: int


class Taken(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The request of an `Activate` is counted from now on: see `Counts`, which was sent before this."""

    id: int


class Counts(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Requests in progress by target, of those whose number has become zero, or is not zero any more."""

    running: dict[str, int]


class Closed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """No further request goes to a target; so many are in progress."""

    target: str
    running: int


class Left(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The answer to `Leave`."""

    id: int


class InUse(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Names in use at targets, or asked for since the last time; told once a second while there are any."""

    models: dict[str, list[str]]


FromWorker = (
    Hello | Load | Sync | Listening | Failed | Activate | Abandon | Taken | Counts | Closed | Left | InUse | Stored
    | Used | Spent | Finished | LiveRequests | Cancelled | Captured
)  # fmt: skip
