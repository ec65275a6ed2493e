import inspect
import json
import re

import pytest

from garrison.base import errors
from garrison.base.errors import GarrisonError, InvalidError, all_errors
from garrison.base.exit_codes import ExitCode

LEAVES = [cls for cls in all_errors() if cls is not InvalidError] + [InvalidError]

# code, exit code, HTTP status: the contract, written down a second time on purpose.
CONTRACT = {
    "InvalidError": ("invalid", 1, 400),
    "GpuThresholdError": ("gpu-threshold", 1, 503),
    "PortForeignError": ("port-foreign", 2, 409),
    "PortOtherUserError": ("port-other-user", 3, 409),
    "PortUnattributableError": ("port-unattributable", 4, 409),
    "PortStuckError": ("port-stuck", 5, 409),
    "ModelNotFoundError": ("model-not-found", 10, 404),
    "ModelInvalidError": ("model-invalid", 11, 422),
    "FetchError": ("fetch-failed", 12, 502),
    "LockedError": ("locked", 13, 423),
    "DiskFullError": ("disk-full", 14, 507),
    "EngineMissingError": ("engine-missing", 20, 424),
    "EngineDiedError": ("engine-died", 21, 502),
    "EngineTimeoutError": ("engine-timeout", 22, 504),
    "NotReadyError": ("not-ready", 31, 503),
    "BusyError": ("busy", 31, 429),
    "SleepFailedError": ("sleep-failed", 31, 503),
    "NotFoundError": ("not-found", 1, 404),
    "ApplyFailedError": ("apply-failed", 30, 502),
    "UnreachableError": ("unreachable", 31, 504),
    "UnusableError": ("unusable", 31, 502),
    "ConflictError": ("conflict", 33, 409),
    "DeniedError": ("denied", 40, 403),
    "UnauthenticatedError": ("unauthenticated", 40, 401),
    "RateLimitedError": ("rate-limited", 40, 429),
    "DeclinedError": ("declined", 41, 409),
    "UsageError": ("usage", 64, 400),
    "InternalError": ("internal", 70, 500),
}


@pytest.mark.parametrize("name", CONTRACT)
def test_contract(name: str) -> None:
    cls = getattr(errors, name)
    assert (cls.code, int(cls.exit_code), cls.http_status) == CONTRACT[name]


def test_all_errors_are_the_contract() -> None:
    assert {cls.__name__ for cls in all_errors()} == set(CONTRACT)


def test_codes_are_distinct() -> None:
    codes = [cls.code for cls in all_errors()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("cls", LEAVES, ids=lambda cls: cls.__name__)
def test_a_code_named_like_an_exit_code_has_that_exit_code(cls: type[GarrisonError]) -> None:
    labels = {code.label: code for code in ExitCode}
    if cls.code in labels:
        assert cls.exit_code is labels[cls.code]


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    drawn = re.findall(
        r"(?m)^    (?P<bars>[ │├└─]+)(?P<name>\w+Error)(?: +(\S+) +(\d+) +(\d+))?$", errors.__doc__ or ""
    )
    found = [(len(bars) // 4, name, code, exit_code, status) for bars, name, code, exit_code, status in drawn]
    expected: list[tuple[int, str, str, str, str]] = []

    def walk(cls: type[GarrisonError], depth: int) -> None:
        for child in (one for one in cls.__subclasses__() if one.__module__ == errors.__name__):
            has_code = "code" in vars(child)
            facts = (child.code, str(int(child.exit_code)), str(child.http_status)) if has_code else ("", "", "")
            expected.append((depth, child.__name__, *facts))
            walk(child, depth + 1)

    walk(GarrisonError, 1)
    assert found == expected


def test_every_public_class_is_exported_once() -> None:
    classes = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert classes | {"all_errors"} == set(errors.__all__)
    assert len(errors.__all__) == len(set(errors.__all__))


def test_to_json_has_the_documented_keys() -> None:
    error = InvalidError("no port", hint="Set one.", details={"setting": "port"})
    assert error.to_json() == {
        "ok": False, "code": "invalid", "exit_code": 1, "error": "no port", "hint": "Set one.", "setting": "port",
    }  # fmt: skip


def test_to_json_without_a_hint_leaves_it_out() -> None:
    assert InvalidError("no port").to_json() == {"ok": False, "code": "invalid", "exit_code": 1, "error": "no port"}


def test_details_cannot_say_that_a_failure_is_ok() -> None:
    body = InvalidError("no port", details={"ok": True, "code": "x", "exit_code": 0, "error": "y"}).to_json()
    assert (body["ok"], body["code"], body["exit_code"], body["error"]) == (False, "invalid", 1, "no port")


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_to_json_is_json(cls: type[GarrisonError]) -> None:
    assert json.loads(json.dumps(cls("message", hint="hint").to_json()))["code"] == cls.code


def test_details_are_a_copy() -> None:
    given = {"pid": 1}
    error = InvalidError("x", details=given)
    given["pid"] = 2
    assert error.details == {"pid": 1}


def test_str_is_the_message() -> None:
    assert str(InvalidError("no port", hint="Set one.")) == "no port"
