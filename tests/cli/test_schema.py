import json
from typing import Any

import pytest

from garrison.fleet.manifest.schema import manifest_schema


@pytest.mark.parametrize("words", [[], ["--json"]], ids=["plain", "json"])
def test_the_schema_comes_out(cli: Any, words: list[str]) -> None:
    done = cli("schema", *words)
    assert done.code == 0
    assert json.loads(done.out) == manifest_schema()
