"""The model of a form: what counts, what does not, and what could be read in two ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.gateway.requests.multipart import form_model, renamed_form

TYPE = "multipart/form-data; boundary=XX"
FIELD = b'Content-Disposition: form-data; name="model"'
FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav'


def form(*parts: tuple[bytes, bytes], boundary: bytes = b"XX") -> bytes:
    written = [b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n" for head, content in parts]
    return b"".join(written) + b"--" + boundary + b"--\r\n"


NAME = b"Content-Disposition: form-data; "
PLAIN = form((FIELD, b"whisper"), (FILE, b"RIFF\0\1"))

READ: dict[str, tuple[str, bytes]] = {
    "before the file": (TYPE, PLAIN),
    "after the file": (TYPE, form((FILE, b"RIFF"), (FIELD, b"whisper"))),
    "a name without quotes": (TYPE, form((b"Content-Disposition: form-data; name=model", b"whisper"))),
    "headers in other cases": (TYPE, form((b'CONTENT-disposition:form-data ;name="model"', b"whisper"))),
    "another type in other cases": ("Multipart/Form-Data; BOUNDARY=XX", PLAIN),
    "a quoted boundary": ('multipart/form-data; boundary="X X:"', form((FIELD, b"whisper"), boundary=b"X X:")),
    "a boundary after the charset": ("multipart/form-data; charset=UTF-8; boundary=XX", PLAIN),
    "a preamble": (TYPE, b"This is a form.\r\n" + PLAIN),
    "a line break first": (TYPE, b"\r\n" + PLAIN),
    "an epilogue": (TYPE, PLAIN + form((FIELD, b"no"))),
    "no line break at the end": (TYPE, PLAIN[:-2]),
    "headers before and after": (TYPE, form((b"X-A: b\r\n" + FIELD + b"\r\nContent-Type: text/plain", b"whisper"))),
    "a field in a file": (TYPE, form((FILE, b"\r\n" + FIELD + b"\r\n\r\nno\r\n"), (FIELD, b"whisper"))),
    "another boundary in a file": (TYPE, form((FILE, form((FIELD, b"no"), boundary=b"YY")), (FIELD, b"whisper"))),
    "dashes in a file": (TYPE, form((FILE, b"\r\n--\r\n--X\r\n-"), (FIELD, b"whisper"))),
    "an empty file": (TYPE, form((FILE, b""), (FIELD, b"whisper"))),
    "an empty part": (TYPE, form((NAME + b"name=a", b""), (FIELD, b"whisper"))),
    "a file called model": (
        TYPE,
        form((b'Content-Disposition: form-data; name="file"; filename="model"', b"no"), (FIELD, b"whisper")),
    ),
    "a file with its name in UTF-8": (
        TYPE,
        form(
            (
                b"Content-Disposition: form-data; name=file; filename=\"\xc3\xa9;.wav\"; filename*=UTF-8''%C3%A9.wav",
                b"no",
            ),
            (FIELD, b"whisper"),
        ),
    ),
    "a field with a longer name": (
        TYPE,
        form((b'Content-Disposition: form-data; name="model[]"', b"no"), (FIELD, b"whisper")),
    ),
}


@pytest.mark.parametrize(("content_type", "body"), READ.values(), ids=READ.keys())
def test_model(content_type: str, body: bytes) -> None:
    found = form_model(body, content_type)
    assert found.name == "whisper"
    renamed = renamed_form(body, found, "x/é")
    assert renamed == body[: found.start] + "x/é".encode() + body[found.start + len("whisper") :]
    assert form_model(renamed, content_type).name == "x/é"


REFUSED: dict[str, tuple[str, bytes]] = {
    "another type": ("application/json", b'{"model":"a"}'),
    "a longer type": ("multipart/form-data-x; boundary=XX", PLAIN),
    "no type": ("", PLAIN),
    "no boundary in the header": ("multipart/form-data", PLAIN),
    "an empty boundary": ('multipart/form-data; boundary=""', PLAIN),
    "two boundaries": ("multipart/form-data; boundary=YY; boundary=XX", PLAIN),
    "a long boundary": (f"multipart/form-data; boundary={'X' * 71}", PLAIN),
    "a line break in the boundary": ('multipart/form-data; boundary="X\r\nX"', PLAIN),
    "another charset": ("multipart/form-data; boundary=XX; charset=utf-7", PLAIN),
    "empty": (TYPE, b""),
    "no boundary": (TYPE, b"model=whisper"),
    "no model": (TYPE, form((FILE, b"x"))),
    "an empty model": (TYPE, form((FIELD, b""))),
    "a long model": (TYPE, form((FIELD, b"m" * 1025))),
    "a model of two lines": (TYPE, form((FIELD, b"a\r\nb"))),
    "a model that is not UTF-8": (TYPE, form((FIELD, b"\xff"))),
    "two models": (TYPE, form((FIELD, b"a"), (FIELD, b"a"))),
    "a model that is a file": (TYPE, form((FIELD + b'; filename="m"', b"a"))),
    "a model, and a file of that name": (TYPE, form((FIELD, b"a"), (FIELD + b'; filename="m"', b"a"))),
    "two dispositions": (TYPE, form((NAME + b"name=a\r\n" + FIELD, b"a"))),
    "two names": (TYPE, form((NAME + b'name="model"; name="a"', b"a"))),
    "a name in a file's name": (TYPE, form((FIELD, b"a"), (NAME + b'name=f; filename="x; name=model"', b"b"))),
    "an encoded name": (TYPE, form((FIELD, b"a"), (NAME + b"name=x; name*=UTF-8''model", b"b"))),
    "an escaped name": (TYPE, form((FIELD, b"a"), (NAME + b'name="m\\odel"', b"b"))),
    "an escaped quote": (TYPE, form((FIELD, b"a"), (NAME + b'name=f; filename="x\\"; name=\\"model"', b"b"))),
    "no name": (TYPE, form((FIELD, b"a"), (b"Content-Disposition: form-data", b"b"))),
    "no disposition": (TYPE, form((FIELD, b"a"), (b"X-A: b", b"b"))),
    "no headers": (TYPE, b"--XX\r\n\r\nwhisper\r\n--XX--"),
    "an attachment": (TYPE, form((b"Content-Disposition: attachment; name=model", b"a"))),
    "a folded header": (TYPE, form((FIELD, b"a"), (b'Content-Disposition: form-data;\r\n name="model"', b"b"))),
    "a blank before the colon": (TYPE, form((FIELD, b"a"), (b'Content-Disposition : form-data; name="model"', b"b"))),
    "bare line feeds": (TYPE, form((FIELD, b"a"), (b"X-A: b\n" + FIELD, b"b"))),
    "dashes before a header": (TYPE, form((FIELD, b"a"), (b"--x: y\r\n" + FIELD, b"b"))),
    "a boundary within a line": (TYPE, b"x--XX\r\n" + FIELD + b"\r\n\r\nb\r\n--XX--"),
    "a boundary with more after it": (TYPE, form((FILE, b"\r\n--XXX\r\n"), (FIELD, b"a"))),
    "a boundary with a blank after it": (TYPE, PLAIN.replace(b"--XX\r\n", b"--XX \r\n")),
    "a part without a line break at its end": (
        TYPE,
        b"--XX\r\nContent-Disposition: form-data; name=a\r\n\r\n--XX\r\n" + FIELD + b"\r\n\r\nwhisper\r\n--XX--",
    ),
    "no end": (TYPE, PLAIN[:-6]),
    "cut in the last boundary": (TYPE, PLAIN[:-4]),
    "cut in the headers": (TYPE, b"--XX\r\n" + FIELD),
    "long headers": (TYPE, form((b"X-A: " + b"b" * 9000 + b"\r\n" + FIELD, b"a"))),
    "many parts": (TYPE, form(*[(NAME + b"name=a", b"")] * 1001, (FIELD, b"a"))),
}


@pytest.mark.parametrize(("content_type", "body"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(InvalidError) as raised:
        form_model(body, content_type)
    assert raised.value.http_status == 400
    assert raised.value.hint


def test_a_name_that_would_begin_another_part_is_not_written() -> None:
    with pytest.raises(AssertionError):
        renamed_form(PLAIN, form_model(PLAIN, TYPE), "a\r\n--XX\r\n")


_PIECES = st.sampled_from(
    [b"--XX", b"--XX--", b"\r\n", b"\r", b"\n", FIELD, FILE, b"whisper", b'name="model"', b"name=", b";", b'"', b"--"]
)


@given(st.lists(_PIECES | st.binary(max_size=4), max_size=30).map(b"".join))
def test_no_bytes_raise_anything_else(noise: bytes) -> None:
    for body in (noise, PLAIN[:20] + noise, PLAIN.replace(b"RIFF\0\1", noise)):
        try:
            found = form_model(body, TYPE)
        except InvalidError:
            continue
        assert body[found.start : found.end].decode() == found.name


@given(st.binary(max_size=200), st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=9))
def test_whatever_a_file_holds_its_model_is_found(content: bytes, name: str) -> None:
    if b"\r\n--XX" not in b"\r\n" + content:
        body = form((FILE, content), (FIELD, name.encode()), (FILE, content))
        assert form_model(body, TYPE).name == name
