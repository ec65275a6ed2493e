"""When the process ends by itself, and what is on record of it."""

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvicorn

from garrison.base.identity import start_time
from garrison.gateway.ollama import process as process_module
from garrison.gateway.ollama.process import _watch
from garrison.gateway.ollama.told import RECORD_NAME, Told, read_record, write_record


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(
        version="1", data_dir=str(tmp_path), control_socket=str(tmp_path / "c.sock"), address="127.0.0.1:1",
        gateway="http://127.0.0.1:2",
    )  # fmt: skip


async def control_process(told: Told) -> asyncio.AbstractServer:
    """Whatever accepts connections on its socket."""
    return await asyncio.start_unix_server(lambda _, writer: writer.close(), told.control_socket)


async def ends(told: Told, change: Callable[[], object], monkeypatch: pytest.MonkeyPatch, alone: float) -> bool:
    """Whether the process asks its server to end within a while after a change."""
    monkeypatch.setattr(process_module, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(process_module, "_ALONE_SECONDS", alone)
    looks = [0]
    is_on_record = process_module._is_on_record

    def counted(one: Told) -> bool:
        looks[0] += 1
        return is_on_record(one)

    monkeypatch.setattr(process_module, "_is_on_record", counted)
    server = SimpleNamespace(should_exit=False)
    watching = asyncio.create_task(_watch(told, cast("uvicorn.Server", server)))
    try:
        async with asyncio.timeout(10):
            while looks[0] < 3:
                await asyncio.sleep(0.005)
            assert not server.should_exit
            change()
            seen = looks[0]
            while not server.should_exit and looks[0] < seen + 20:
                await asyncio.sleep(0.005)
        return server.should_exit
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def test_it_stays_while_it_is_on_record_and_there_is_a_control_process(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(told)
    with contextlib.closing(await control_process(told)):
        assert not await ends(told, lambda: None, monkeypatch, alone=0.05)


async def test_it_ends_when_another_one_is_on_record(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(told)
    path = Path(told.data_dir) / RECORD_NAME

    def other() -> None:
        parent = os.getppid()
        text = path.read_text().replace(f'"pid":{os.getpid()}', f'"pid":{parent}')
        path.write_text(text.replace(f'"start":{start_time(os.getpid())}', f'"start":{start_time(parent)}'))

    assert await ends(told, other, monkeypatch, alone=3600)


async def test_it_ends_with_its_data_directory(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(told)
    assert await ends(told, (Path(told.data_dir) / RECORD_NAME).unlink, monkeypatch, alone=3600)


async def test_it_ends_when_it_is_left_alone(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(told)
    with contextlib.closing(await control_process(told)) as server:
        assert await ends(told, server.close, monkeypatch, alone=0.1)


def test_the_record(told: Told, tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    write_record(told)
    found = read_record(tmp_path)
    assert found is not None
    assert found.told == told
    assert found.pid == os.getpid()
    assert (tmp_path / RECORD_NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"pid": 1, "start": 1}', "\x00" * 10, "[" * 100_000])
def test_a_record_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD_NAME).write_text(text)
    assert read_record(tmp_path) is None


def test_a_record_of_a_process_that_has_ended_is_none(told: Told, tmp_path: Path) -> None:
    write_record(told)
    path = tmp_path / RECORD_NAME
    changed: Any = path.read_text().replace(f'"start":{start_time(os.getpid())}', '"start":1')
    path.write_text(changed)
    assert read_record(tmp_path) is None
