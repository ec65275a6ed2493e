import contextvars
import logging
import threading
from pathlib import Path

import pytest

from garrison.base.redaction import know_secret
from garrison.models.download_log import download_log, route_library
from garrison.models.files.stop_token import StopToken
from garrison.models.sources.side_by_side import side_by_side


def test_a_kept_log_holds_no_secret(tmp_path: Path) -> None:
    know_secret("hf_x")
    route_library("huggingface_hub")
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


def test_two_downloads_at_once_keep_their_lines_apart(tmp_path: Path) -> None:
    route_library("huggingface_hub")
    both = threading.Barrier(2)

    def download(name: str) -> None:
        with download_log(tmp_path / name / "one.log", keep=True):
            for line in range(20):
                both.wait(10)
                logging.getLogger("garrison.models.sources").info("%s own %d", name, line)
                logging.getLogger("huggingface_hub.x").warning("%s library %d", name, line)

    threads = [threading.Thread(target=download, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for name, other in (("a", "b"), ("b", "a")):
        text = (tmp_path / name / "one.log").read_text()
        assert text.count(f"{name} own") == text.count(f"{name} library") == 20
        assert f"{other} own" not in text
        assert f"{other} library" not in text


def test_threads_of_a_download_write_to_its_log(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "one.log"

    def work(item: str, _: StopToken) -> None:
        logging.getLogger("garrison.models.sources").info("from a thread: %s", item)

    with download_log(path, keep=True):
        side_by_side(["x", "y"], work, StopToken(), workers=2, name="t")
    assert path.read_text().count("from a thread") == 2


def test_other_handlers_of_a_library_get_what_is_logged_outside_of_a_download(tmp_path: Path) -> None:
    library = logging.getLogger("huggingface_hub")
    seen: list[str] = []

    class Seeing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    handler = Seeing()
    library.addHandler(handler)
    route_library("huggingface_hub")
    level, handlers = library.level, list(library.handlers)
    try:
        with download_log(tmp_path / "logs" / "one.log", keep=True):
            library.warning("inside")
            assert (library.level, library.handlers) == (level, handlers)
        library.warning("outside")
    finally:
        library.removeHandler(handler)
    assert seen == ["outside"]


def test_a_thread_that_outlives_the_download_does_not_bring_its_log_back(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "one.log"
    contexts: list[contextvars.Context] = []
    with download_log(path, keep=False):
        logging.getLogger("garrison.models.sources").info("now")
        contexts.append(contextvars.copy_context())
    assert not path.exists()
    contexts[0].run(logging.getLogger("garrison.models.sources").warning, "late")
    assert not path.exists()
