import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.preflight.addresses import Address, conflicts, from_packed


def address(text: str) -> Address:
    """`[::]6` is the IPv6 wildcard of a v6-only socket."""
    v6only = text.endswith("]6")
    bare = text.removesuffix("6") if v6only else text
    bare = bare.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    return from_packed(socket.inet_pton(family, bare), v6only=v6only)


MATRIX = [
    ("0.0.0.0", "127.0.0.1", True),
    ("0.0.0.0", "0.0.0.0", True),
    ("127.0.0.1", "127.0.0.1", True),
    ("127.0.0.1", "127.0.0.2", False),
    ("0.0.0.0", "[::]", True),
    ("127.0.0.1", "[::]", True),
    ("0.0.0.0", "[::]6", False),
    ("127.0.0.1", "[::]6", False),
    ("0.0.0.0", "[::1]", False),
    ("127.0.0.1", "[::1]", False),
    ("[::]", "[::1]", True),
    ("[::]6", "[::1]", True),
    ("[::]", "[::]6", True),
    ("[::]6", "[::]6", True),
    ("[::1]", "[::1]", True),
    ("127.0.0.1", "[::ffff:127.0.0.1]", True),
    ("127.0.0.2", "[::ffff:127.0.0.1]", False),
    ("0.0.0.0", "[::ffff:127.0.0.1]", True),
    ("127.0.0.1", "[::ffff:0.0.0.0]", True),
    ("[::]", "[::ffff:127.0.0.1]", True),
    ("[::]6", "[::ffff:127.0.0.1]", False),
    ("[::1]", "[::ffff:127.0.0.1]", False),
]
IDS = [f"{one}-{other}" for one, other, _ in MATRIX]


@pytest.mark.parametrize(("one", "other", "expected"), MATRIX, ids=IDS)
def test_the_matrix_both_ways(one: str, other: str, expected: bool) -> None:
    assert conflicts(address(one), address(other)) is expected
    assert conflicts(address(other), address(one)) is expected


@pytest.mark.system
@pytest.mark.parametrize(("one", "other", "expected"), MATRIX, ids=IDS)
def test_the_kernel_agrees(one: str, other: str, expected: bool) -> None:
    """The oracle: two real sockets, the first listening."""
    with _bound(one, 0) as first:
        first.listen()
        port = first.getsockname()[1]
        try:
            _bound(other, port).close()
            met = False
        except OSError:
            met = True
    assert met is expected


def _bound(text: str, port: int) -> socket.socket:
    bare = text.removesuffix("6").strip("[]") if text.endswith("]6") else text.strip("[]")
    bound = socket.socket(socket.AF_INET6 if ":" in bare else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in bare:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(text.endswith("]6")))
    try:
        bound.bind((bare, port))
    except OSError:
        bound.close()
        raise
    return bound


packed = st.one_of(
    st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16), st.sampled_from([bytes(4), bytes(16)])
)


@given(packed, st.booleans(), packed, st.booleans())
def test_symmetric_and_reflexive(one: bytes, one_only: bool, other: bytes, other_only: bool) -> None:
    first, second = from_packed(one, v6only=one_only), from_packed(other, v6only=other_only)
    assert conflicts(first, second) == conflicts(second, first)
    assert conflicts(first, first)


def test_shown_as_people_write_it() -> None:
    assert str(address("[::ffff:10.0.0.7]")) == "10.0.0.7"
    assert str(address("[::1]")) == "::1"
