"""Nodes on disk."""

import stat
from pathlib import Path

import pytest

from garrison.base.errors import ConflictError, NotFoundError
from garrison.nodes.files import NodeFiles
from garrison.nodes.node import Node


def test_what_is_added_is_loaded_and_private(tmp_path: Path) -> None:
    files = NodeFiles(tmp_path)
    files.add(Node("edge", "http://10.0.0.2:8080", "a-key-of-the-node"))
    files.add(Node("lab", "https://lab.example/garrison"))
    assert files.load() == [
        Node("edge", "http://10.0.0.2:8080", "a-key-of-the-node"),
        Node("lab", "https://lab.example/garrison"),
    ]
    assert stat.S_IMODE((tmp_path / "nodes" / "edge.json").stat().st_mode) == 0o600
    with pytest.raises(ConflictError):
        files.add(Node("edge", "http://other:1"))
    files.remove("edge")
    with pytest.raises(NotFoundError):
        files.remove("edge")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"address": 3}', '{"address": "ftp://x"}', "\x00"])
def test_one_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path, content: str) -> None:
    files = NodeFiles(tmp_path)
    files.add(Node("edge", "http://10.0.0.2:8080"))
    (tmp_path / "nodes" / "broken.json").write_text(content)
    assert [one.name for one in files.load()] == ["edge"]
