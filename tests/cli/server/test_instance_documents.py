"""What `import`, `create --file` and `edit` accept."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from garrison.base.errors import InvalidError, UsageError
from garrison.cli.server.instance.documents import as_yaml, exported, instances_of, options_in, read_file

ONE = {"backend_type": "vllm", "backend_options": {"model": "org/m"}}


@pytest.mark.parametrize(
    "content",
    [exported({"a": ONE}), {"name": "a", "options": ONE}, [{"name": "a", "options": ONE, "state": "running"}]],
)
def test_shapes(content: Any, tmp_path: Path) -> None:
    assert instances_of(content, "x") == {"a": ONE}
    path = tmp_path / "x.yaml"
    path.write_text(as_yaml(content))
    assert instances_of(read_file(str(path)), "x") == {"a": ONE}
    assert options_in(content, "x") == ONE


def test_bare_options() -> None:
    assert options_in(ONE, "x") == ONE


@pytest.mark.parametrize("content", [None, 3, "a", {}, {"a": ONE}, [1], {"instances": {"a": 3}}, {"name": "a"}])
def test_something_else(content: Any) -> None:
    with pytest.raises(InvalidError) as raised:
        instances_of(content, "file.yaml")
    assert "file.yaml" in raised.value.message


def test_a_manifest_is_for_another_command() -> None:
    with pytest.raises(InvalidError) as raised:
        instances_of({"stack": "box", "instances": {}}, "file.yaml")
    assert raised.value.hint == "garrison apply -f file.yaml"


def test_several_where_one_is_wanted() -> None:
    with pytest.raises(UsageError):
        options_in(exported({"a": ONE, "b": ONE}), "x")


def test_broken_files_are_named_with_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("instances:\n  a: [\n")
    with pytest.raises(InvalidError, match=r"x\.yaml:3:1"):
        read_file(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidError, match="cannot be read"):
        read_file(str(path))
    with pytest.raises(InvalidError, match="No such file"):
        read_file(str(tmp_path / "none.yaml"))


def test_a_preset_is_written_as_it_is_read_by_people() -> None:
    options = {"backend_type": "llama_cpp", "preset_ini": "[one]\nmodel = /m/1\n"}
    text = as_yaml(exported({"a": options}))
    assert "    preset_ini: |\n      [one]\n      model = /m/1\n" in text
    assert instances_of(yaml.safe_load(text), "x") == {"a": options}
