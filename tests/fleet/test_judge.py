"""What is believed: the table, and what holds for every answer."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.redaction import know_secret
from garrison.fleet.values.observation import Cause, Served
from garrison.fleet.vllm.answers import load_failure
from garrison.fleet.vllm.model_list import LONGEST_RETRY_AFTER, judge, retry_after
from garrison.net.transport import Answer

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def entry(name: Any, root: Any = "acme/tiny", parent: Any = None, **more: Any) -> dict[str, Any]:
    return {"id": name, "object": "model", "owned_by": "vllm", "root": root, "parent": parent} | more


BASE = entry("acme/tiny")
SQL = entry("sql", "/models/sql", "acme/tiny")


def listed(*entries: Any, **more: Any) -> Answer:
    return Answer(200, json.dumps({"object": "list", "data": list(entries)} | more).encode())


def without(name: str, whole: dict[str, Any] = BASE) -> dict[str, Any]:
    return {key: value for key, value in whole.items() if key != name}


HTML = {"content-type": "text/html; charset=utf-8"}
DISBELIEVED: dict[str, tuple[Answer, Cause]] = {
    "base-gone": (listed(SQL), Cause.WRONG_BASE),
    "other-base": (listed(entry("other")), Cause.WRONG_BASE),
    "base-is-an-adapter": (listed(entry("acme/tiny", "/a", "x"), entry("x")), Cause.WRONG_BASE),
    "other-case": (listed(entry("ACME/tiny")), Cause.WRONG_BASE),
    "empty": (listed(), Cause.MALFORMED),
    "data-is-null": (Answer(200, b'{"object":"list","data":null}'), Cause.MALFORMED),
    "data-is-object": (Answer(200, b'{"object":"list","data":{}}'), Cause.MALFORMED),
    "other-object": (listed(BASE, object="error"), Cause.MALFORMED),
    "no-object": (Answer(200, b"{}"), Cause.MALFORMED),
    "list": (Answer(200, b"[]"), Cause.MALFORMED),
    "text": (Answer(200, b"ok"), Cause.MALFORMED),
    "nothing": (Answer(200, b""), Cause.MALFORMED),
    "not-utf-8": (Answer(200, b'{"data":"\xff"}'), Cause.MALFORMED),
    "utf-16": (Answer(200, listed(BASE).body.decode().encode("utf-16")), Cause.MALFORMED),
    "surrogates-as-bytes": (
        Answer(200, listed(entry("a\ud800")).body.replace(b"\\ud800", b"\xed\xa0\x80")),
        Cause.MALFORMED,
    ),
    "too-deep": (Answer(200, b"[" * 200_000), Cause.MALFORMED),
    "too-long-a-number": (Answer(200, b'{"data":' + b"9" * 10_000 + b"}"), Cause.MALFORMED),
    "entry-is-text": (listed(BASE, "sql"), Cause.MALFORMED),
    "entry-without-id": (listed(BASE, without("id", SQL)), Cause.MALFORMED),
    "entry-with-empty-id": (listed(BASE, entry("")), Cause.MALFORMED),
    "root-is-a-number": (listed(BASE, entry("a", 7, "acme/tiny")), Cause.MALFORMED),
    "parent-is-empty": (listed(BASE, entry("a", "/a", "")), Cause.MALFORMED),
    "one-name-twice": (listed(BASE, SQL, entry("sql", "/other", "acme/tiny")), Cause.MALFORMED),
    "no-root": (listed(without("root")), Cause.NOT_VLLM),
    "no-parent": (listed(without("parent")), Cause.NOT_VLLM),
    "other-owner": (listed(entry("acme/tiny", owned_by="llamacpp")), Cause.NOT_VLLM),
    "html": (Answer(200, b"\n<!DOCTYPE html>", HTML), Cause.NOT_VLLM),
    "html-by-type": (Answer(200, b"Welcome", HTML), Cause.NOT_VLLM),
    "204": (Answer(204, b""), Cause.MALFORMED),
    "206": (Answer(206, listed(BASE, SQL).body), Cause.MALFORMED),
    "301": (Answer(301, b"", {"location": "https://x.test/"}), Cause.NOT_VLLM),
    "304": (Answer(304, b""), Cause.NOT_VLLM),
    "401": (Answer(401, b""), Cause.UNAUTHORIZED),
    "403": (Answer(403, b""), Cause.FORBIDDEN),
    "404": (Answer(404, listed(BASE).body), Cause.NOT_VLLM),
    "405": (Answer(405, b""), Cause.NOT_VLLM),
    "407": (Answer(407, b""), Cause.NOT_VLLM),
    "408": (Answer(408, b""), Cause.SERVER_ERROR),
    "429": (Answer(429, b""), Cause.SERVER_ERROR),
    "500-with-a-list": (Answer(500, listed(BASE).body), Cause.SERVER_ERROR),
    "503": (Answer(503, b""), Cause.SERVER_ERROR),
}


@pytest.mark.parametrize(("answer", "cause"), DISBELIEVED.values(), ids=DISBELIEVED.keys())
def test_disbelieved(answer: Answer, cause: Cause) -> None:
    verdict = judge(answer, "acme/tiny", NOW)
    assert verdict.cause is cause
    assert verdict.detail
    assert verdict.detail.isprintable()
    assert not verdict.served
    assert verdict.base is None


SQL_SERVED = Served("sql", "/models/sql", "acme/tiny")
ALIAS = entry("tiny")
BELIEVED: dict[str, tuple[Answer, str | None, str, list[str]]] = {
    "base-and-adapter": (listed(BASE, SQL), "acme/tiny", "acme/tiny", ["acme/tiny", "sql"]),
    "base-alone": (listed(BASE), "acme/tiny", "acme/tiny", ["acme/tiny"]),
    "expected-by-its-second-name": (listed(BASE, ALIAS), "tiny", "tiny", ["acme/tiny", "tiny"]),
    "nothing-expected": (listed(BASE, SQL), None, "acme/tiny", ["acme/tiny", "sql"]),
    "nothing-expected-two-names-of-one": (listed(ALIAS, BASE), None, "tiny", ["tiny", "acme/tiny"]),
    "beside-another-base": (listed(BASE, entry("b", "/b")), "acme/tiny", "acme/tiny", ["acme/tiny", "b"]),
    "parent-that-is-not-there": (listed(BASE, entry("a", "/a", "x")), "acme/tiny", "acme/tiny", ["acme/tiny", "a"]),
    "root-is-null": (listed(BASE, entry("a", None, "acme/tiny")), "acme/tiny", "acme/tiny", ["acme/tiny", "a"]),
    "no-owner": (listed(without("owned_by")), "acme/tiny", "acme/tiny", ["acme/tiny"]),
    "the-same-entry-twice": (listed(BASE, BASE), "acme/tiny", "acme/tiny", ["acme/tiny"]),
    "no-object": (Answer(200, json.dumps({"data": [BASE]}).encode()), "acme/tiny", "acme/tiny", ["acme/tiny"]),
    "escaped-letters": (listed(BASE, entry("ä", "/ä", "acme/tiny")), None, "acme/tiny", ["acme/tiny", "ä"]),
}


@pytest.mark.parametrize(("answer", "expected", "base", "names"), BELIEVED.values(), ids=BELIEVED.keys())
def test_believed(answer: Answer, expected: str | None, base: str, names: list[str]) -> None:
    verdict = judge(answer, expected, NOW)
    assert (verdict.cause, verdict.base, list(verdict.served)) == (None, base, names)


@pytest.mark.parametrize("answer", [listed(BASE, entry("b", "/b")), listed(SQL)], ids=["two-bases", "no-base"])
def test_without_an_expected_base_there_must_be_one(answer: Answer) -> None:
    assert judge(answer, None, NOW).cause is Cause.WRONG_BASE


def test_an_unchanged_list_is_the_same_object() -> None:
    first = judge(listed(BASE, SQL), "acme/tiny", NOW).served
    again = judge(listed(SQL | {"created": 7}, BASE), "acme/tiny", NOW, first)
    assert again.served is first


@pytest.mark.parametrize(
    "entries",
    [[BASE], [BASE, SQL, entry("b", "/b", "acme/tiny")], [BASE, entry("sql", "/new", "acme/tiny")], [BASE, BASE]],
    ids=["less", "more", "another-path", "twice-instead-of-both"],
)
def test_a_changed_list_is_another_object(entries: list[Any]) -> None:
    first = judge(listed(BASE, SQL), "acme/tiny", NOW).served
    again = judge(listed(*entries), "acme/tiny", NOW, first).served
    assert again == judge(listed(*entries), "acme/tiny", NOW).served
    assert again != first
    assert again["acme/tiny"] is first["acme/tiny"]


LOCATIONS = {
    "https://user:secret@portal.test:8443/x?token=secret": "'https://portal.test:8443'",
    "http://portal.test/x": "'http://portal.test'",
    "/login": "another path",
    "": "another path",
    "http://[": "somewhere",
    "http://a:b/": "somewhere",
}


@pytest.mark.parametrize(("location", "shown"), LOCATIONS.items(), ids=LOCATIONS.keys())
def test_a_redirect_names_the_origin_alone(location: str, shown: str) -> None:
    detail = judge(Answer(302, b"", {"location": location}), None, NOW).detail
    assert f"redirects to {shown};" in detail
    assert "secret" not in detail


RETRY_AFTER = {
    "0": 0.0,
    "7": 7.0,
    " 7 ": 7.0,
    "999999999": LONGEST_RETRY_AFTER,
    "Fri, 20 Nov 2026 12:00:30 GMT": 30.0,
    "Fri, 20 Nov 2026 11:00:00 GMT": 0.0,
    "Fri, 20 Nov 2999 11:00:00 GMT": LONGEST_RETRY_AFTER,
    "-1": None,
    "soon": None,
    "": None,
    "Fri, 99 Nov 2026 12:00:30 GMT": None,
}


@pytest.mark.parametrize(("value", "seconds"), RETRY_AFTER.items(), ids=RETRY_AFTER.keys())
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after(Answer(503, b"", {"retry-after": value}), NOW) == seconds
    assert judge(Answer(429, b"", {"retry-after": value}), None, NOW).retry_after == seconds


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
WORD = st.sampled_from(["acme/tiny", "sql", "b", "", "a\0", "a\ud800"]) | st.text(max_size=3)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "id": WORD | JSON,
        "root": st.none() | WORD | JSON,
        "parent": st.none() | WORD | JSON,
        "owned_by": st.just("vllm") | JSON,
    },
)
BODY = JSON | st.fixed_dictionaries({"object": st.just("list") | JSON, "data": st.lists(ENTRY | JSON, max_size=4)})
EXPECTED = st.none() | st.sampled_from(["acme/tiny", "sql"])


@given(body=BODY, expected=EXPECTED, status=st.sampled_from([200, 200, 200, 404, 500]))
def test_no_json_is_believed_without_the_base(body: Any, expected: str | None, status: int) -> None:
    verdict = judge(Answer(status, json.dumps(body).encode()), expected, NOW)
    if verdict.cause is not None:
        assert not verdict.served
        return
    assert status == 200
    assert verdict.base is not None
    assert verdict.base == (expected or verdict.base)
    assert verdict.served[verdict.base].parent is None
    assert {one["id"] for one in body["data"]} == set(verdict.served)
    json.dumps([one.name + (one.root or "") for one in verdict.served.values()], ensure_ascii=False).encode()


@given(body=st.binary(max_size=60), status=st.integers(100, 599), location=st.text(max_size=20))
def test_no_bytes_raise(body: bytes, status: int, location: str) -> None:
    verdict = judge(Answer(status, body, {"location": location, "retry-after": location}), "acme/tiny", NOW)
    assert verdict.cause is not None
    assert verdict.detail.isprintable()


def test_no_half_of_the_key_is_shown() -> None:
    key = "Zq8-vR2-tY7-wN4-kL9-Zq8"
    know_secret(key)
    said = "x" * 110 + key
    body = {"object": "list", "data": [{"id": said, "owned_by": said}]}
    assert "Zq8" not in judge(Answer(200, json.dumps(body).encode()), None, NOW).detail
    long = {"error": {"message": "x" * 390 + key, "type": "BadRequestError"}}
    failure = load_failure(Answer(400, json.dumps(long).encode()), path="/a", staged=False, now=NOW)
    assert failure is not None
    assert "Zq8" not in failure.message


ODD = {
    "nul": ("a\0b", False),
    "surrogate": ("a\ud800", False),
    "too long to be indexed": ("x" * 501, False),
    "line feed": ("a\nb", True),
    "escape": ("a\x1b[2J", True),
    "300 characters": ("x" * 300, True),
    "white space": (" a b ", True),
}


@pytest.mark.parametrize(("name", "listed_too"), ODD.values(), ids=ODD)
def test_one_odd_name_spoils_no_list(name: str, listed_too: bool) -> None:
    """What no database takes is left out; no manifest can declare it, so nothing is proved absent by that."""
    verdict = judge(listed(BASE, entry(name, "/odd", "acme/tiny"), SQL), "acme/tiny", NOW)
    assert verdict.cause is None
    assert verdict.served.keys() == {"acme/tiny", "sql", *([name] if listed_too else [])}


@pytest.mark.parametrize("root", ["/\x1b[2J", "/a\0b", "/\ud800"])
def test_an_odd_path_is_another_path_and_no_absence(root: str) -> None:
    verdict = judge(listed(BASE, entry("sql", root, "acme/tiny")), "acme/tiny", NOW)
    found = verdict.served["sql"].root
    assert found is not None
    assert "\0" not in found
    found.encode()


def test_a_list_with_an_odd_name_that_stays_the_same_is_the_same_object() -> None:
    answer = listed(BASE, entry("a\0b", "/odd", "acme/tiny"), SQL)
    before = judge(answer, "acme/tiny", NOW).served
    assert judge(answer, "acme/tiny", NOW, before).served is before
    fewer = listed(BASE, entry("a\0b", "/odd", "acme/tiny"))
    assert judge(fewer, "acme/tiny", NOW, before).served.keys() == {"acme/tiny"}
