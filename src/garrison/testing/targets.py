"""The twin of servers that answer HTTP: scripted vLLM servers without sockets.

They handle adapters as vLLM 0.32 was observed to: a second load of a name is 400, a path without an adapter 404, a name
of the base model 400, an unknown name 404, and without `lora_routes` the routes themselves are 404. They take no time.

    targets = MemoryTargets({"local-vllm": MemoryTarget(base="acme/tiny")})
    targets["local-vllm"].served["sql"] = "/models/sql"          # loaded by others
    targets["local-vllm"].down = TransportError(TransportCause.REFUSED, "connection refused")
    targets["local-vllm"].faults.append(MemoryFault("/v1/load_lora_adapter", REFUSED, after=True, times=1))
    targets.requests                                             # [("local-vllm", "GET", "/v1/models", None), …]
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from garrison.fleet.values.target import TargetSpec
from garrison.net.errors import TransportCause
from garrison.net.transport import Answer, Connection, TransportError

__all__ = ["MemoryFault", "MemoryRequest", "MemoryTarget", "MemoryTargets", "json_answer", "refusal"]


class MemoryRequest(NamedTuple):
    target: str
    method: str
    path: str
    json: Any = None


@dataclass(slots=True)
class MemoryFault:
    """What goes wrong with requests to `path` (a prefix if it ends in `*`).

    Attributes:
        result: returned, or raised, instead of the answer.
        after: the server acts first, and only its answer is lost.
        skip: matching requests that pass first.
        times: how often it applies; None for always.
    """

    path: str
    result: Answer | TransportError
    after: bool = False
    skip: int = 0
    times: int | None = None
    method: str | None = None

    def strikes(self, method: str, path: str) -> bool:
        """Count a request; return whether the fault applies to it."""
        fits = path.startswith(self.path[:-1]) if self.path.endswith("*") else path == self.path
        if not fits or (self.method is not None and self.method != method) or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass(slots=True)
class MemoryTarget:
    """One server. A test may change every attribute at any time.

    Attributes:
        base: the first served name of its base model; `names` has all of them if there are several.
        root: path of the base model; `base` if empty.
        served: name to path of the loaded adapters.
        paths: paths that hold an adapter; None if every path does.
        broken: path to the answer of a load from it.
        hollow: paths whose load is answered with 200 without loading anything.
        idle: paths of adapters without effect: the server answers as the base model does.
        static: adapters of its command line, which are loaded again at a restart.
        faults: applied in order; the first that matches a request counts.
        down: raised at every request.
    """

    base: str = "acme/tiny"
    names: tuple[str, ...] = ()
    root: str = ""
    served: dict[str, str] = field(default_factory=dict)
    static: dict[str, str] = field(default_factory=dict)
    paths: set[str] | None = None
    broken: dict[str, Answer] = field(default_factory=dict)
    hollow: set[str] = field(default_factory=set)
    idle: set[str] = field(default_factory=set)
    lora_routes: bool = True
    max_loras: int = 1
    prefix_caching: bool = True
    version: str = "0.32.0"
    started_at: float = 1_700_000_000.0
    down: TransportError | None = None
    faults: list[MemoryFault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.served = {**self.static, **self.served}

    def restart(self) -> None:
        """Act as a new process: a later start time, and only the adapters of the command line."""
        self.started_at += 1
        self.served = dict(self.static)

    def answer(self, method: str, path: str, body: Any) -> Answer:
        """Return the answer of vLLM, unless a fault applies.

        Raises:
            TransportError: the server is down, or a fault says so.
        """
        if self.down is not None:
            raise _again(self.down)
        fault = next((fault for fault in self.faults if fault.strikes(method, path)), None)
        if fault is None:
            return self._route(method, path, body)
        if fault.after:
            self._route(method, path, body)
        if isinstance(fault.result, TransportError):
            raise _again(fault.result)
        return fault.result

    def _route(self, method: str, path: str, body: Any) -> Answer:
        lora = {"/v1/load_lora_adapter": self._load, "/v1/unload_lora_adapter": self._unload}
        match method, path:
            case "GET", "/v1/models":
                return json_answer({"object": "list", "data": self._models()})
            case "GET", "/health":
                return Answer(200, b"")
            case "GET", "/version":
                return json_answer({"version": self.version})
            case "GET", "/metrics":
                return Answer(200, self._metrics().encode(), {"content-type": "text/plain; version=1.0.0"})
            case "POST", "/v1/completions":
                return self._complete(body)
            case "POST", ("/v1/load_lora_adapter" | "/v1/unload_lora_adapter") if self.lora_routes:
                if not isinstance(body, Mapping):
                    return refusal(
                        400, "Bad Request", "[{'type': 'missing', 'loc': ('body',), 'msg': 'Field required'}]"
                    )
                return lora[path](body)
            case _, ("/v1/load_lora_adapter" | "/v1/unload_lora_adapter") if self.lora_routes:
                return json_answer({"detail": "Method Not Allowed"}, 405)
        return json_answer({"detail": "Not Found"}, 404)

    def _load(self, body: Mapping[str, Any]) -> Answer:
        name, path = body["lora_name"], body["lora_path"]
        if name in self.served and not body.get("load_inplace"):
            text = f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set"
            return refusal(400, "InvalidUserInput", text + " 'load_inplace' to True.")
        if name in self._base_names():
            text = f"The lora adapter '{name}' conflicts with a served base model."
            return refusal(400, "InvalidUserInput", text)
        if path in self.broken:
            return self.broken[path]
        if self.paths is not None and path not in self.paths:
            return refusal(404, "NotFoundError", f"Loading lora {name} failed: No adapter found for {path}")
        if path not in self.hollow:
            self.served[name] = path
        return Answer(200, f"Success: LoRA adapter '{name}' added successfully.".encode())

    def _unload(self, body: Mapping[str, Any]) -> Answer:
        name = body["lora_name"]
        if self.served.pop(name, None) is None:
            return refusal(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        return Answer(200, f"Success: LoRA adapter '{name}' removed successfully.".encode())

    def _complete(self, body: Mapping[str, Any]) -> Answer:
        name = body["model"]
        if name not in self._base_names() and name not in self.served:
            aliases = ", ".join(self._base_names())
            return refusal(404, "NotFoundError", f"The model `{name}` does not exist. Valid aliases: {aliases}.")
        path = self.served.get(name, "")
        voice = hashlib.sha256(f"{self.base}\0{'' if path in self.idle else path}\0{body.get('prompt')}".encode())
        token = f" {voice.hexdigest()[:6]}"
        choice: dict[str, Any] = {"index": 0, "text": token, "finish_reason": "length", "logprobs": None}
        if body.get("logprobs") is not None:
            logprob = -1.0 - voice.digest()[0] / 256
            choice["logprobs"] = {
                "tokens": [token],
                "token_logprobs": [logprob],
                "top_logprobs": [{token: logprob}],
                "text_offset": [0],
            }
        return json_answer({"object": "text_completion", "model": name, "choices": [choice]})

    def _base_names(self) -> tuple[str, ...]:
        return self.names or (self.base,)

    def _models(self) -> list[dict[str, Any]]:
        names = self._base_names()
        root = self.root or self.base
        entries: list[tuple[str, str, str | None]] = [(name, root, None) for name in names]
        entries += [(name, path, names[0]) for name, path in self.served.items()]
        return [
            {"id": name, "object": "model", "owned_by": "vllm", "root": root, "parent": parent}
            for name, root, parent in entries
        ]

    def _metrics(self) -> str:
        return (
            f"process_start_time_seconds {self.started_at!r}\n"
            f'vllm:lora_requests_info{{max_lora="{self.max_loras}",running_lora_adapters=""}} 1.0\n'
            f'vllm:cache_config_info{{block_size="16",enable_prefix_caching="{self.prefix_caching}"}} 1.0\n'
        )


class MemoryTargets:
    """`Dialer` over servers by target name. Any other name fails as a host name that does not resolve.

    Attributes:
        requests: all requests, in order.
        opened: number of connections by target name.
    """

    def __init__(self, targets: Mapping[str, MemoryTarget] | None = None) -> None:
        self.targets: dict[str, MemoryTarget] = dict(targets or {})
        self.requests: list[MemoryRequest] = []
        self.opened: dict[str, int] = {}

    def __getitem__(self, name: str) -> MemoryTarget:
        return self.targets[name]

    def asked(self, method: str, path: str, target: str | None = None) -> list[MemoryRequest]:
        """Return the requests of one kind, in order."""
        wanted = (method, path)
        return [one for one in self.requests if one[1:3] == wanted and target in (None, one.target)]

    @asynccontextmanager
    async def open(self, target: TargetSpec) -> AsyncIterator[Connection]:
        self.opened[target.name] = self.opened.get(target.name, 0) + 1
        yield _MemoryConnection(self, target.name)


class _MemoryConnection:
    def __init__(self, targets: MemoryTargets, name: str) -> None:
        self._targets = targets
        self._name = name

    async def request(
        self, method: str, path: str, *, json: Any = None, timeout: float, limit: int = 4 * 1024 * 1024
    ) -> Answer:
        self._targets.requests.append(MemoryRequest(self._name, method, path, json))
        await asyncio.sleep(0)  # other tasks run meanwhile, as with a socket
        server = self._targets.targets.get(self._name)
        if server is None:
            raise TransportError(TransportCause.DNS, f"{self._name}: the name does not resolve")
        answer = server.answer(method, path, json)
        if len(answer.body) > limit:
            raise TransportError(TransportCause.MALFORMED, f"the answer is larger than {limit} bytes", sent=True)
        return answer


def json_answer(body: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(body).encode(), {"content-type": "application/json"})


def refusal(status: int, kind: str, message: str) -> Answer:
    """Return an error in the shape of vLLM 0.32."""
    return json_answer({"error": {"message": message, "type": kind, "param": None, "code": status}}, status)


def _again(error: TransportError) -> TransportError:
    """Return a copy: a raised exception keeps its traceback."""
    return TransportError(error.cause, error.detail, sent=error.sent)
