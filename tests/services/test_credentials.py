"""Which addresses are sent a credential: the one that was configured, over TLS or on this machine."""

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hub import Fault, Hub

from garrison.base.errors import FetchError, InvalidError, ModelNotFoundError
from garrison.models.request import ResolveRequest
from garrison.models.resolve import resolve
from garrison.models.sources.hf_hub import HfHubSource
from garrison.models.sources.plain_http import is_exposed, is_loopback
from garrison.models.sources.r2 import R2Source
from garrison.testing.clock import FakeClock
from garrison.testing.progress import MemoryProgress

pytestmark = pytest.mark.service
Asking = Callable[..., ResolveRequest]
TOKEN = "hf_Secret12345678"
SENT = f"Bearer {TOKEN}"


@pytest.fixture
def elsewhere(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> str:
    """The hub under a name that is not this machine's, as far as a client can know."""
    real = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host == "hub.example" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setenv("NO_PROXY", "*")
    return hub.url.replace("127.0.0.1", "hub.example")


@pytest.fixture
def cdn(model_files: dict[str, bytes]) -> Iterator[Hub]:
    with Hub() as server:
        server.add("acme/tiny", model_files)
        yield server


def warnings(progress: MemoryProgress) -> list[str]:
    return [facts["message"] for name, facts in progress.steps if name == "warning"]


class TestHub:
    def test_plain_http_to_another_machine_is_sent_no_token_and_the_user_is_told(
        self, asking: Asking, hub: Hub, elsewhere: str
    ) -> None:
        progress = MemoryProgress()
        request = asking(hf_endpoint=elsewhere, hf_token=TOKEN)
        found = resolve(request, sources=[HfHubSource(environ={})], clock=FakeClock(), progress=progress)
        assert found.source == "hf-hub"
        assert len(hub.tokens) > 5
        assert set(hub.tokens) == {None}
        (warning,) = warnings(progress)
        assert f"HF_TOKEN is not sent to {elsewhere}" in warning
        assert "use https" in warning

    def test_not_one_from_the_users_files_either(
        self, asking: Asking, hub: Hub, elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from huggingface_hub import constants

        (tmp_path / "token").write_text(TOKEN)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        progress = MemoryProgress()
        resolve(asking(hf_endpoint=elsewhere), sources=[HfHubSource(environ={})], progress=progress)
        assert set(hub.tokens) == {None}
        assert len(warnings(progress)) == 1
        hub.tokens.clear()
        resolve(asking("acme/tiny@main", hf_endpoint=hub.url), sources=[HfHubSource(environ={})])
        assert set(hub.tokens) == {SENT}

    def test_without_a_token_there_is_nothing_to_tell(self, asking: Asking, elsewhere: str) -> None:
        progress = MemoryProgress()
        resolve(asking(hf_endpoint=elsewhere), sources=[HfHubSource(environ={})], progress=progress)
        assert warnings(progress) == []

    @pytest.mark.parametrize("where", ["/api/models/", "/resolve/"], ids=["listing", "file"])
    def test_a_refusal_says_that_the_token_was_not_sent(
        self, asking: Asking, hub: Hub, elsewhere: str, where: str
    ) -> None:
        hub.faults.append(Fault(where, "gated", times=99))
        request = asking(hf_endpoint=elsewhere, hf_token=TOKEN)
        with pytest.raises(FetchError, match="HF_TOKEN was not sent over plain HTTP") as caught:
            resolve(request, sources=[HfHubSource(environ={})], clock=FakeClock())
        assert "https" in str(caught.value.hint)

    def test_so_does_a_model_that_may_be_private(self, asking: Asking, elsewhere: str) -> None:
        request = asking("acme/private", hf_endpoint=elsewhere, hf_token=TOKEN)
        with pytest.raises(ModelNotFoundError, match=r"private\s+and HF_TOKEN was not sent"):
            resolve(request, sources=[HfHubSource(environ={})], clock=FakeClock())

    def test_this_machine_is_sent_the_token(self, asking: Asking, hub: Hub) -> None:
        progress = MemoryProgress()
        request = asking(hf_endpoint=hub.url, hf_token=TOKEN)
        resolve(request, sources=[HfHubSource(environ={})], progress=progress)
        assert set(hub.tokens) == {SENT}
        assert warnings(progress) == []

    @pytest.mark.parametrize("where", ["/api/models/", "/resolve/"], ids=["listing", "file"])
    @pytest.mark.parametrize("sizes", [True, False])
    def test_a_redirect_to_another_host_drops_the_token(
        self, asking: Asking, hub: Hub, cdn: Hub, where: str, sizes: bool
    ) -> None:
        hub.sizes = cdn.sizes = sizes
        hub.faults.append(Fault(where, "redirect", times=99, to=cdn.url))
        request = asking(hf_endpoint=hub.url, hf_token=TOKEN)
        assert resolve(request, sources=[HfHubSource(environ={})], clock=FakeClock()).source == "hf-hub"
        assert set(hub.tokens) == {SENT}
        assert cdn.tokens
        assert set(cdn.tokens) == {None}

    def test_a_password_in_a_plain_address_is_refused(self, asking: Asking, hub: Hub, elsewhere: str) -> None:
        request = asking(hf_endpoint=elsewhere.replace("http://", "http://me:passw0rd-9@"))
        with pytest.raises(InvalidError, match="HF_ENDPOINT contains a user or password") as caught:
            resolve(request, sources=[HfHubSource(environ={})], clock=FakeClock())
        assert "passw0rd" not in json.dumps(caught.value.to_json())
        assert hub.requests == []


class TestStore:
    KEYS: Mapping[str, str] = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI"}

    def find(self, asking: Asking, endpoint: str, progress: MemoryProgress, **environ: str) -> None:
        request = asking(r2_bucket="models", r2_prefix="p", r2_endpoint=endpoint)
        source = R2Source(environ={**self.KEYS, **environ}, read_timeout=0.2, retry_budget=0.2, first_backoff=0.01)
        resolve(request, sources=[source], clock=FakeClock(), progress=progress)

    @pytest.mark.parametrize("endpoint", ["http://10.0.0.1:9000", "http://127.0.0.1.nip.io:9000", "http://[fd00::1]"])
    def test_plain_http_to_another_machine_is_refused(self, asking: Asking, endpoint: str) -> None:
        with pytest.raises(InvalidError, match="plain HTTP to another machine") as caught:
            self.find(asking, endpoint, MemoryProgress())
        assert "use https" in str(caught.value.hint).lower()

    def test_with_the_users_word_it_is_used_and_told(self, asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
        from garrison.models.sources.r2 import _may_use_http

        progress = MemoryProgress()
        assert _may_use_http("http://10.0.0.1:9000", {"AWS_ALLOW_HTTP": "true"}, progress)
        (warning,) = warnings(progress)
        assert "http://10.0.0.1:9000" in warning
        assert "AWS_ALLOW_HTTP" in warning
        assert _may_use_http("http://127.0.0.1:9000", {}, progress)
        assert not _may_use_http("https://s3.example", {}, progress)
        assert len(warnings(progress)) == 1

    def test_a_password_in_a_plain_address_is_refused(self, asking: Asking) -> None:
        with pytest.raises(InvalidError, match="R2_ENDPOINT_URL contains a user or password"):
            self.find(asking, "http://me:passw0rd-9@10.0.0.1:9000", MemoryProgress(), AWS_ALLOW_HTTP="true")

    @pytest.mark.parametrize("uri", ["http://10.0.0.1/creds", "http://localhost.example/creds"])
    def test_a_container_token_goes_to_no_plain_address_of_another_machine(self, asking: Asking, uri: str) -> None:
        request = asking(r2_bucket="models", r2_prefix="p")
        source = R2Source(environ={"AWS_CONTAINER_CREDENTIALS_FULL_URI": uri})
        with pytest.raises(InvalidError, match="AWS_CONTAINER_CREDENTIALS_FULL_URI is plain HTTP"):
            resolve(request, sources=[source], clock=FakeClock())

    def test_the_services_of_ecs_and_eks_are_asked(self) -> None:
        from garrison.models.sources.aws_credentials import refuse_exposed_credentials

        for host in ("169.254.170.2", "169.254.170.23", "[fd00:ec2::23]", "127.0.0.1:51679", "localhost"):
            refuse_exposed_credentials({"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://{host}/v1/creds"})
        refuse_exposed_credentials({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "https://creds.example/v1"})
        refuse_exposed_credentials({**self.KEYS, "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://10.0.0.1/unused"})


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("hub.localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("127.0.0.1.nip.io", False),
        ("localhost.example.org", False),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_which_hosts_are_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
    address = f"[{host}]" if ":" in host else host
    assert is_exposed(f"http://{address}/x") is not expected
    assert not is_exposed(f"https://{address}/x")
