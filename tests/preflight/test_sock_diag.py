import socket
import struct

import pytest

from garrison.preflight.sock_diag import LISTENING, DiagSocket, dump, parse_dump


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


def entry(family: int, packed: bytes, port: int, uid: int, inode: int, attributes: bytes = b"") -> bytes:
    body = struct.pack("=BBBB", family, 10, 0, 0) + struct.pack("!HH", port, 0) + packed.ljust(16, b"\0") + bytes(28)
    return message(20, body + struct.pack("=IIIII", 0, 0, 0, uid, inode) + attributes)


def test_two_sockets_and_the_end() -> None:
    v6only = struct.pack("=HHB3x", 5, 11, 1)
    other = struct.pack("=HHI", 8, 15, 7)
    answer = (
        entry(socket.AF_INET, b"\x7f\0\0\1", 8000, 1000, 77)
        + entry(socket.AF_INET6, bytes(16), 8001, 0, 78, other + v6only)
        + message(3, bytes(4))
    )
    assert list(parse_dump(answer)) == [
        DiagSocket(b"\x7f\0\0\1", 8000, 77, 1000, False, 10, bytes(4)),
        DiagSocket(bytes(16), 8001, 78, 0, True, 10, bytes(16)),
        None,
    ]


@pytest.mark.parametrize("answer", [b"", b"\0" * 8])
def test_torn_answers_hold_nothing(answer: bytes) -> None:
    assert list(parse_dump(answer)) == []


@pytest.mark.parametrize("answer", [message(2, struct.pack("=i", -1)), message(20, b"short")])
def test_a_rejected_request_is_not_an_empty_answer(answer: bytes) -> None:
    with pytest.raises(OSError, match="rejected"):
        list(parse_dump(answer))


@pytest.mark.system
def test_the_kernels_own_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        found = dump(socket.AF_INET, LISTENING)
        assert found is not None
        assert [one.packed for one in found if one.port == port] == [b"\x7f\0\0\1"]
