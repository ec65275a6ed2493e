"""The file of a unix socket: free, left behind, in use, or no place for one."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import InvalidError, PortForeignError
from garrison.preflight import socket_file
from garrison.preflight.socket_file import clear_socket_file, require_usable_socket_file


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[Callable[[str], socket.socket]]:
    """Binds a socket below `tmp_path`, and closes it at the end; its file stays, as it does when a server ends."""
    opened: list[socket.socket] = []

    def bind(name: str) -> socket.socket:
        opened.append(socket.socket(socket.AF_UNIX))
        opened[-1].bind(str(tmp_path / name))
        return opened[-1]

    yield bind
    for one in opened:
        one.close()


def test_no_file_is_free(tmp_path: Path) -> None:
    assert not require_usable_socket_file(str(tmp_path / "x.sock"))


def test_what_a_server_left_is_removed_once_it_is_known_to_have_ended(tmp_path: Path, bound: Any) -> None:
    path, said = tmp_path / "x.sock", list[str]()
    bound("x.sock").close()
    assert require_usable_socket_file(str(path))
    assert path.exists(), "looking changes nothing"
    clear_socket_file(str(path), said.append)
    assert not path.exists()
    assert said == [f"removed {path}, which a server that has ended left behind"]
    bound("x.sock")


def test_a_server_that_listens_keeps_its_file(tmp_path: Path, bound: Any) -> None:
    listening = bound("x.sock")
    listening.listen()
    with pytest.raises(PortForeignError, match=r"listens on unix:.*x\.sock"):
        clear_socket_file(str(tmp_path / "x.sock"), print)
    assert (tmp_path / "x.sock").exists()


@pytest.mark.system
@pytest.mark.parametrize("bound_as", ["x.sock", "{here}/x.sock"])
@pytest.mark.parametrize("named", ["x.sock", "{here}/x.sock"])
def test_a_server_that_does_not_listen_yet_keeps_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound_as: str, named: str
) -> None:
    """As a vLLM that loads its model. It refuses connections like one that has ended."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(bound_as.format(here=tmp_path))
        with pytest.raises(PortForeignError, match="a server holds unix:"):
            clear_socket_file(named.format(here=tmp_path), print)
    assert (tmp_path / "x.sock").exists()


@pytest.mark.system
@pytest.mark.parametrize("listens", [True, False])
def test_of_another_users_socket_only_one_in_use_is_in_the_way(
    tmp_path: Path, bound: Any, listens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This user may not connect to it."""
    made = bound("x.sock")
    made.listen() if listens else made.close()
    monkeypatch.setattr(socket_file, "_accepts", lambda _: None)
    if listens:
        with pytest.raises(PortForeignError, match="a server holds"):
            require_usable_socket_file(str(tmp_path / "x.sock"))
    else:
        assert require_usable_socket_file(str(tmp_path / "x.sock"))


def test_where_nothing_can_be_told_it_counts_as_in_use(
    tmp_path: Path, bound: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound("x.sock").close()
    monkeypatch.setattr(socket_file, "_is_bound", lambda _: None)
    assert require_usable_socket_file(str(tmp_path / "x.sock")), "nothing accepts"
    monkeypatch.setattr(socket_file, "_accepts", lambda _: None)
    with pytest.raises(PortForeignError):
        require_usable_socket_file(str(tmp_path / "x.sock"))


@pytest.mark.parametrize(
    ("make", "name", "said"),
    [
        (lambda path: path.write_text("x"), "x.sock", "exists and is no socket"),
        (lambda path: path.mkdir(), "x.sock", "exists and is no socket"),
        (lambda path: path.symlink_to("nowhere"), "x.sock", "exists and is no socket"),
        (lambda path: None, "no/x.sock", "there is no directory"),
        (lambda path: None, "x" * 108, "107 at most"),
    ],
    ids=["a file", "a directory", "a dangling link", "no directory", "too long"],
)
def test_a_place_where_no_server_can_listen(tmp_path: Path, make: Any, name: str, said: str) -> None:
    make(tmp_path / name)
    with pytest.raises(InvalidError, match=said):
        require_usable_socket_file(str(tmp_path / name))


def test_a_directory_of_others_is_said_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InvalidError, match="may not write to"):
        require_usable_socket_file(str(tmp_path / "x.sock"))
