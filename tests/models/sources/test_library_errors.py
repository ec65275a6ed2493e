"""No exception that huggingface_hub, httpx2 or obstore declare leaves a source as it is."""

import inspect
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import obstore
import pytest
from huggingface_hub import errors as hub_errors
from huggingface_hub.hf_api import BlobLfsInfo

from garrison.base.errors import FetchError, GarrisonError, InternalError, InvalidError, ModelNotFoundError
from garrison.models.layout import Layout
from garrison.models.names import parse_model
from garrison.models.request import ResolveRequest
from garrison.models.resolve import resolve
from garrison.models.sources.hf_hub import HfHubSource
from garrison.models.sources.r2 import R2Source
from garrison.testing.clock import FakeClock


def declared(*modules: Any) -> list[type[Exception]]:
    found = {one for module in modules for one in vars(module).values() if inspect.isclass(one)}
    errors = (one for one in found if issubclass(one, Exception) and not issubclass(one, Warning))
    return sorted(errors, key=lambda one: one.__qualname__)


HUB = declared(hub_errors, httpx2)
STORE = declared(obstore.exceptions)


def made(kind: type[Exception]) -> Exception:
    """An instance, whatever its constructor wants."""
    error = kind.__new__(kind)
    error.args = ("it went wrong",)
    response = httpx2.Response(418, request=httpx2.Request("GET", "http://hub"))
    for name, value in {"response": response, "server_message": None, "request_id": None, "_request": None}.items():
        if issubclass(kind, httpx2.HTTPError):
            setattr(error, name, value)
    return error


def raising(error: Exception) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call


@pytest.fixture
def asking(tmp_path: Path) -> Callable[..., ResolveRequest]:
    def ask(**fields: Any) -> ResolveRequest:
        layout = Layout(tmp_path / "models", tmp_path / "data")
        return ResolveRequest(model=parse_model("acme/tiny"), layout=layout, hf_endpoint="http://127.0.0.1:1", **fields)

    return ask


def outcome(request: ResolveRequest, source: Any) -> GarrisonError:
    with pytest.raises(GarrisonError) as caught:
        resolve(request, sources=[source], clock=FakeClock(), free_bytes=lambda _: 1 << 40)
    assert not isinstance(caught.value, InternalError)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("kind", HUB, ids=lambda kind: kind.__qualname__)
def test_asking_the_hub(asking: Any, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", raising(made(kind)))
    assert isinstance(outcome(asking(), HfHubSource(environ={})), FetchError | ModelNotFoundError)


@pytest.mark.parametrize("kind", HUB, ids=lambda kind: kind.__qualname__)
def test_fetching_from_the_hub(asking: Any, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    sibling = huggingface_hub.hf_api.RepoSibling(rfilename="config.json", size=2, blob_id="")
    info = huggingface_hub.hf_api.ModelInfo(id="acme/tiny", sha="c" * 40, siblings=[])
    info.siblings = [sibling]
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: info)
    monkeypatch.setattr(huggingface_hub.get_session(), "stream", raising(made(kind)))
    assert isinstance(outcome(asking(), HfHubSource(environ={})), FetchError)


@pytest.mark.parametrize("kind", STORE, ids=lambda kind: kind.__qualname__)
@pytest.mark.parametrize("call", ["list", "get_async"])
def test_the_store(asking: Any, monkeypatch: pytest.MonkeyPatch, kind: type[Exception], call: str) -> None:
    async def pages(*_: Any, **__: Any) -> Any:
        if call == "list":
            raise made(kind)
        yield [{"path": "config.json", "size": 2, "e_tag": "x"}]

    monkeypatch.setattr(obstore, "list", pages)
    monkeypatch.setattr(obstore, "get_async", raising(made(kind)))
    environ = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}
    request = asking(r2_bucket="models", r2_prefix="p", r2_endpoint="http://127.0.0.1:1")
    assert isinstance(outcome(request, R2Source(environ=environ)), FetchError | ModelNotFoundError)


SETUP: dict[str, Exception] = {
    "a proxy of an unknown kind": ValueError("Unknown scheme for proxy URL"),
    "a proxy that needs another library": ImportError("Using SOCKS proxy, but the 'socksio' package is not installed."),
    "certificates that are not there": FileNotFoundError(2, "No such file or directory"),
}


@pytest.mark.parametrize("error", SETUP.values(), ids=SETUP)
def test_what_is_raised_before_any_request(asking: Any, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(huggingface_hub, "get_session", raising(error))
    found = outcome(asking(), HfHubSource(environ={}))
    assert isinstance(found, InvalidError)
    assert "HTTPS_PROXY" in str(found.hint)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
@pytest.mark.parametrize("value", ["1", "true", "YES", " on "])
def test_the_libraries_own_switches(asking: Any, variable: str, value: str) -> None:
    found = outcome(asking(), HfHubSource(environ={variable: value}))
    assert isinstance(found, ModelNotFoundError)
    assert found.details["tried"][0]["reason"] == f"{variable} is set"


@pytest.mark.parametrize(
    "environ", [{"TRANSFORMERS_OFFLINE": "0"}, {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"}, {}]
)
def test_a_switch_that_is_off(asking: Any, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", raising(httpx2.UnsupportedProtocol("asked")))
    assert "asked" in outcome(asking(), HfHubSource(environ=environ)).message


LISTED: dict[str, dict[str, Any]] = {
    "a size as text": {"size": "12"},
    "a size below zero": {"size": -1},
    "a size that is a fraction": {"size": 0.5},
    "a name that is a list": {"rfilename": ["config.json"]},
    "a name that is a number": {"rfilename": 7},
    "a digest that is a number": {"blob_id": 7},
    "a digest that is an object": {"lfs": BlobLfsInfo(size=2, sha256={}, pointer_size=1)},
}


@pytest.mark.parametrize("fields", LISTED.values(), ids=LISTED)
def test_a_listing_of_other_types(asking: Any, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]) -> None:
    sibling = huggingface_hub.hf_api.RepoSibling(**{"rfilename": "config.json", "size": 2, "blob_id": ""} | fields)
    info = huggingface_hub.hf_api.ModelInfo(id="acme/tiny", sha="c" * 40, siblings=[])
    info.siblings = [sibling]
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: info)
    assert "does not behave like a hub" in outcome(asking(), HfHubSource(environ={})).message


@pytest.mark.parametrize("name", ["HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"])
def test_a_variable_that_the_library_cannot_read_when_it_is_imported(
    tmp_path: Path, clean_environ: Mapping[str, str], name: str
) -> None:
    environ = {**clean_environ, "HF_ENDPOINT": "http://127.0.0.1:1", name: "ten"}
    words = [sys.executable, "-m", "garrison.cli.main", "resolve", "acme/tiny"]
    done = subprocess.run(words, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "HF_HUB_" in done.stderr
    assert "this is a bug" not in done.stderr
