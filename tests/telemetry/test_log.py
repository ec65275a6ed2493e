"""The log: one line a record, with ids and facts, without secrets or control characters, and never in anybody's way."""

import asyncio
import io
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator
from typing import TextIO

import pytest

from garrison.base.logs import bind, bound, logger
from garrison.base.redaction import know_secret
from garrison.telemetry.log import LogOutput, log_output

LOG = logger("garrison.somewhere")


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """A JSON log at INFO, written at once: the stream has no descriptor."""
    stream = io.StringIO()
    with log_output(stream, style="json", level="info"):
        yield stream


def lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_time_level_message_logger_and_facts(out):
    LOG.info("repair began", target="edge-1", actions=3, share=0.5, names=("sql", "chat"), cause=None)
    (line,) = lines(out)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("at"))
    assert line == {
        "level": "info",
        "event": "repair began",
        "logger": "garrison.somewhere",
        "target": "edge-1",
        "actions": 3,
        "share": 0.5,
        "names": ["sql", "chat"],
        "cause": None,
    }


def test_levels(out):
    LOG.debug("d")
    LOG.info("i")
    LOG.warning("w")
    LOG.error("e")
    assert [(line["event"], line["level"]) for line in lines(out)] == [("i", "info"), ("w", "warning"), ("e", "error")]


def test_a_fact_takes_no_field_of_the_line(out):
    LOG.info("true", event="false", level="debug", logger="else", at="never")
    (line,) = lines(out)
    assert (line["event"], line["level"], line["logger"]) == ("true", "info", "garrison.somewhere")
    assert line["at"] != "never"


def test_a_percent_sign_is_no_placeholder(out):
    LOG.info("100%s done %d")
    assert lines(out)[0]["event"] == "100%s done %d"


def test_ids_are_bound_to_the_block_and_to_the_tasks_started_in_it(out):
    async def work(name: str) -> None:
        with bound(request=name):
            await asyncio.sleep(0)
            LOG.info("served")
            bind(step=1)
        LOG.info("after")

    async def both() -> None:
        with bound(command="c-1"):
            await asyncio.gather(work("r-1"), work("r-2"))
        LOG.info("outside")

    asyncio.run(both())
    served = [line for line in lines(out) if line["event"] == "served"]
    assert [(line["command"], line["request"]) for line in served] == [("c-1", "r-1"), ("c-1", "r-2")]
    assert all("request" not in line and line["command"] == "c-1" for line in lines(out) if line["event"] == "after")
    assert lines(out)[-1].keys() == {"at", "level", "event", "logger"}


def test_a_fact_wins_over_an_id(out):
    with bound(stack="a"):
        LOG.info("x", stack="b")
    assert lines(out)[0]["stack"] == "b"


def test_secrets_are_hidden_wherever_they_stand(out):
    know_secret("correct-horse")
    LOG.warning(
        "answer correct-horse",
        url="http://u:correct-horse@h/",
        nested={"deep": ["correct-horse", {"api_key": 1234}]},
        token="abc",
        keys={"x": "Authorization: Bearer sk-abcdefgh"},
    )
    assert "correct-horse" not in out.getvalue()
    assert "sk-abcdefgh" not in out.getvalue()
    (line,) = lines(out)
    assert (line["token"], line["nested"]["deep"][1]["api_key"]) == ("***", "***")


def test_control_characters_are_made_visible(out):
    LOG.info("a\x1b[31mb\nc", name="x\x9b2J\u2028y", key={"k\x07": "v"})
    assert len(out.getvalue().splitlines()) == 1
    (line,) = lines(out)
    assert line["event"] == "a�[31mb c"
    assert all(sign.isprintable() for sign in out.getvalue().rstrip("\n"))


def test_an_exception_keeps_its_lines_and_loses_its_secrets(out):
    know_secret("correct-horse")
    try:
        raise ValueError("no correct-horse \x1b[2J")
    except ValueError as error:
        LOG.error("died", exception=error)
    (line,) = lines(out)
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("ValueError: no *** �[2J")


def test_what_json_lacks_becomes_text(out):
    LOG.info("x", nan=float("nan"), path=os, deep=[[[[[[[[[["down"]]]]]]]]]])
    (line,) = lines(out)
    assert line["nan"] == "nan"
    assert line["path"].startswith("<module 'os'")
    assert "down" in json.dumps(line["deep"])


def test_a_long_text_is_cut(out):
    LOG.info("x", answer="y" * 1_000_000)
    assert len(out.getvalue()) < 20_000
    assert lines(out)[0]["answer"].endswith("y…")


def test_a_line_that_cannot_be_shown_ends_nobody(out):
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("never")

    LOG.info("x", what=Broken())
    (line,) = lines(out)
    assert (line["event"], line["error"]) == ("a log line could not be formatted", "RuntimeError")
    assert line["source"] == "garrison.somewhere"


def test_libraries_log_from_warning_up(out):
    library = logging.getLogger("a_library")
    library.info("chatter")
    library.warning("%s retries", 3)
    (line,) = lines(out)
    assert (line["event"], line["level"], line["logger"]) == ("3 retries", "warning", "a_library")


def test_the_level_holds_for_libraries_too():
    stream = io.StringIO()
    with log_output(stream, style="json", level="error"):
        logging.getLogger("a_library").warning("chatter")
        LOG.warning("ours")
        logging.getLogger("a_library").error("broken")
    assert [line["event"] for line in lines(stream)] == ["broken"]


def test_after_the_block_nothing_is_logged_and_the_loggers_are_as_before(capfd):
    root, own = logging.getLogger(), logging.getLogger("garrison")
    before = list(root.handlers), own.level
    stream = io.StringIO()
    with log_output(stream, style="json", level="debug"):
        LOG.debug("in")
    LOG.error("out")
    assert [line["event"] for line in lines(stream)] == ["in"]
    assert (list(root.handlers), own.level) == before
    assert capfd.readouterr() == ("", "")


def test_without_an_output_nothing_is_printed(capfd):
    LOG.error("nobody asked")
    assert capfd.readouterr() == ("", "")


def test_the_console_style():
    stream = io.StringIO()
    with log_output(stream, style="console", level="info"), bound(command="c-1"):
        LOG.warning("target unreachable", target="edge 1", cause="refused")
    (line,) = stream.getvalue().splitlines()
    assert "\x1b" not in line
    assert re.match(
        r"\d{4}-\d\d-\d\dT[\d:.]+Z \[warning  \] target unreachable +\[garrison.somewhere\] command=c-1", line
    )
    assert line.endswith("target='edge 1' cause=refused")


class Pipe:
    def __init__(self) -> None:
        self.readable, writable = os.pipe()
        self.stream: TextIO = open(writable, "w", encoding="utf-8")  # noqa: SIM115 - closed by the fixture


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.readable)
    made.stream.close()


def test_a_reader_that_does_not_read_blocks_nobody_and_learns_what_it_missed(pipe, until):
    output = LogOutput(pipe.stream, style="json", level="info", limit=100_000)
    for number in range(3_000):
        LOG.info("line", number=number)
    assert output.dropped > 1_000
    got = b""

    def read_up() -> bool:
        nonlocal got
        got += os.read(pipe.readable, 1 << 20)
        return output._stream.drain(0.01)

    until(read_up)
    LOG.info("on again")
    output.close()
    os.set_blocking(pipe.readable, False)
    got += os.read(pipe.readable, 1 << 20)
    seen = [json.loads(line) for line in got.decode().splitlines()]
    told = [line["lines"] for line in seen if line["event"].startswith("log lines dropped")]
    assert sum(told) == output.dropped
    assert len([line for line in seen if line["event"] == "line"]) + output.dropped == 3_000
    assert seen[-1]["event"] == "on again"


def test_a_reader_that_is_gone_ends_nobody(pipe):
    output = LogOutput(pipe.stream, style="json", level="info")
    os.close(pipe.readable)
    LOG.info("lost")
    output.close()
    LOG.info("more")
    assert output.dropped == 0
    pipe.readable = os.open(os.devnull, os.O_RDONLY)


@pytest.mark.filterwarnings("always")
def test_a_warning_of_python_is_a_line_of_the_log_and_never_blocks(pipe):
    with log_output(pipe.stream, style="json", level="info", limit=1000) as log:
        for number in range(2000):
            warnings.warn(f"old API {number} {'x' * 100}", DeprecationWarning, stacklevel=1)
        assert log.dropped > 0
    stream = io.StringIO()
    with log_output(stream, style="json", level="info"):
        warnings.warn("old API", UserWarning, stacklevel=1)
    (line,) = lines(stream)
    assert (line["level"], line["logger"], "old API" in line["event"]) == ("warning", "py.warnings", True)
