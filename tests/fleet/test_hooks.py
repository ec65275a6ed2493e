"""Which events each hook gets, in which order, how often delivery is tried, and that nothing waits for it."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from garrison.fleet.hooks.delivery import HookDelivery, shown
from garrison.fleet.hooks.queues import HOOK_RETRIES, Hooks, event_json
from garrison.fleet.values import events
from garrison.fleet.values.declaration import Declaration, Hook
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.target import TargetSpec
from garrison.net.client import HttpDialer
from garrison.net.endpoint import Secret
from garrison.net.secrets import Secrets
from garrison.store.records import Event
from garrison.testing.clock import FakeClock

ALL = events.HOOK_KINDS
HOOK = Hook(on=ALL, url="http://hooks.example/T0/secret")
BUSY = Failure(code=FailureCode.SERVICE_INTERNAL_ERROR, message="HTTP 503", recoverable=True)
NEVER = Failure(code=FailureCode.INVALID_REQUEST, message="HTTP 404")


def event(number: int = 1, kind: str = events.DRIFT, **changes: Any) -> Event:
    values: dict[str, Any] = {"stack": "lab", "target": "edge", "name": "sql", "id": number}
    return Event(at=FakeClock().now(), kind=kind, **(values | changes))


def stack(*hooks: Hook, name: str = "lab", target: str = "edge") -> Declaration:
    return Declaration(stack=name, targets={target: TargetSpec(name=target, base_url="http://edge")}, hooks=hooks)


@dataclass
class Deliveries:
    """The in-memory delivery. `answers` are used up in order; then all is well. `gate` holds every delivery back."""

    answers: list[Failure | None] = field(default_factory=list)
    told: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    gate: asyncio.Event | None = None
    dead: str = ""

    async def deliver(self, hook: Hook, body: Mapping[str, Any]) -> Failure | None:
        name = str(hook.url)
        if name == self.dead:
            await asyncio.Event().wait()
        if self.gate is not None:
            await self.gate.wait()
        self.told.append((name, body))
        return self.answers.pop(0) if self.answers else None

    @property
    def ids(self) -> list[int]:
        return [body["id"] for _, body in self.told]


@dataclass
class Setting:
    deliveries: Deliveries = field(default_factory=Deliveries)
    clock: FakeClock = field(default_factory=FakeClock)
    notes: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def hooks(self, *declarations: Declaration, **options: Any) -> Hooks:
        made = Hooks(self.deliveries, clock=self.clock, note=self.notes.append, sleep=self._sleep, **options)
        made.watch(declarations or [stack(HOOK)])
        return made

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.advance(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def setting() -> Setting:
    return Setting()


WANTED: list[tuple[str, Event, bool]] = [
    ("ours", event(), True),
    ("another stack's", event(stack="other"), False),
    ("about a target of this stack", event(kind=events.UNREACHABLE, stack=None, name=None), True),
    ("about another target", event(kind=events.UNREACHABLE, stack=None, name=None, target="node"), False),
    ("a kind that hooks do not get", event(kind=events.APPLIED), False),
    ("a kind that this one does not want", event(kind=events.RECOVERED), False),
]


@pytest.mark.parametrize(("offered", "told"), [row[1:] for row in WANTED], ids=[row[0] for row in WANTED])
async def test_which_hooks_get_an_event(setting: Setting, offered: Event, told: bool) -> None:
    hooks = setting.hooks(stack(replace(HOOK, on=(events.DRIFT, events.UNREACHABLE, events.APPLIED))))
    hooks.offer(offered)
    assert await hooks.close(1) == 0
    assert bool(setting.deliveries.told) == told


async def test_in_order(setting: Setting) -> None:
    hooks = setting.hooks()
    for number in range(5):
        hooks.offer(event(number))
    await hooks.close(1)
    assert setting.deliveries.ids == [0, 1, 2, 3, 4]


async def test_what_was_offered_is_delivered_after_the_manifest_changed(setting: Setting) -> None:
    hooks = setting.hooks()
    hooks.offer(event(1))
    hooks.watch([])
    hooks.offer(event(2))
    await hooks.close(1)
    assert setting.deliveries.ids == [1]


async def test_a_hook_shared_by_two_stacks_gets_an_event_once(setting: Setting) -> None:
    hooks = setting.hooks(stack(HOOK), stack(HOOK, name="other"))
    hooks.offer(event(kind=events.UNREACHABLE, stack=None))
    await hooks.close(1)
    assert len(setting.deliveries.told) == 1


async def test_what_cannot_be_delivered_now_is_tried_again(setting: Setting) -> None:
    setting.deliveries.answers = [BUSY, replace(BUSY, retry_after=7)]
    hooks = setting.hooks()
    hooks.offer(event(1))
    hooks.offer(event(2))
    await hooks.close(1)
    assert setting.deliveries.ids == [1, 1, 1, 2]
    assert setting.waits[1] >= 7
    assert setting.notes == []


@pytest.mark.parametrize(("failure", "attempts"), [(BUSY, HOOK_RETRIES.attempts), (NEVER, 1)], ids=["busy", "never"])
async def test_a_delivery_that_fails_permanently_is_noted(setting: Setting, failure: Failure, attempts: int) -> None:
    setting.deliveries.answers = [failure] * attempts
    hooks = setting.hooks()
    hooks.offer(event(1))
    hooks.offer(event(2))
    await hooks.close(1)
    assert setting.deliveries.ids == [1] * attempts + [2]
    assert setting.notes == [f"hook http://hooks.example: drift of edge not delivered: {failure.message}"]
    assert [body["dropped"] for _, body in setting.deliveries.told] == [0] * attempts + [1]


async def test_a_full_queue_drops_the_oldest_and_says_so(setting: Setting) -> None:
    setting.deliveries.gate = asyncio.Event()
    hooks = setting.hooks(limit=3)
    hooks.offer(event(0))
    await asyncio.sleep(0)
    for number in range(1, 8):
        hooks.offer(event(number))
    setting.deliveries.gate.set()
    await hooks.close(1)
    assert setting.deliveries.ids == [0, 5, 6, 7]
    assert [body["dropped"] for _, body in setting.deliveries.told] == [0, 4, 0, 0]
    assert len(setting.notes) == 1


async def test_one_that_hangs_delays_no_other_and_not_the_end(setting: Setting) -> None:
    other = replace(HOOK, url="http://other.example/")
    setting.deliveries.dead = str(HOOK.url)
    hooks = setting.hooks(stack(HOOK, other))
    started = time.monotonic()
    hooks.offer(event())
    assert await hooks.close(0.05) == 1
    assert time.monotonic() - started < 5
    assert [name for name, _ in setting.deliveries.told] == ["http://other.example/"]
    assert setting.notes == ["1 event was not delivered to hooks before shutdown"]


async def test_an_unexpected_error_costs_one_event(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    real = setting.deliveries.deliver

    async def fails_once(hook: Hook, body: Mapping[str, Any]) -> Failure | None:
        if body["id"] == 1:
            raise KeyError("what was sent")
        return await real(hook, body)

    monkeypatch.setattr(setting.deliveries, "deliver", fails_once)
    hooks = setting.hooks()
    hooks.offer(event(1))
    hooks.offer(event(2))
    for _ in range(10):
        await asyncio.sleep(0)
    hooks.offer(event(3))
    assert await hooks.close(5) == 0
    assert [(body["id"], body["dropped"]) for _, body in setting.deliveries.told] == [(2, 1), (3, 0)]
    assert len(setting.notes) == 1
    assert "KeyError in test_hooks.py" in setting.notes[0]
    assert "what was sent" not in setting.notes[0]


async def test_an_event_that_comes_as_the_last_delivery_ends_is_delivered(setting: Setting) -> None:
    """The loop has ended the worker by then, and has not called back yet."""
    hooks = setting.hooks()

    async def deliver(hook: Hook, body: Mapping[str, Any]) -> Failure | None:
        if body["id"] == 1:
            asyncio.get_running_loop().call_soon(hooks.offer, event(2))
        setting.deliveries.told.append((str(hook.url), body))
        return None

    setting.deliveries.deliver = deliver  # type: ignore[method-assign]  # the test's own
    hooks.offer(event(1))
    for _ in range(10):
        await asyncio.sleep(0)
    assert setting.deliveries.ids == [1, 2]
    assert await hooks.close(5) == 0


async def test_after_the_end_nothing_is_taken(setting: Setting) -> None:
    hooks = setting.hooks()
    await hooks.close(1)
    hooks.offer(event())
    assert setting.deliveries.told == []


def test_the_shape_of_an_event() -> None:
    body = event_json(event(before={"served_path": "/m"}, cause="unloaded"))
    assert json.loads(json.dumps(body)) == {
        "kind": "drift",
        "at": "2026-01-01T00:00:00+00:00",
        "stack": "lab",
        "target": "edge",
        "name": "sql",
        "subject": {"kind": "adapter", "name": "edge/sql"},
        "cause": "unloaded",
        "before": {"served_path": "/m"},
        "after": None,
        "command": None,
        "id": 1,
    }


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        (HOOK, "hook http://hooks.example"),
        (Hook(on=ALL, url=Secret("env", "HOOK_URL")), "hook with url from env"),
        (Hook(on=ALL, command=("/usr/bin/notify", "--token", "x")), "hook notify"),
        (Hook(on=ALL, url="http://user:pass@host/"), "a hook"),
    ],
    ids=["url", "secret", "command", "user name"],
)
def test_no_secret_is_shown(hook: Hook, words: str) -> None:
    assert shown(hook) == words


# --- over sockets, and with processes

OK = b"HTTP/1.1 204 No Content\r\n\r\n"
MISSING = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
DOWN = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 9\r\ncontent-length: 0\r\n\r\n"
MOVED = b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n"


def delivery(environ: Mapping[str, str] | None = None, seconds: float = 5.0) -> HookDelivery:
    given = os.environ if environ is None else environ
    return HookDelivery(HttpDialer(secrets=Secrets(given)), Secrets(given), seconds=seconds, environ=given)


async def test_a_post(start_raw: Any) -> None:
    server = await start_raw(OK)
    environ = {"HOOK_URL": f"{server.url}/T0/x?y=1", "HOOK_KEY": "Bearer z"}
    hook = Hook(on=ALL, url=Secret("env", "HOOK_URL"), headers={"authorization": Secret("env", "HOOK_KEY")})
    assert await delivery(environ).deliver(hook, event_json(event())) is None
    head, _, body = server.heard[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /T0/x?y=1 HTTP/1.1\r\n")
    assert b"bearer z" in head.lower()
    assert json.loads(body)["kind"] == "drift"


@pytest.mark.parametrize(
    ("answer", "recoverable", "asked"),
    [
        pytest.param(MISSING, False, None, id="404"),
        pytest.param(DOWN, True, 9.0, id="503"),
        pytest.param(MOVED, False, None, id="redirect"),
        pytest.param(None, True, None, id="closed"),
    ],
)
async def test_a_post_that_is_not_taken(start_raw: Any, answer: Any, recoverable: bool, asked: float | None) -> None:
    server = await start_raw(answer)
    failure = await delivery().deliver(Hook(on=ALL, url=server.url), {})
    assert failure is not None
    assert (failure.recoverable, failure.retry_after) == (recoverable, asked)
    assert len(server.heard) == 1


@pytest.mark.parametrize(
    "url", [Secret("env", "NO_SUCH_URL"), "ftp://host/", "http://user:pass@host/", "http://host:x/", ""], ids=str
)
async def test_a_url_that_cannot_be_used(url: str | Secret) -> None:
    failure = await delivery({}).deliver(Hook(on=ALL, url=url), {})
    assert failure is not None
    assert not failure.recoverable
    assert "pass@" not in failure.message


def script(text: str) -> Hook:
    return Hook(on=ALL, command=(sys.executable, "-c", text))


async def test_a_command(tmp_path: Path) -> None:
    out = tmp_path / "out"
    hook = script(
        f"import json, os, sys; e = json.load(sys.stdin); open({str(out)!r}, 'w').write("
        "e['kind'] + ' ' + str([n for n in os.environ if n.startswith(('GARRISON_', 'VLLM_'))]))"
    )
    environ = dict(os.environ) | {"GARRISON_X": "1", "VLLM_API_KEY": "2"}
    assert await delivery(environ).deliver(hook, event_json(event())) is None
    assert out.read_text() == "drift []"


@pytest.mark.parametrize(
    ("hook", "recoverable", "words"),
    [
        pytest.param(script("raise SystemExit(3)"), True, "status 3", id="status"),
        pytest.param(script("import time; time.sleep(60)"), True, "did not end within 0.3 s", id="hangs"),
        pytest.param(Hook(on=ALL, command=("/no/such/program",)), False, "cannot run the command", id="not there"),
    ],
)
async def test_a_command_that_fails(hook: Hook, recoverable: bool, words: str) -> None:
    seconds = 0.3 if "within" in words else 10.0
    failure = await delivery(seconds=seconds).deliver(hook, event_json(event()))
    assert failure is not None
    assert failure.recoverable is recoverable
    assert words in failure.message


async def test_a_command_that_does_not_read(tmp_path: Path) -> None:
    body = {"kind": "x" * 1_000_000}
    assert await delivery().deliver(Hook(on=ALL, command=("true",)), body) is None


async def test_what_a_hanging_command_started_goes_with_it(tmp_path: Path, until: Any) -> None:
    pid_file = tmp_path / "pid"
    hook = Hook(on=ALL, command=("sh", "-c", f"sleep 60 & echo $! > {pid_file}; wait"))
    started = time.monotonic()
    failure = await delivery(seconds=1.0).deliver(hook, {})
    assert failure is not None
    assert time.monotonic() - started < 20
    pid = int(pid_file.read_text())
    until(lambda: _gone(pid), seconds=5, what="the end of the grandchild")


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
