"""One TLS context for each declaration, and errors that name the field."""

import asyncio
import os
import shutil
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from served import Certify

from garrison.fleet.values.target import TargetSpec
from garrison.net import tls as tls_module
from garrison.net.endpoint import Tls
from garrison.net.tls import TlsContexts, TlsFileError


def test_verification_is_on_and_one_context_is_shared(certify: Certify) -> None:
    contexts = TlsContexts()
    context = contexts.get(Tls())
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert contexts.get(Tls()) is context
    assert contexts.get(Tls(ca=certify("good").cert)) is not context


def test_a_declared_ca_takes_the_place_of_the_systems(certify: Certify) -> None:
    context = TlsContexts().get(Tls(ca=certify("good").cert))
    assert [dict(part[0] for part in one["subject"]) for one in context.get_ca_certs()] == [{"commonName": "good"}]


def test_insecure() -> None:
    context = TlsContexts().get(Tls(insecure=True))
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)


def test_what_anybody_may_pose_as_is_told() -> None:
    targets = [
        TargetSpec(name="a", base_url="https://a", tls=Tls(insecure=True)),
        TargetSpec(name="b", base_url="https://b"),
        TargetSpec(name="c", base_url="http://c", tls=Tls(insecure=True)),
    ]
    assert [one.name for one in targets if one.unverified] == ["a"]


def test_a_renewed_file_is_read_again(certify: Certify, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    shutil.copy(certify("good").cert, ca)
    contexts = TlsContexts()
    first = contexts.get(Tls(ca=str(ca)))
    shutil.copy(certify("other").cert, tmp_path / "new.pem")
    os.replace(tmp_path / "new.pem", ca)
    second = contexts.get(Tls(ca=str(ca)))
    assert second is not first
    assert contexts.get(Tls(ca=str(ca))) is second


@pytest.fixture
def files(certify: Certify, tmp_path: Path) -> dict[str, str]:
    good, other = certify("good"), certify("other")
    (tmp_path / "text").write_text("no PEM")
    locked = str(tmp_path / "locked.key")
    argv = ["openssl", "pkcs8", "-topk8", "-in", good.key, "-out", locked, "-passout", "pass:s3cr3t"]
    subprocess.run(argv, check=True, capture_output=True)
    return {
        "cert": good.cert,
        "key": good.key,
        "other-key": other.key,
        "text": str(tmp_path / "text"),
        "locked": locked,
        "none": str(tmp_path / "none"),
    }


WRONG = {
    "no-ca": ({"ca": "none"}, "tls.ca: ", "no such file"),
    "ca-is-text": ({"ca": "text"}, "tls.ca: ", "no PEM certificates"),
    "no-key": ({"cert": "cert", "key": "none"}, "tls.cert: ", "no such file"),
    "key-of-another": ({"cert": "cert", "key": "other-key"}, "tls.cert: ", "not a matching PEM pair"),
    "cert-without-key": ({"cert": "cert"}, "tls.cert: ", "not a matching PEM pair"),
    "key-behind-a-password": ({"cert": "cert", "key": "locked"}, "tls.cert: ", "not a matching PEM pair"),
}


@pytest.mark.parametrize(("given", "field", "reason"), WRONG.values(), ids=WRONG.keys())
def test_files_that_cannot_be_used(given: dict[str, str], field: str, reason: str, files: dict[str, str]) -> None:
    with pytest.raises(TlsFileError) as caught:
        TlsContexts().get(Tls(**{name: files[which] for name, which in given.items()}))  # type: ignore[arg-type] # text
    assert str(caught.value).startswith(field)
    assert reason in str(caught.value)


async def test_files_that_hang_cost_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, go_on = [], threading.Event()

    def read(path: str | None) -> None:
        asked.append(path)
        assert go_on.wait(10)

    monkeypatch.setattr(tls_module, "_stamp", read)
    contexts = TlsContexts()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await contexts.load(Tls(ca="/mnt/ca.pem"))
    go_on.set()
    assert len(asked) == 1
