import logging
from pathlib import Path

import pytest

from garrison.base.redaction import know_secret
from garrison.models.download_log import download_log


def test_a_kept_log_holds_no_secret(tmp_path: Path) -> None:
    know_secret("hf_x")
    path = tmp_path / "logs" / "one.log"

    def download() -> None:
        with download_log(path, keep=False):
            logging.getLogger("huggingface_hub.x").warning("sending %r", {"authorization": "Bearer hf_x"})
            raise ValueError("b'Bearer hf_x\\n', https://cdn/file?X-Amz-Signature=abcdef&x=1")

    with pytest.raises(ValueError, match="hf_x"):
        download()
    text = path.read_text()
    assert "sending" in text
    assert "ended by ValueError" in text
    assert "hf_x" not in text
    assert "abcdef" not in text
