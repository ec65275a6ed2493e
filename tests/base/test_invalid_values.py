"""Every type of error that pydantic knows has our words, or those of a validator of ours."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core._pydantic_core import list_all_errors

from garrison.base.invalid_values import in_our_words, what_to_write


def ours(text: str) -> str:
    raise ValueError(f"{text!r} is no shell")


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    port: Annotated[int, Field(ge=1, le=65535)] = 1
    share: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.5
    name: Annotated[str, Field(min_length=1, max_length=3, pattern="^[a-z]+$")] = "a"
    key: Annotated[str, Field(min_length=2)] = "ab"
    flag: bool = False
    words: Annotated[list[str], Field(min_length=1, max_length=2)] = ["a"]
    pair: Annotated[list[str], Field(min_length=2)] = ["a", "b"]
    by_name: dict[str, str] = {}
    how: Literal["report", "restore"] = "report"


SAID: list[tuple[str, Any, str]] = [
    ("port", 0, "must be at least 1"),
    ("port", 70000, "must be at most 65535"),
    ("port", "x", "must be a whole number"),
    ("share", 0.0, "must be above 0.0"),
    ("share", 1.0, "must be below 1.0"),
    ("share", float("inf"), "must be a finite number"),
    ("share", "x", "must be a number"),
    ("name", "", "is empty"),
    ("name", "abcd", "has more than the 3 characters that are allowed"),
    ("name", "A", "does not have the form ^[a-z]+$"),
    ("name", 1, "must be text"),
    ("key", "a", "needs at least 2 characters"),
    ("flag", "maybe", "must be true or false"),
    ("words", [], "is empty; it needs at least one item"),
    ("words", ["a", "b", "c"], "has more than the 2 items that are allowed"),
    ("words", 1, "must be a list"),
    ("pair", ["a"], "needs at least 2 items"),
    ("by_name", [1], "must be a mapping"),
    ("how", "x", "must be 'report' or 'restore'"),
]


@pytest.mark.parametrize(("field", "value", "said"), SAID, ids=[f"{field}={value!r:.20}" for field, value, _ in SAID])
def test_what_is_said(field: str, value: Any, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate({field: value})
    (error,) = caught.value.errors()
    assert in_our_words(error["type"], error["msg"], error.get("ctx")) == said


def test_the_words_of_a_validator_of_ours() -> None:
    assert in_our_words("value_error", "Value error, Soon is no date") == "soon is no date"
    assert in_our_words("assertion_error", "Assertion failed, x") == "x"


FOREIGN = ("bytes_", "date", "time", "url_", "uuid_", "decimal_", "fraction_", "json_")
"""No value of ours is of these types."""
ALL = {one["type"]: one for one in list_all_errors() if not one["type"].startswith(FOREIGN)}
PHRASES = ("Value error", "Assertion failed", "after validation", "should have", "Input should", "input should")


@pytest.mark.parametrize("kind", ALL)
def test_no_type_of_pydantic_is_said_in_its_own_phrases(kind: str) -> None:
    one: Any = ALL[kind]
    said = in_our_words(kind, one["example_message_python"], one["example_context"])
    assert said
    assert "None" not in said or kind.startswith("none")
    assert not [phrase for phrase in PHRASES if phrase in said]


@pytest.mark.parametrize("kind", ["int_type", "bool_parsing", "list_type", "dict_type", "string_type", "float_type"])
def test_what_to_write_instead(kind: str) -> None:
    assert str(what_to_write(kind)).endswith(".")
    assert what_to_write("less_than") is None
