"""Which calls of the management API go on to a node."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from garrison.server.remote import Place, Remote

HERE, THERE = "here", "there"


@pytest.fixture
def remote() -> Remote:
    edge = SimpleNamespace(node=SimpleNamespace(name="edge"))
    instances = SimpleNamespace(find=lambda name: name if name == HERE else None)
    nodes = SimpleNamespace(with_instance=lambda name: edge if name == THERE else None)
    return Remote(cast("Any", instances), cast("Any", nodes), cast("Any", None), most_bytes=1)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (f"/api/v1/instances/{THERE}/start", Place("edge", f"/api/v1/instances/{THERE}/start")),
        (f"/api/v1/llama-cpp/{THERE}/models/m/load", Place("edge", f"/api/v1/llama-cpp/{THERE}/models/m/load")),
        ("/api/v1/nodes/edge/llama-cpp/r/models", Place("edge", "/api/v1/llama-cpp/r/models")),
        (f"/api/v1/llama-cpp/{HERE}/models", None),
        ("/api/v1/llama-cpp/nobody/models", None),
        ("/api/v1/backends/llama-cpp/help", None),
    ],
)
def test_what_only_a_node_has_is_asked_there(remote: Remote, path: str, place: Place | None) -> None:
    assert remote.place(path) == place
