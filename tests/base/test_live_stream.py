"""Output that nobody reads holds nothing up."""

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator
from typing import TextIO

import pytest

from garrison.base.output.live_stream import LiveStream


class Pipe:
    def __init__(self) -> None:
        self.readable, writable = os.pipe()
        self.stream: TextIO = open(writable, "w", encoding="utf-8")  # noqa: SIM115 - closed by the fixture

    def read(self) -> str:
        """What is in it now."""
        got = []
        os.set_blocking(self.readable, False)
        with contextlib.suppress(BlockingIOError):
            while content := os.read(self.readable, 1 << 20):
                got.append(content)
        return b"".join(got).decode()

    def close(self) -> None:
        os.close(self.readable)
        self.stream.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def test_what_is_written_arrives_in_order(pipe: Pipe) -> None:
    live = LiveStream(pipe.stream)
    for number in range(100):
        live.write(f"{number}\n")
    assert live.drain(10)
    assert pipe.read() == "".join(f"{number}\n" for number in range(100))
    assert live.dropped == 0


def test_a_reader_that_does_not_read_holds_nobody_up(pipe: Pipe, until: Callable[..., None]) -> None:
    """The pipe holds 64 KiB, the stream its limit; the rest is counted and the count is written."""
    live = LiveStream(pipe.stream, limit=200_000)
    for number in range(10_000):
        live.write(f"line {number:05} {'x' * 88}\n")
    assert 7_000 < live.dropped < 8_500
    assert not live.drain(0.05)
    got = []

    def read_up() -> bool:
        got.append(pipe.read())
        return live.drain(0)

    until(read_up)
    got.append(pipe.read())
    live.write("on again\n")
    assert live.drain(10)
    got.append(pipe.read())
    expected, reported = 0, 0
    # The thread may free room between two writes of the loop above, so drops can be reported more than once.
    for line in "".join(got).splitlines():
        if notice := re.fullmatch(r"\(([\d,]+) writes dropped: nobody read this output\)", line):
            reported += int(notice[1].replace(",", ""))
        elif line == "on again":
            assert expected + reported == 10_000
        else:
            assert line == f"line {expected + reported:05} {'x' * 88}"
            expected += 1
    assert reported == live.dropped
    assert line == "on again"


def test_a_reader_that_is_gone_is_an_error_of_the_next_write(pipe: Pipe, until: Callable[..., None]) -> None:
    live = LiveStream(pipe.stream)
    os.close(pipe.readable)
    live.write("lost\n")
    assert live.drain(10)
    with pytest.raises(BrokenPipeError):
        live.write("more\n")
    pipe.readable = os.open(os.devnull, os.O_RDONLY)


def test_a_stream_without_a_descriptor_is_written_to_directly() -> None:
    plain = io.StringIO()
    live = LiveStream(plain)
    live.write("text")
    live.flush()
    assert (plain.getvalue(), live.isatty(), live.drain(0)) == ("text", False, True)


def test_characters_that_its_encoding_lacks_are_replaced() -> None:
    readable, writable = os.pipe()
    with open(writable, "w", encoding="ascii") as stream:
        live = LiveStream(stream)
        live.write("naïve ✓\n")
        assert live.drain(10)
    assert os.read(readable, 100) == b"na?ve ?\n"
    os.close(readable)


def test_the_log_says_once_that_output_is_dropped(pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    live = LiveStream(pipe.stream, limit=100_000)
    for _ in range(5_000):
        live.write("x" * 100)
    assert live.dropped > 1_000
    lines = [one for one in caplog.records if one.getMessage() == "output is not read, dropping it"]
    assert 1 <= len(lines) <= live.dropped // 100, "not one line a write"
