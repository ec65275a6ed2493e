import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base import documents
from garrison.base.documents import read_document
from garrison.base.errors import InvalidError

YAML = """\
model: acme/tiny
options:
  max-model-len: 4096
  stop: [a, b]
"""


def test_positions_are_those_of_the_keys() -> None:
    found = read_document(YAML, "garrison.yaml")
    assert found.content == {"model": "acme/tiny", "options": {"max-model-len": 4096, "stop": ["a", "b"]}}
    assert found.where(("model",)) == "garrison.yaml:1:1"
    assert found.where(("options", "max-model-len")) == "garrison.yaml:3:3"
    assert found.where(("options", "stop", 1)) == "garrison.yaml:4:13"


def test_a_path_that_is_not_there_is_placed_at_its_nearest_parent() -> None:
    found = read_document(YAML, "garrison.yaml")
    assert found.where(("options", "nope", 3)) == "garrison.yaml:2:1"
    assert found.where(("nope",)) == "garrison.yaml:1:1"


def test_a_key_that_yaml_cannot_read_is_still_found_twice_in_json() -> None:
    with pytest.raises(InvalidError, match="duplicate key"):
        read_document('{"\x7f": 1, "\x7f": 2}', "x.json")


def test_toml_has_positions() -> None:
    found = read_document("[a]\nb = 1\n", "x.toml")
    assert found.content == {"a": {"b": 1}}
    assert found.where(("a", "b")) == "x.toml:2:1"


def test_json_has_positions() -> None:
    found = read_document('{\n\t"a": {"b": 1}\n}', "x.json")
    assert found.content == {"a": {"b": 1}}
    assert found.where(("a", "b")) == "x.json:2:8"


JSON_VALUES = {
    "an exponent is a number": '{"a": 1e5}',
    "an exponent with a sign is a number": '{"a": 1E-5}',
    "a date is text": '{"a": "2026-01-01"}',
    "a surrogate pair is one character": '{"a": "\\ud83d\\ude00"}',
    "escaped slash": '{"a": "\\/"}',
    "tab escape": '{"a": "x\\ty"}',
    "keys that YAML takes for booleans": '{"on": 1, "yes": true, "null": null}',
    "a merge key is a key": '{"<<": {"a": 1}}',
}


@pytest.mark.parametrize("text", JSON_VALUES.values(), ids=JSON_VALUES)
def test_json_means_what_json_means(text: str) -> None:
    assert read_document(text, "x.json").content == json.loads(text)


WRONG = {
    "yaml, not closed": (
        "a: [1, 2\nb: 3\n",
        "x.yaml",
        "x.yaml:2:2: expected ',' or ']', but got ':' (while parsing a flow sequence that begins at line 1)",
    ),
    "yaml, tab": ("a:\n\t- 1\n", "x.yaml", "x.yaml:2:1"),
    "yaml, two documents": ("a: 1\n---\nb: 2\n", "x.yaml", "x.yaml:2:1"),
    "yaml, key twice": ("a: 1\nb: 2\na: 3\n", "x.yaml", "x.yaml:3:1: duplicate key 'a'"),
    "yaml, nested key twice": ("o:\n  a: 1\n  a: 2\n", "x.yaml", "x.yaml:3:3: duplicate key 'a'"),
    "yaml, key that is a list": ("? [1, 2]\n: 3\n", "x.yaml", "x.yaml:1:3"),
    "yaml, unknown alias": ("a: *nope\n", "x.yaml", "x.yaml:1:4"),
    "yaml, python object": ("a: !!python/object:os.system {}\n", "x.yaml", "x.yaml:1:4"),
    "yaml, control character": ("b: 1\na: \x00", "x.yaml", "x.yaml:2:4: the character U+0000"),
    "yaml, date that is none": (
        "b: 1\nc: [1, 2026-13-45]\n",
        "x.yaml",
        "x.yaml:2:8: the value does not match its type: month",
    ),
    "yaml, wrong tag": ("a: !!float abc\n", "x.yaml", "x.yaml:1:4"),
    "yaml, wrong boolean tag": ("a: !!bool abc\n", "x.yaml", "x.yaml"),
    "yaml, wrong timestamp tag": ("a: !!timestamp abc\n", "x.yaml", "x.yaml"),
    "yaml, number of ten thousand digits": ("a: " + "9" * 10000, "x.yaml", "x.yaml"),
    "yaml, a list that holds itself": ("&a [*a]\n", "x.yaml", "x.yaml"),
    "yaml, aliases of aliases": (
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{n}: &{n} [{','.join([f'*{p}'] * 9)}]\n" for p, n in zip("abcdefghi", "bcdefghij", strict=True)),
        "x.yaml",
        "x.yaml",
    ),
    "yaml, nested a thousand deep": ("[" * 1000 + "]" * 1000, "x.yaml", "x.yaml"),
    "json, trailing comma": ('{"a": 1,\n}', "x.json", "x.json:2:1: not valid JSON"),
    "json, comment": ('{"a": 1} # no', "x.json", "x.json:1:10: not valid JSON"),
    "json, key twice": ('{"a": 1,\n "a": 2}', "x.json", "x.json:2:2: duplicate key 'a'"),
    "json, nested key twice": ('{"o": {"a": 1, "a": 2}}', "x.json", "duplicate key 'a'"),
    "json, nested deep": ("[" * 100000 + "]" * 100000, "x.json", "x.json"),
    "toml, syntax": ("a = \n", "x.toml", "x.toml:1:5: not valid TOML: invalid value"),
    "toml, key twice": ("a = 1\na = 2\n", "x.toml", "x.toml:2:6: not valid TOML"),
    "toml, number of ten thousand digits": ("a = " + "9" * 10000, "x.toml", "x.toml"),
    "toml, nested deep": ("a = " + "[" * 100000 + "]" * 100000, "x.toml", "x.toml"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("text", "name", "said"), WRONG.values(), ids=WRONG)
def test_wrong_documents_say_where(text: str, name: str, said: str) -> None:
    with pytest.raises(InvalidError) as caught:
        read_document(text, name)
    assert said in caught.value.message
    assert len(caught.value.message) < 500
    assert caught.value.hint


HINTS = {
    "tab": ("a:\n\t- 1\n", "spaces"),
    "two documents": ("a: 1\n---\nb: 2\n", "`---`"),
    "list not closed": ("a: [1, 2\nb: 3\n", "close the list with `]`"),
    "list not begun": ("a: [\n", "close the bracket"),
    "mapping not closed": ("a: {b: 1\nc", "close the mapping with `}`"),
    "quotation not closed": ("a: 'x\nb: 1\n", "quotation mark"),
    "indentation": ("a:\n  b: 1\n c: 2\n", "begin in the same column"),
    "colon in a text": ("a: b: c\n", "quote a text that contains `: `"),
    "no space after the colon": ("a:1\nb:2\nc: 3\n", "quote a text that contains `: `"),
    "alias": ("a: *.yaml\n", "begins with `*`"),
    "tag": ("a: !x 1\n", "Remove the tag"),
    "reserved character": ("a: @x\n", "begins with this character"),
    "control character": ("a: \x07\n", "control character"),
}


@pytest.mark.parametrize(("text", "said"), HINTS.values(), ids=HINTS)
def test_a_mistake_in_yaml_has_a_hint_of_its_own(text: str, said: str) -> None:
    with pytest.raises(InvalidError) as caught:
        read_document(text, "x.yaml")
    assert said in str(caught.value.hint)


@pytest.mark.parametrize("name", ["x.yaml", "x.json", "x.toml"])
@given(text=st.one_of(st.text(), st.text("{}[]:,-&*!|>#'\"%@`?\n \tab01.=", max_size=40)))
def test_any_text_is_read_or_refused(name: str, text: str) -> None:
    refused = None
    try:
        read_document(text, name)
    except InvalidError as error:
        refused = error
    assert refused is None or refused.message.startswith(name)


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSONISH)
def test_json_that_we_write_is_read_back(content: object) -> None:
    assert read_document(json.dumps(content), "x.json").content == content
    assert read_document(json.dumps(content, ensure_ascii=False), "x.json").content == content


def test_json_positions_are_where_yaml_sees_them() -> None:
    text = '{"a": [1, {"b": null, "c": []}, "x\\n\\"{"],\n "é": {"d": -1.5e3,\n  "e": [[true], []]}}'
    positions = read_document(text, "x.json").positions
    assert dict(positions) == dict(read_document(text, "x.yaml").positions)
    assert len(positions) == 13


def test_json_is_read_without_its_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """They cost far more than the values, and only an error needs them."""

    def unexpected(_text: str) -> None:
        raise AssertionError("nobody asked where anything is")

    monkeypatch.setattr(documents, "json_positions", unexpected)
    found = read_document(json.dumps({"a": list(range(1000))}), "x.json")
    assert len(found.content["a"]) == 1000
    monkeypatch.undo()
    assert found.where(("a", 999)).startswith("x.json:1:")


def test_json_with_more_values_than_yaml_may_have_keeps_its_positions() -> None:
    text = json.dumps(list(range(300_001)), indent=0)
    assert read_document(text, "x.json").where((300_000,)) == "x.json:300002:1"


def test_the_keys_of_yaml_are_text_as_written() -> None:
    found = read_document("off: 1\n012: {~: 2}\n2026-13-45: 3\non: &a no\nb: *a\n", "x.yaml")
    assert found.content == {"off": 1, "012": {"~": 2}, "2026-13-45": 3, "on": False, "b": False}
    assert found.keys == {("off",): False, ("012",): 10, ("012", "~"): None, ("on",): True}
    assert found.scalars == {("off",): "1", ("012", "~"): "2", ("2026-13-45",): "3", ("on",): "no", ("b",): "no"}


def test_a_key_that_is_used_as_a_value_too_keeps_its_type_there() -> None:
    assert read_document("&a off: 1\nb: *a\n", "x.yaml").content == {"off": 1, "b": False}


def test_merge_keys_still_merge() -> None:
    assert read_document("a: &a {x: 1}\nb: {<<: *a, y: 2}\n", "x.yaml").content["b"] == {"x": 1, "y": 2}
