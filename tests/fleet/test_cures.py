"""Every cause names its own cure: the key of the manifest that has to change."""

from datetime import UTC, datetime
from typing import Any

import pytest

from garrison.fleet.plan.context import PlanOptions, Scene
from garrison.fleet.values.cures import cure_of, is_silent
from garrison.fleet.values.failure import Failure, FailureCode, cause_and_detail, same_failure
from garrison.fleet.values.observation import Cause, Sighting
from garrison.fleet.vllm.model_list import judge
from garrison.net.errors import PLAIN_NOT_TLS, TLS_NOT_PLAIN, UNTRUSTED
from garrison.net.transport import Answer

NOW = datetime(2026, 1, 2, tzinfo=UTC)

CASES = {
    "401": (Cause.UNAUTHORIZED, "401: the API key is missing or wrong", "`api_key`"),
    "403": (Cause.FORBIDDEN, "403", "`api_key`"),
    "self-signed": (Cause.TLS, f"{UNTRUSTED}: self-signed certificate", "`tls.ca`"),
    "unknown issuer": (Cause.TLS, f"{UNTRUSTED}: unable to get local issuer certificate", "`tls.ca`"),
    "expired": (Cause.TLS, f"{UNTRUSTED}: certificate has expired", "Renew"),
    "another name": (Cause.TLS, f"{UNTRUSTED}: Hostname mismatch, certificate is not valid for 'x'", "`base_url`"),
    "another address": (Cause.TLS, f"{UNTRUSTED}: IP address mismatch", "`base_url`"),
    "client certificate": (Cause.TLS, "TLS: tlsv13 alert certificate required", "`tls.cert`"),
    "http for https": (Cause.TLS, TLS_NOT_PLAIN, "with https"),
    "https for http": (Cause.TLS, PLAIN_NOT_TLS, "with http."),
    "wrong base": (Cause.WRONG_BASE, "it serves 'b', not 'a'", "`base_model`"),
    "several bases": (Cause.WRONG_BASE, "it serves several base models ('a', 'b'); declare base_model", "Declare one"),
    "slow": (Cause.TIMEOUT, "no answer within 5 s", "`timeout`"),
    "refused": (Cause.REFUSED, "connection refused", "`base_url`"),
    "no name": (Cause.DNS, "the name does not resolve", "`base_url`"),
    "no routes": (Cause.NO_LORA_ROUTES, "", "--enable-lora"),
}


@pytest.mark.parametrize(("cause", "detail", "cure"), CASES.values(), ids=CASES)
def test_each_cause_has_its_cure(cause: Cause, detail: str, cure: str) -> None:
    assert cure in (cure_of(cause, detail) or "")


ANSWERS = {
    "redirect": (Answer(302, b"", {"location": "https://elsewhere/x"}), "redirects are not followed"),
    "404": (Answer(404, b"", {}), "before `/v1`"),
    "a page": (Answer(200, b"<html>", {"content-type": "text/html"}), "portal"),
    "another program": (Answer(200, b'{"data": [{"id": "a"}]}', {}), "lead to vLLM"),
    "not a list": (Answer(200, b"{}", {}), "`base_url`"),
    "502": (Answer(502, b"", {}), "log"),
}


@pytest.mark.parametrize(("answer", "cure"), ANSWERS.values(), ids=ANSWERS)
def test_each_answer_has_its_cure(answer: Answer, cure: str) -> None:
    verdict = judge(answer, "a", NOW)
    assert cure in (cure_of(verdict.cause, verdict.detail) or "")
    assert not is_silent(verdict.cause)


def test_every_cause_is_silent_or_has_a_cure() -> None:
    nothing_to_do = {Cause.LOCAL, Cause.NOT_RUNNING, Cause.NEVER_ASKED}
    assert {one for one in Cause if cure_of(one) is None} == nothing_to_do
    assert {one for one in Cause if is_silent(one)} == {
        Cause.DNS, Cause.REFUSED, Cause.TIMEOUT, Cause.RESET, Cause.NOT_RUNNING, Cause.NEVER_ASKED,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("cause", "words"), [(Cause.UNAUTHORIZED, "cannot be used"), (Cause.REFUSED, "is out of reach")]
)
def test_a_plan_says_out_of_reach_only_of_a_target_that_is_silent(cause: Cause, words: str) -> None:
    seen = Sighting(target="edge", at=NOW, cause=cause, detail="why")
    nothing: dict[str, Any] = {"staged_path": lambda *_: None, "faults": {}, "prefix_caching": {}}
    scene = Scene(stack="s", mode="reconcile", options=PlanOptions(), sightings={"edge": seen}, **nothing)
    failure = scene.unknown("edge")
    assert failure is not None
    assert failure.message == f"target edge {words} ({cause}): why"
    assert cause_and_detail("edge", failure.message) == f"{cause}: why"


def test_how_often_a_failure_was_tried_makes_no_other_failure() -> None:
    def failure(message: str, code: FailureCode = FailureCode.THROTTLING) -> Failure:
        return Failure(code=code, message=message)

    told = failure("HTTP 500 (gave up: 4 attempts)").to_json()
    assert same_failure(told, failure("HTTP 500 (gave up: 58 s of 60 s used)"))
    assert not same_failure(told, failure("HTTP 503 (gave up: 4 attempts)"))
    assert not same_failure(told, failure("HTTP 500", FailureCode.NOT_STABILIZED))
