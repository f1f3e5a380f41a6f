"""Forms taken apart piece by piece, whatever the pieces are, and whatever is not a form."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mynah.errors import WireError
from mynah.wire.multipart import (
    MAX_HEADER_BYTES,
    MAX_PARTS,
    MultipartDecoder,
    PartBegin,
    PartData,
    PartEnd,
    PartEvent,
    boundary_of,
)

CAMERA = b"----ESP32_CAMERA_BOUNDARY"
BODY = (
    b"------ESP32_CAMERA_BOUNDARY\r\n"
    b'Content-Disposition: form-data; name="question"\r\n\r\n'
    b"What is this?\r\n"
    b"------ESP32_CAMERA_BOUNDARY\r\n"
    b'Content-Disposition: form-data; name="file"; filename="camera.jpg"\r\n'
    b"Content-Type: image/jpeg\r\n\r\n"
    b"\xff\xd8\xff\r\n-\r\n--\r\n----ESP32_CAMERA\r\n\x00\r\n"
    b"------ESP32_CAMERA_BOUNDARY--\r\n"
)
PARTS = [("question", b"What is this?"), ("file", b"\xff\xd8\xff\r\n-\r\n--\r\n----ESP32_CAMERA\r\n\x00")]


def parts_of(events: list[PartEvent]) -> list[tuple[str, bytes]]:
    """Put the complete parts together; the order of events must be that of a form."""
    parts: list[tuple[str, bytes]] = []
    name: str | None = None
    data = b""
    for event in events:
        match event:
            case PartBegin():
                assert name is None
                name, data = event.name, b""
            case PartData():
                assert name is not None
                assert event.data
                data += event.data
            case PartEnd():
                assert name is not None
                parts.append((name, data))
                name = None
    return parts


def decoded(body: bytes, *cuts: int, boundary: bytes = CAMERA) -> list[tuple[str, bytes]]:
    decoder = MultipartDecoder(boundary)
    events: list[PartEvent] = []
    marks = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in itertools.pairwise(marks):
        events += decoder.feed(body[start:end])
    assert decoder.done
    return parts_of(events)


@given(st.lists(st.integers(0, 1000), max_size=30))
def test_any_cut_gives_the_same_parts(cuts: list[int]) -> None:
    assert decoded(BODY, *cuts) == PARTS


def test_byte_by_byte() -> None:
    assert decoded(BODY, *range(len(BODY))) == PARTS


def test_preamble_epilogue_padding_and_empty_parts() -> None:
    body = b"To whom it may concern\r\n--b \t\r\n\r\n\r\n--b\r\nX: y\r\n\r\n\r\n--b--\r\n--b\r\nanything"
    assert decoded(body, boundary=b"b") == [("", b""), ("", b"")]


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (b'Content-Disposition: form-data; filename="name=x"; name="file"', "file"),
        (b"content-disposition:form-data;name=file", "file"),
        (b'CONTENT-DISPOSITION: form-data; NAME="file"; filename=a.jpg', "file"),
        ('Content-Disposition: form-data; name="图片"'.encode(), "图片"),
        (b'Content-Disposition: form-data; filename="a"', ""),
        (b"no header", ""),
        (b'X-Other: ; name="file"', ""),
    ],
)
def test_names_of_fields(header: bytes, name: str) -> None:
    body = b"--b\r\nA: b\r\n" + header + b"\r\n\r\nx\r\n--b--"
    assert decoded(body, boundary=b"b") == [(name, b"x")]


def test_pieces_come_as_they_arrive() -> None:
    decoder = MultipartDecoder(b"b")
    decoder.feed(b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n')
    (event,) = decoder.feed(bytes(10000))
    assert isinstance(event, PartData)
    assert len(event.data) > 9990  # all but what may be the beginning of a boundary


@pytest.mark.parametrize(
    "body",
    [
        b"--bx\r\n\r\n",
        b"--b" + b" " * 100,
        b"--b\r\n" + b"x" * (MAX_HEADER_BYTES + 10),
        b"--b\r\nX: " + b"x" * MAX_HEADER_BYTES + b"\r\n\r\n",
        b"--b\r\n\r\n\r\n" * (MAX_PARTS + 1),
    ],
)
def test_what_is_no_form_is_an_error(body: bytes) -> None:
    with pytest.raises(WireError):
        MultipartDecoder(b"b").feed(body)


def test_a_body_without_an_end_is_not_done() -> None:
    for end in range(len(BODY) - 4):
        decoder = MultipartDecoder(CAMERA)
        decoder.feed(BODY[:end])
        assert not decoder.done


@given(
    st.lists(st.binary(max_size=60) | st.sampled_from([b"\r\n--b", b"--b--", b"\r\n\r\n", b"--", b"\r\n"]))
)
@example([b"--b--", b"--b"])
def test_garbage_is_an_error_or_ignored_and_never_kept(pieces: list[bytes]) -> None:
    decoder = MultipartDecoder(b"b")
    with contextlib.suppress(WireError):
        for piece in pieces:
            decoder.feed(piece)
            assert len(decoder._buffer) <= MAX_HEADER_BYTES + 60


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ("multipart/form-data; boundary=----ESP32_CAMERA_BOUNDARY", CAMERA),
        ("Multipart/Form-Data;BOUNDARY=x;charset=utf-8", b"x"),
        ('multipart/form-data; charset=utf-8; boundary="a b:c"', b"a b:c"),
    ],
)
def test_boundaries(header: str, boundary: bytes) -> None:
    assert boundary_of(header) == boundary


@pytest.mark.parametrize(
    "header",
    [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/mixed; boundary=x",
        "image/jpeg; boundary=x",
        "multipart/form-data; boundary=é",
        "multipart/form-data; boundary=" + "x" * 200 + '"',
    ],
)
def test_no_boundaries(header: str) -> None:
    if "x" * 200 in header:
        assert len(boundary_of(header)) <= 70
        return
    with pytest.raises(WireError):
        boundary_of(header)


@given(st.text())
def test_any_content_type(header: str) -> None:
    with contextlib.suppress(WireError):
        assert boundary_of(header)
