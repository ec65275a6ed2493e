"""What the gateway carried, over HTTP: usage, requests that have ended, those in progress and their end."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from served_api import ServedApi, client_of

from garrison.base.errors import InternalError, UnreachableError
from garrison.gateway.link.reports import (
    Cancelled,
    Captured,
    CapturedMessage,
    CaptureValue,
    Finished,
    FinishedValue,
    ListLive,
    LiveRequests,
    LiveValue,
    Phase,
    Spent,
    SpentValue,
)
from garrison.server.workers.usage_writer import UsageWriter
from garrison.testing.thread_pool import DirectPool

USAGE, REQUESTS, ACTIVITY, CAPTURES = (f"/api/v1/{one}" for one in ("usage", "requests", "activity", "captures"))


class FakeWorker:
    """A door whose worker answers at once.

    Attributes:
        live: what is in progress there.
        stopped: ids that it was asked to end.
        silent: it answers nothing.
    """

    leaves = True

    def __init__(self, served: ServedApi, *live: LiveValue) -> None:
        self._served = served
        self.live = list(live)
        self.stopped: list[str] = []
        self.told: list[int] = []
        self.silent = False

    def stored(self, number: int) -> None:
        self.told.append(number)

    def send(self, message: Any) -> bool:
        if self.silent:
            return True
        answer: Any
        if isinstance(message, ListLive):
            answer = LiveRequests(
                id=message.id, requests=self.live[: message.most], more=len(self.live[message.most :])
            )
        else:
            found = any(one.id == message.request for one in self.live)
            self.stopped += [message.request] if found else []
            answer = Cancelled(id=message.id, found=found)
        asyncio.get_running_loop().call_soon(self._served.traffic.received, self, answer)
        return True


def spend(served: ServedApi, worker: FakeWorker, *rows: SpentValue, number: int = 1) -> None:
    served.traffic.received(worker, Spent(source="w", number=number, rows=list(rows)))  # type: ignore[arg-type]  # a stand-in


def spent(route: str = "qwen", key: int | None = None, **values: Any) -> SpentValue:
    return SpentValue(route=route, key_id=key, **{"requests": 1, "tokens_in": 7, "tokens_out": 3} | values)


async def test_usage_by_day_key_and_route(served: ServedApi) -> None:
    made = (await served.client.post("/api/v1/auth/keys", json={"name": "ci"})).json()
    worker = FakeWorker(served)
    spend(served, worker, spent(key=made["id"]), spent("b", failed=1, seconds=0.5), spent("b", key=99))
    found = (await served.client.get(USAGE)).json()
    today = served.clock.now().date()
    assert (found["from"], found["to"]) == ((today - timedelta(days=30)).isoformat(), today.isoformat())
    assert found["group_by"] == ["day", "key", "route"]
    assert [(one["day"], one["key_id"], one["key_name"], one["route"]) for one in found["rows"]] == [
        (today.isoformat(), None, None, "b"),
        (today.isoformat(), made["id"], "ci", "qwen"),
        (today.isoformat(), 99, None, "b"),
    ]
    assert (found["total"]["requests"], found["total"]["tokens_in"], found["total"]["seconds"]) == (3, 21, 0.5)
    assert not found["truncated"]
    assert worker.told == [1], "the worker is told that it is on disk"


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("group_by=", [{}]),
        ("group_by=route", [{"route": "b"}, {"route": "qwen"}]),
        ("group_by=key&route=qwen", [{"key_id": 5, "key_name": None}]),
        ("group_by=route&key=0", [{"route": "b"}]),
        ("group_by=route&key=5", [{"route": "qwen"}]),
        ("to=2020-01-01", []),
    ],
)
async def test_usage_is_split_and_chosen(served: ServedApi, query: str, rows: list[dict[str, Any]]) -> None:
    spend(served, FakeWorker(served), spent(key=5), spent("b"))
    found = (await served.client.get(f"{USAGE}?{query}")).json()
    named = ("day", "key_id", "key_name", "route")
    assert [{name: one[name] for name in named if name in one} for one in found["rows"]] == rows


@pytest.mark.parametrize("query", ["to=0001-01-01", "from=0001-01-01&to=9999-12-31", "from=9999-12-31"])
async def test_usage_of_the_first_and_the_last_days_there_are(served: ServedApi, query: str) -> None:
    assert (await served.client.get(f"{USAGE}?{query}")).status_code == 200


async def test_what_cannot_be_split_by_is_named(served: ServedApi) -> None:
    answer = await served.client.get(f"{USAGE}?group_by=node")
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid")
    assert "node" in answer.json()["details"]


async def test_a_batch_that_is_sent_again_counts_once(served: ServedApi) -> None:
    worker = FakeWorker(served)
    for number in (1, 1, 2):
        spend(served, worker, spent(), number=number)
        assert (await served.client.get(USAGE)).status_code == 200
    assert (await served.client.get(USAGE)).json()["total"]["requests"] == 2
    assert worker.told == [1, 1, 2]


async def test_a_batch_waits_for_a_store_that_cannot_be_written(
    served: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("garrison.server.workers.usage_writer._RETRY_SECONDS", 0.01)
    add, failures = served.access.add_usage, [UnreachableError("down"), UnreachableError("down")]

    def failing(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        add(*arguments)

    monkeypatch.setattr(served.access, "add_usage", failing)
    worker = FakeWorker(served)
    spend(served, worker, spent())
    assert (await served.client.get(USAGE)).json()["total"]["requests"] == 1
    assert (failures, worker.told) == ([], [1])


async def test_a_worker_that_ends_does_not_wait_until_others_are_gathered(served: ServedApi) -> None:
    worker = FakeWorker(served)
    worker.leaves = False
    batch = Spent(source="w", number=1, rows=[spent()])
    served.traffic.received(worker, batch)  # type: ignore[arg-type]  # a stand-in
    served.traffic.received(worker, msgspec.structs.replace(batch, ends=True))  # type: ignore[arg-type]
    async with asyncio.timeout(3):
        while not worker.told:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("poison", [OverflowError("too large"), InternalError("out of range")])
async def test_a_batch_that_cannot_be_stored_holds_up_no_other(
    served: ServedApi, monkeypatch: pytest.MonkeyPatch, poison: Exception
) -> None:
    monkeypatch.setattr("garrison.server.workers.usage_writer._RETRY_SECONDS", 0.01)
    add = served.access.add_usage
    tried: list[int] = []

    def failing(batches: Any, at: Any) -> None:
        tried.append(len(batches))
        if any(row.usage.tokens_in > 2**62 for batch in batches for row in batch.rows):
            raise poison
        add(batches, at)

    monkeypatch.setattr(served.access, "add_usage", failing)
    bad, good = FakeWorker(served), FakeWorker(served)
    served.traffic.received(bad, Spent(source="b", number=1, rows=[spent(tokens_in=2**63)]))  # type: ignore[arg-type]
    spend(served, good, spent(requests=2))
    assert (await served.client.get(USAGE)).json()["total"]["requests"] == 2
    assert good.told == [1]
    assert bad.told == [1], "it is given up, so that the next one of its worker is sent"
    assert tried[:3] == [2, 1, 1]
    spend(served, good, spent(), number=2)
    assert (await served.client.get(USAGE)).json()["total"]["requests"] == 3


async def test_old_usage_is_deleted_another_day_whatever_goes_wrong(
    served: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("garrison.server.workers.usage_writer._PRUNE_SECONDS", 0.01)
    days = iter([10**9, 30, 30])  # the first one is before all days that there are
    failures: list[Exception] = [RuntimeError("odd"), UnreachableError("down")]
    pruned = asyncio.Event()

    def prune(_: Any) -> int:
        if failures:
            raise failures.pop()
        pruned.set()
        return 0

    monkeypatch.setattr(served.access, "prune_usage", prune)
    writer = UsageWriter(served.access, pool=DirectPool(), clock=served.clock, days=lambda: next(days, 30))
    writer.startup()
    await asyncio.wait_for(pruned.wait(), 5)
    await writer.close(1)


def finished(id: str, **values: Any) -> FinishedValue:
    plain = {"at": 1e9, "route": "qwen", "status": 200, "key_id": 5, "tokens": (7, 3, 1)}
    return FinishedValue(id=id, **plain | values)


def end(served: ServedApi, *requests: FinishedValue) -> None:
    served.traffic.received(FakeWorker(served), Finished(requests=list(requests)))  # type: ignore[arg-type]  # a stand-in


async def test_requests_that_have_ended_newest_first_and_page_by_page(served: ServedApi) -> None:
    end(served, *(finished(str(number)) for number in range(5)))
    first = await served.client.get(f"{ACTIVITY}?limit=2")
    assert [one["id"] for one in first.json()] == ["4", "3"]
    (row, _) = first.json()
    assert row["at"] == "2001-09-09T01:46:40.000+00:00"
    assert (row["tokens"], row["key_name"]) == ({"in": 7, "out": 3, "cached": 1}, None)
    assert first.headers["link"] == '<?limit=2&before=4>; rel="next"'
    rest = await served.client.get(f"{ACTIVITY}?limit=3&before=4")
    assert [one["id"] for one in rest.json()] == ["2", "1", "0"]
    assert "link" not in rest.headers


async def test_the_next_page_of_the_activity_has_the_same_filters(served: ServedApi) -> None:
    requests = (finished(f"i{n}", route="a" if n % 2 else "b&c", status=500, at=1000.0 + n) for n in range(12))
    end(served, *requests, finished("good", route="b&c"))
    chosen = {"route": "b&c", "failed": "true", "key": "5", "since": "1970-01-01T00:16:43+00:00", "limit": "2"}
    page = await served.client.get(ACTIVITY, params=chosen)
    pages = [[one["id"] for one in page.json()]]
    while link := page.headers.get("link"):
        page = await served.client.get(ACTIVITY + link[1 : link.index(">")])
        pages.append([one["id"] for one in page.json()])
    assert pages == [["i10", "i8"], ["i6", "i4"]]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("route=b", ["1"]),
        ("key=6", ["2"]),
        ("failed=true", ["4", "3"]),
        ("since=2001-09-09T01:46:41", ["2"]),
        ("since=2001-09-09T03:46:41%2B02:00", ["2"]),
    ],
)
async def test_requests_are_chosen(served: ServedApi, query: str, ids: list[str]) -> None:
    end(
        served, finished("0"), finished("1", route="b"), finished("2", key_id=6, at=1e9 + 5), finished("3", status=500),
        finished("4", outcome="client-left"),
    )  # fmt: skip
    assert [one["id"] for one in (await served.client.get(f"{ACTIVITY}?{query}")).json()] == ids


async def test_no_more_than_the_setting_says_are_kept(served: ServedApi) -> None:
    most = served.settings.gateway_activity
    end(served, *(finished(str(number)) for number in range(most + 10)))
    oldest = (await served.client.get(f"{ACTIVITY}?before=12")).json()
    assert [one["id"] for one in oldest] == ["10"]


def in_progress(id: str, at: float) -> LiveValue:
    return LiveValue(id=id, at=at, phase=Phase.SENT, seconds=1.5, route="qwen", key_id=5)


async def test_requests_in_progress_of_all_workers_oldest_first(served: ServedApi) -> None:
    served.workers += [FakeWorker(served, in_progress("a", 3.0), in_progress("b", 1.0)),
                       FakeWorker(served, in_progress("c", 2.0))]  # fmt: skip
    found = (await served.client.get(REQUESTS)).json()
    assert [one["id"] for one in found["requests"]] == ["b", "c", "a"]
    assert (found["requests"][0]["phase"], found["more"]) == ("sent", 0)


async def test_a_worker_that_does_not_answer_is_left_out(served: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.server.workers.traffic._ASK_SECONDS", 0.05)
    hung = FakeWorker(served, in_progress("a", 1.0))
    hung.silent = True
    served.workers += [hung, FakeWorker(served, in_progress("b", 2.0))]
    found = (await served.client.get(REQUESTS)).json()
    assert [one["id"] for one in found["requests"]] == ["b"]


async def test_a_request_in_progress_is_ended_and_that_is_audited(served: ServedApi) -> None:
    workers = [FakeWorker(served), FakeWorker(served, in_progress("a", 1.0))]
    served.workers += workers
    assert (await served.client.delete(f"{REQUESTS}/a")).status_code == 204
    assert [one.stopped for one in workers] == [[], ["a"]]
    unknown = await served.client.delete(f"{REQUESTS}/z")
    assert (unknown.status_code, unknown.json()["error"]) == (404, "not-found")
    calls = (await served.client.get("/api/v1/audit?action=requests.delete")).json()
    assert [(one["subject_name"], one["status"]) for one in calls] == [("z", 404), ("a", 204)]


SECRET = "hf_" + "a" * 34


def captured(served: ServedApi, id: str, body: bytes, size: int | None = None) -> None:
    message = CapturedMessage(
        start="POST /v1/x", headers=[("X-Mine", SECRET)], body=body, size=len(body) if size is None else size
    )
    value = CaptureValue(id=id, request=message, answer=message)
    served.traffic.received(FakeWorker(served), Captured(capture=value))  # type: ignore[arg-type]  # a stand-in


async def test_a_capture_has_no_secrets_also_where_it_is_cut(served: ServedApi) -> None:
    served.settings = replace(served.settings, gateway_captures=2)
    served.traffic.reconfigure()
    captured(served, "whole", f'{{"key": "{SECRET}", "b": "é"}}'.encode())
    found = (await served.client.get(f"{CAPTURES}/whole")).json()
    assert SECRET not in str(found)
    assert found["answer"]["body"].endswith('"b": "é"}')
    assert (found["request"]["truncated"], found["request"]["headers"][0][0]) == (False, "X-Mine")
    captured(served, "cut", b"a" * 500 + SECRET[:20].encode() + b" " * 1000 + SECRET[:24].encode(), 10_000)
    body = (await served.client.get(f"{CAPTURES}/cut")).json()["answer"]["body"]
    assert len(body) == 520
    captured(served, "binary", b"\xff\0\x01")
    assert (await served.client.get(f"{CAPTURES}/binary")).json()["request"]["body"] is None
    assert (await served.client.get(f"{CAPTURES}/whole")).status_code == 404, "two are kept"


async def test_reading_a_capture_takes_a_manager_and_is_audited(served: ServedApi, keyed: Callable[..., Any]) -> None:
    served.settings = replace(served.settings, gateway_captures=2)
    served.traffic.reconfigure()
    captured(served, "a", b"{}")
    assert (await (await keyed("read")).get(f"{CAPTURES}/a")).status_code == 403
    manager = await keyed("manage")
    assert (await manager.get(f"{CAPTURES}/a")).status_code == 200
    calls = (await manager.get("/api/v1/audit?action=captures.read")).json()
    assert [(one["subject_name"], one["status"]) for one in calls] == [("a", 200)]


@pytest.mark.parametrize("path", [USAGE, REQUESTS, ACTIVITY])
async def test_what_others_asked_takes_a_key(path: str, served: ServedApi, keyed: Callable[..., Any]) -> None:
    assert (await (await keyed("inference")).get(path)).status_code == 403
    assert (await (await keyed("read")).get(path)).status_code == 200


async def test_only_a_key_that_manages_ends_requests(served: ServedApi, keyed: Callable[..., Any]) -> None:
    worker = FakeWorker(served, in_progress("a", 1.0))
    served.workers.append(worker)
    assert (await (await keyed("read")).delete(f"{REQUESTS}/a")).status_code == 403
    assert worker.stopped == []
    assert (await (await keyed("manage")).delete(f"{REQUESTS}/a")).status_code == 204


@pytest.fixture
def keyed(served: ServedApi) -> Callable[..., Any]:
    """`await keyed("read")`: a client with a key of that scope, where keys are needed."""
    served.settings = served.services.settings = replace(
        served.settings, require_management_auth=True, require_inference_auth=True
    )

    async def make(scope: str) -> Any:
        made = await served.owner.post("/api/v1/auth/keys", json={"name": scope, "scopes": [scope]})
        return client_of(served.asgi, Authorization=f"Bearer {made.json()['key']}")

    return make
