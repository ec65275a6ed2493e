import json
from typing import Any

from garrison.fleet.manifest.schema import manifest_schema


def test_the_schema_comes_out(cli: Any) -> None:
    done = cli("schema")
    assert done.code == 0
    assert json.loads(done.out) == manifest_schema()
