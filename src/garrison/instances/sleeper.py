"""Sleep and wake over an engine's own routes, as `engines.control` describes them."""

import json
import secrets
from collections.abc import Mapping
from typing import Any

from garrison.base.errors import SleepFailedError
from garrison.base.logs import logger
from garrison.engines import registry
from garrison.engines.control import Call, SleepControl, is_asleep
from garrison.engines.options import normal_keys
from garrison.instances.runner import Upstream
from garrison.instances.values.spec import InstanceSpec
from garrison.net.endpoint import Server
from garrison.net.transport import Answer, Dialer, TransportError

__all__ = ["HttpSleeper", "may_sleep", "open_sleeper", "sleep_environment"]

PROMPT = "Seven wooden boats lay at the pier of the old harbour, and the tide was about to turn when somebody called:"
"""Not shorter: the first prompt after the start of a server is long enough for every build of vLLM."""
_TOKENS = 8
_ASK_SECONDS = 5.0
_ANSWER_SECONDS = 60.0
_LOAD_SECONDS = 60.0
_ON = (True, "true", "True", "1", 1)

_log = logger(__name__)


def may_sleep(spec: InstanceSpec) -> bool:
    """Whether the options of an instance have its engine start in sleep mode. Pure."""
    if spec.engine not in registry.names() or not registry.engine(spec.engine).capabilities.sleep:
        return False
    return normal_keys(spec.options).get("enable_sleep_mode") in _ON


def sleep_environment(spec: InstanceSpec) -> Mapping[str, str]:
    """Variables that the engine needs to be put to sleep over HTTP. Pure.

    They also open routes that run code for whoever reaches the engine's port, which is on loopback.
    """
    if not may_sleep(spec):
        return {}
    control = registry.engine(spec.engine).sleep_control()
    return dict(control.environment) if control is not None else {}


async def open_sleeper(spec: InstanceSpec, upstream: Upstream, dialer: Dialer[Server]) -> "HttpSleeper | None":
    """Ask a ready engine whether it can be put to sleep; None where it cannot, or does not answer within seconds."""
    if not may_sleep(spec):
        return None
    asking = HttpSleeper(upstream, SleepControl((), Call("GET", "/is_sleeping")), "", dialer)
    try:
        version = await asking.read_version()
    except SleepFailedError as error:
        _log.warning("an engine does not tell its version, so it is not put to sleep", name=spec.name, error=str(error))
        return None
    control = registry.engine(spec.engine).sleep_control(version)
    if control is None:
        _log.warning("this version of the engine cannot sleep", name=spec.name, version=version)
        return None
    sleeper = HttpSleeper(upstream, control, version, dialer)
    if await sleeper.asleep() is None:
        _log.warning("an engine has no routes for sleep, so it is stopped instead", name=spec.name, version=version)
        return None
    return sleeper


class HttpSleeper:
    """`Sleeper` over HTTP."""

    def __init__(self, upstream: Upstream, control: SleepControl, version: str, dialer: Dialer[Server]) -> None:
        self.version = version
        self.levels: Mapping[int, str] = {one.level: one.weights for one in control.levels}
        self._control = control
        self._dialer = dialer
        headers = {"authorization": f"Bearer {upstream.key}"} if upstream.key else {}
        self._server = Server(base_url=upstream.url, headers=headers)

    async def read_version(self) -> str:
        """Return the version that the engine names. Raises SleepFailedError."""
        answer = await self._request("GET", "/version", seconds=_ASK_SECONDS)
        found = _object(answer).get("version")
        if answer.status != 200 or not isinstance(found, str):
            raise SleepFailedError(f"the engine answered {answer.status} to GET /version")
        return found

    async def asleep(self) -> bool | None:
        """As `Sleeper.asleep`."""
        state = self._control.state
        try:
            answer = await self._request(state.method, state.target, seconds=_ASK_SECONDS)
        except SleepFailedError:
            return None
        return is_asleep(answer.status, answer.body)

    async def sleep(self, level: int, seconds: float) -> None:
        """As `Sleeper.sleep`."""
        for call in self._level(level).sleep:
            await self._make(call, seconds)

    async def wake(self, level: int, seconds: float) -> int:
        """As `Sleeper.wake`. Where the weights were dropped, those of adapters may be too, so they are loaded again."""
        found = self._level(level)
        for call in found.wake:
            await self._make(call, seconds)
        return await self._load_again() if found.weights == "dropped" else 0

    async def models(self) -> Mapping[str, str]:
        """As `Sleeper.models`."""
        answer = await self._request("GET", "/v1/models", seconds=_ASK_SECONDS)
        listed = _object(answer).get("data")
        if answer.status != 200 or not isinstance(listed, list):
            raise SleepFailedError(f"the engine answered {answer.status} to GET /v1/models, without a list")
        found = [one for one in listed if isinstance(one, dict) and isinstance(one.get("id"), str)]
        return {one["id"]: str(one.get("root") or "") if one.get("parent") else "" for one in found}

    async def answer(self, model: str) -> str:
        """As `Sleeper.answer`. The salt keeps the prefix cache out, which would hide weights that have changed."""
        body = {"model": model, "prompt": PROMPT, "max_tokens": _TOKENS, "temperature": 0, "seed": 7,
                "cache_salt": secrets.token_hex(8)}  # fmt: skip
        answer = await self._request("POST", "/v1/completions", json=body, seconds=_ANSWER_SECONDS)
        choices = _object(answer).get("choices")
        if answer.status == 200 and isinstance(choices, list) and choices and isinstance(choices[0], dict):
            return str(choices[0].get("text"))
        return f"status {answer.status}"

    async def _load_again(self) -> int:
        """Load every adapter again from where it was loaded. Where that cannot be done at run time, nothing is."""
        adapters = {name: path for name, path in (await self.models()).items() if path}
        done = 0
        for name, path in adapters.items():
            unloaded = await self._request(
                "POST", "/v1/unload_lora_adapter", json={"lora_name": name}, seconds=_LOAD_SECONDS
            )
            if unloaded.status in (404, 405):
                continue
            body = {"lora_name": name, "lora_path": path}
            loaded = await self._request("POST", "/v1/load_lora_adapter", json=body, seconds=_LOAD_SECONDS)
            if loaded.status != 200:
                raise SleepFailedError(f"adapter {name} could not be loaded again: the engine answered {loaded.status}")
            done += 1
        return done

    def _level(self, number: int) -> Any:
        found = self._control.level(number)
        if found is None:
            raise SleepFailedError(f"the engine has no sleep level {number}")
        return found

    async def _make(self, call: Call, seconds: float) -> None:
        body = json.loads(call.body) if call.body is not None else None
        answer = await self._request(call.method, call.target, json=body, seconds=seconds)
        if answer.status != 200:
            raise SleepFailedError(f"the engine answered {answer.status} to {call.method} {call.target}")

    async def _request(self, method: str, path: str, *, json: Any = None, seconds: float) -> Answer:
        try:
            async with self._dialer.open(self._server) as connection:
                return await connection.request(method, path, json=json, timeout=seconds)
        except TransportError as error:
            raise SleepFailedError(f"{method} {path}: {error}", details={"cause": str(error.cause)}) from None


def _object(answer: Answer) -> Mapping[str, Any]:
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
