"""A server behind a path prefix, whether the proxy removes it or not."""

from pathlib import Path

import pytest
from served_api import ServedApi


@pytest.mark.parametrize("prefix", ["/garrison", "/garrison/"])
async def test_both_kinds_of_proxy(tmp_path: Path, prefix: str) -> None:
    served = await ServedApi(tmp_path, root_path=prefix).startup()
    try:
        for path in ("/api/v1/version", f"{prefix.rstrip('/')}/api/v1/version"):
            assert (await served.client.get(path)).status_code == 200, path
        form = await served.client.post(f"{prefix.rstrip('/')}/api/v1/instances/a", data={"a": "1"})
        assert form.status_code == 415, "what is checked below the prefix is checked with it, too"
    finally:
        await served.shutdown()


async def test_a_prefix_opens_nothing(tmp_path: Path) -> None:
    served = await ServedApi(tmp_path, root_path="/garrison", require_management_auth=True).startup()
    try:
        for path in (
            "/garrison/api/v1/instances",
            "/garrison/garrison/api/v1/instances",
            "/garrisonx/api/v1/instances",
        ):
            assert (await served.client.get(path)).status_code == 401, path
        assert (await served.client.get("/garrison/healthz")).status_code == 200
    finally:
        await served.shutdown()
