"""The access log: which requests are in it, and what becomes of lines that cannot be written."""

import asyncio
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import InvalidError
from garrison.gateway.link.reports import FinishedValue
from garrison.server.workers import access_log
from garrison.server.workers.access_log import AccessLog, append, line_of
from garrison.testing.thread_pool import DirectPool


class Lab:
    """A log and the settings that it reads."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.share, self.most = path, 1.0, 2**20
        self.draws = iter((0.05, 0.5, 0.95, 0.09))
        self.log = AccessLog(
            DirectPool(), lambda: self.path, lambda: self.share, lambda: self.most, lambda: next(self.draws)
        )

    async def add(self, *requests: FinishedValue) -> None:
        self.log.add(requests)
        await self.log.close(5)

    def ids(self, name: str = "log") -> list[str]:
        assert self.path is not None
        return [json.loads(one)["id"] for one in self.path.with_name(name).read_text().splitlines()]


def request(id: str, status: int = 200, outcome: str = "ok") -> FinishedValue:
    return FinishedValue(id=id, at=1e9, status=status, outcome=outcome, model='a"\n')


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "log")


def test_a_line_is_one_object_and_one_line() -> None:
    line = line_of(request("a"))
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    found = json.loads(line)
    assert (found["at"], found["model"], found["first_byte"]) == ("2001-09-09T01:46:40.000+00:00", 'a"\n', None)


async def test_a_share_of_those_that_went_well_is_written_and_all_others(lab: Lab) -> None:
    lab.share = 0.1
    await lab.add(
        *(request(str(number)) for number in range(4)), request("bad", 503), request("left", 200, "client-left")
    )
    assert lab.ids() == ["0", "3", "bad", "left"]


async def test_nothing_is_kept_without_a_path(lab: Lab) -> None:
    lab.path = None
    await lab.add(request("a"))
    assert (lab.log._lines, lab.log._writing) == ([], None)


async def test_only_the_owner_reads_it_and_a_large_one_is_moved_away(lab: Lab) -> None:
    await lab.add(request("a"))
    assert lab.path is not None
    assert lab.path.stat().st_mode & 0o777 == 0o600
    lab.most = 10
    await lab.add(request("b"))
    assert (lab.ids(), lab.ids("log.1")) == (["b"], ["a"])


async def test_it_goes_on_in_a_new_file_when_somebody_moves_the_old_one(lab: Lab) -> None:
    await lab.add(request("a"))
    assert lab.path is not None
    lab.path.rename(lab.path.with_name("moved"))
    await lab.add(request("b"))
    assert (lab.ids(), lab.ids("moved")) == (["b"], ["a"])


async def test_lines_wait_for_a_disk_that_is_back_and_the_oldest_are_dropped_and_counted(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "_MOST_WAITING", 3)
    monkeypatch.setattr(access_log, "_RETRY_SECONDS", 0.01)
    assert lab.path is not None
    lab.path.mkdir()
    lab.log.add([request("a")])
    await asyncio.sleep(0.03)
    lab.log.add([request(str(number)) for number in range(3)])
    await asyncio.sleep(0.03)
    lab.path.rmdir()
    await lab.log.close(5)
    assert (lab.ids(), lab.log.lost) == (["0", "1", "2"], 1)


async def test_a_batch_that_was_written_in_part_is_written_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "_RETRY_SECONDS", 0.01)
    await lab.add(request("before"))
    write, results = os.write, iter([150, None])

    def some(file: int, data: bytes) -> int:
        most = next(results, len(data))
        if most is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[:most])

    monkeypatch.setattr(os, "write", some)
    await lab.add(*(request(str(number)) for number in range(3)))
    assert lab.ids() == ["before", "0", "1", "2"]


async def test_lines_that_cannot_be_written_by_the_end_are_counted(lab: Lab) -> None:
    assert lab.path is not None
    lab.path.mkdir()
    lab.log.add([request("a")])
    await asyncio.sleep(0.01)
    lab.log.add([request("b")])
    await lab.log.close(0.01)
    assert lab.log.lost == 2


async def test_lines_are_counted_when_the_log_is_switched_off(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "_RETRY_SECONDS", 0.05)
    assert lab.path is not None
    lab.path.mkdir()
    lab.log.add([request("a")])
    await asyncio.sleep(0.01)
    lab.path = None
    await lab.log.close(5)
    assert (lab.log.lost, lab.log._lines) == (1, [])


async def test_whatever_goes_wrong_the_lines_are_tried_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "_RETRY_SECONDS", 0.01)
    failures, real = [RuntimeError("odd"), ValueError("odder")], append

    def failing(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        real(*arguments)

    monkeypatch.setattr(access_log, "append", failing)
    await lab.add(request("a"))
    assert lab.ids() == ["a"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("")
    (tmp_path / "log").symlink_to(elsewhere)
    with pytest.raises(InvalidError, match="cannot be written"):
        append(tmp_path / "log", b"x\n", 100)
    assert elsewhere.read_text() == ""
