"""The vision service on raw sockets: what a camera sends, and everything that is not quite that."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah import config
from mynah.errors import ProviderRejectedError
from mynah.net import vision
from mynah.net.http import DeviceHttp
from mynah.net.ota import OtaService
from mynah.net.vision import (
    MAX_ANSWER_CHARS,
    MAX_PICTURES,
    MAX_QUESTION_CHARS,
    MAX_UPLOADS,
    VisionService,
    media_type_of,
)
from mynah.providers.base import ProviderOptions, VisionRequest, VllmProvider
from mynah.security.tokens import Authenticator, TokenIssuer
from mynah.security.vision_tokens import LIFETIME_S, VisionGrant, VisionTokens
from mynah.texts import text

MAC = "aa:bb:cc:dd:ee:ff"
BOUNDARY = "----ESP32_CAMERA_BOUNDARY"
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01" + bytes(range(256)) * 120
MAX_BYTES = 100_000
SECRET = b"0123456789abcdef"
TOKENS = VisionTokens(SECRET)
TOKEN = TOKENS.issue(MAC, "c")
PATH = "/mcp/vision/explain"


class Eyes(VllmProvider[ProviderOptions]):
    """Keeps what it is asked; answers when it is let."""

    def __init__(self) -> None:
        super().__init__("eyes", ProviderOptions(type="eyes"))
        self.asked: list[VisionRequest] = []
        self.cancelled = 0
        self.open = asyncio.Event()
        self.open.set()
        self.answer: str | Exception = "A red cup."

    async def describe(self, request: VisionRequest) -> str:
        self.asked.append(request)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Site:
    """The device HTTP port with the vision service, and raw requests to it."""

    def __init__(self, eyes: bool = True, limits: Sequence[str] = (), **options: Any) -> None:
        made = config.defaults("server.auth.enabled=false", *limits)
        self.eyes = Eyes()
        self.service = VisionService(
            TOKENS, self.eyes if eyes else None, **{"max_bytes": MAX_BYTES, **options}
        )
        ota = OtaService(made, 8000, Authenticator(made, TokenIssuer(SECRET)))
        self.http = DeviceHttp(made, ota, lambda: True, uploads=self.service.routes)
        self.port = 0

    async def __aenter__(self) -> Site:
        self.port = await self.http.start("127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.stop()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def send(self, *pieces: bytes) -> tuple[int, dict[str, str], Any]:
        """Send everything, then read the answer, as firmware does."""
        reader, writer = await self.connect()
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            return await answer_of(reader)
        finally:
            writer.close()

    async def post(self, *parts: bytes, **options: Any) -> tuple[int, dict[str, str], Any]:
        return await self.send(request(form(*parts), **options))


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    async with asyncio.timeout(30):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.rstrip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        assert len(head) < 1024
        assert all(name == name.title() for name in headers), headers  # the letters matter to ML307 modems
        body = await reader.readexactly(int(headers["Content-Length"]))
    is_json = headers["Content-Type"].startswith("application/json")
    return int(lines[0].split()[1]), headers, json.loads(body) if is_json else body.decode()


def part(name: str, data: bytes, more: str = "") -> bytes:
    return f'Content-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + data + b"\r\n"


def question(asked: str = "What is this?") -> bytes:
    return part("question", asked.encode())


def file(image: bytes = JPEG) -> bytes:
    return part("file", image, '; filename="camera.jpg"\r\nContent-Type: image/jpeg')


def form(*parts: bytes) -> bytes:
    mark = f"--{BOUNDARY}".encode()
    return b"".join(mark + b"\r\n" + one for one in parts) + mark + b"--\r\n"


def head(length: int | None, token: str | None = TOKEN, device: str | None = MAC, more: str = "") -> bytes:
    lines = [
        f"POST {PATH} HTTP/1.1",
        "Host: box:8003",
        *([f"Device-Id: {device}", "Client-Id: c"] if device is not None else []),
        *([f"Authorization: Bearer {token}"] if token is not None else []),
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
        "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}",
    ]
    return ("\r\n".join(lines) + "\r\n" + more + "\r\n").encode()


def request(body: bytes, **options: Any) -> bytes:
    return head(len(body), **options) + body


def device(number: int) -> dict[str, str]:
    """Return the options of a request by another device."""
    mac = f"02:00:00:00:00:{number:02x}"
    return {"device": mac, "token": TOKENS.issue(mac, "c")}


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


def spoken(key: str, language: str = "en") -> dict[str, Any]:
    return {"success": False, "message": text(key, language)}


SEEN = {"success": True, "action": "RESPONSE", "response": "A red cup."}


# ---------------------------------------------------------------- what cameras send


async def test_firmware_through_a_modem() -> None:
    """Chunked, part headers in chunks of their own, the picture in pieces, everything in segments of 730 bytes."""
    mark = f"--{BOUNDARY}\r\n".encode()
    chunks = [
        mark + b'Content-Disposition: form-data; name="question"\r\n\r\nWhat is this?\r\n',
        mark
        + b'Content-Disposition: form-data; name="file"; filename="camera.jpg"\r\nContent-Type: image/jpeg\r\n\r\n',
        *(JPEG[i : i + 512] for i in range(0, len(JPEG), 512)),
        f"\r\n--{BOUNDARY}--\r\n".encode(),
    ]
    raw = head(None) + chunked(*chunks)
    async with Site() as site:
        for size in (730, 1460, len(raw)):
            pieces = [raw[i : i + size] for i in range(0, len(raw), size)]
            status, headers, answer = await site.send(*pieces)
            assert status == 200
            assert answer == SEEN
            assert headers["Content-Type"] == "application/json"
            assert headers["Connection"] == "close"
        assert site.eyes.asked == [VisionRequest(JPEG, "image/jpeg", "What is this?", "en")] * 3


async def test_byte_by_byte() -> None:
    raw = head(None) + chunked(*(bytes([byte]) for byte in form(question(), file(JPEG[:300]))))
    async with Site() as site:
        assert (await site.send(*(raw[i : i + 1] for i in range(len(raw)))))[2] == SEEN
        assert site.eyes.asked[0].image == JPEG[:300]


async def test_either_order_other_parts_and_repeated_ones() -> None:
    async with Site() as site:
        other = part("session", b"x" * 1000)
        assert (await site.post(file(), question()))[2] == SEEN
        assert (await site.post(other, question(), other, file(), other))[2] == SEEN
        assert (await site.post(question(), file(), question("And now?"), file(b"GIF89a" + bytes(9))))[
            2
        ] == SEEN
        assert site.eyes.asked == [VisionRequest(JPEG, "image/jpeg", "What is this?", "en")] * 3


async def test_a_client_that_does_not_say_who_it_is() -> None:
    async with Site() as site:
        assert (await site.post(question(), file(), device=None))[2] == SEEN
        assert (await site.post(question(), file(), device="AA-BB-CC-DD-EE-FF"))[2] == SEEN


async def test_a_trailing_slash_and_a_look_with_a_browser() -> None:
    async with Site() as site:
        raw = request(form(question(), file())).replace(PATH.encode(), PATH.encode() + b"/", 1)
        assert (await site.send(raw))[2] == SEEN
        for path in (PATH, PATH + "/"):
            status, _, page = await site.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert status == 200
            assert "post pictures" in page
            assert "A vision model is configured" in page


async def test_formats_are_told_by_their_first_bytes() -> None:
    pictures = {
        "image/jpeg": JPEG,
        "image/png": b"\x89PNG\r\n\x1a\n" + bytes(20),
        "image/gif": b"GIF89a" + bytes(20),
        "image/webp": b"RIFF\x10\0\0\0WEBPVP8 " + bytes(9),
        "image/bmp": b"BM\x46\0\0\0\0\0\0\0\x36" + bytes(60),
    }
    async with Site() as site:
        for kind, picture in pictures.items():
            assert media_type_of(picture) == kind
            assert (await site.post(question(), file(picture)))[2] == SEEN
            assert site.eyes.asked[-1].media_type == kind


async def test_without_a_question_it_is_described() -> None:
    async with Site(language="zh") as site:
        for parts in ((file(),), (question(""), file()), (file(), question(" \n"))):
            assert (await site.post(*parts))[2] == SEEN
            assert site.eyes.asked[-1].question == text("vision_question", "zh")
            assert site.eyes.asked[-1].language == "zh"
        assert (await site.post(question("What now?"), file()))[2] == SEEN
        assert site.eyes.asked[-1].language == "en"
        assert (await site.send(request(form(part("question", b"\xff\xfe What?"), file()))))[2] == SEEN
        assert site.eyes.asked[-1].question == "\ufffd\ufffd What?"


async def test_expect_100_continue() -> None:
    body = form(question(), file())
    async with Site() as site:
        reader, writer = await site.connect()
        writer.write(head(len(body), more="Expect: 100-continue\r\n"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await answer_of(reader))[2] == SEEN
        writer.close()
        for options, status in (({"token": "x"}, 401), ({"length": MAX_BYTES * 5}, 413)):
            reader, writer = await site.connect()
            writer.write(head(**{"length": len(body), "more": "Expect: 100-continue\r\n", **options}))  # type: ignore[arg-type]
            assert (await answer_of(reader))[0] == status
            writer.close()


# ---------------------------------------------------------------- who may not


@pytest.mark.parametrize(
    "options",
    [
        {"token": None},
        {"token": ""},
        {"token": "nonsense"},
        {"token": TOKEN[:-4] + "AAAA"},
        {"token": VisionTokens(b"another secret").issue(MAC, "c")},
        {"token": TOKENS.issue(MAC, "c", time.time() - LIFETIME_S - 1)},
        {"token": TokenIssuer(SECRET).issue(MAC, "c")},
        {"device": "aa:bb:cc:dd:ee:00"},
        {"device": ""},
    ],
)
async def test_without_a_token_of_its_own_nobody_is_heard(options: dict[str, Any]) -> None:
    async with Site() as site:
        status, _, answer = await site.post(question(), file(), **options)
        assert status == 401
        assert answer["success"] is False
        assert not site.eyes.asked


async def test_the_token_is_judged_before_the_body_comes() -> None:
    async with Site() as site:
        reader, writer = await site.connect()
        writer.write(head(50_000, token="wrong"))
        assert (await answer_of(reader))[0] == 401
        writer.close()


async def test_only_bearer_tokens_count() -> None:
    async with Site() as site:
        body = form(question(), file())
        for scheme, status in ((b"bearer", 200), (b"BEARER", 200), (b"Basic", 401), (b"", 401)):
            raw = request(body).replace(b"Bearer", scheme, 1)
            assert (await site.send(raw))[0] == status


# ---------------------------------------------------------------- what a person hears


async def test_no_model() -> None:
    async with Site(eyes=False) as site:
        assert await said(site, question(), file()) == spoken("vision_no_model")
        assert await said(site, question("这是什么？"), file()) == spoken("vision_no_model", "zh")
        _, _, page = await site.send(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert "No vision model" in page


async def said(site: Site, *parts: bytes) -> Any:
    status, _, answer = await site.post(*parts)
    assert status == 200
    return answer


async def test_pictures_that_are_none() -> None:
    async with Site() as site:
        assert await said(site, question()) == spoken("vision_no_picture")
        assert await said(site, question("这是什么？"), file(b"")) == spoken("vision_no_picture", "zh")
        for junk in (b"x", b"\x00" * 5000, b"<svg>" * 9, b"\xff\xd8", b"BM" + b"x" * 90, b"RIFF1234WAVEfmt "):
            assert await said(site, question("这是什么？"), file(junk)) == spoken("vision_unreadable", "zh")
        assert not site.eyes.asked


async def test_too_large_a_picture_is_refused_when_it_is_clear_and_heard_by_all() -> None:
    async with Site() as site:
        just = JPEG[:12] + bytes(MAX_BYTES - 12)
        assert await said(site, question(), file(just)) == SEEN
        # Sent whole before the answer is read: the rest is swallowed.
        assert await said(site, question(), file(just + b"x")) == spoken("vision_too_large")
        assert await said(site, question("这是什么？"), file(JPEG * 11)) == spoken("vision_too_large", "zh")
        # Read while sending: the answer does not wait for the end.
        reader, writer = await site.connect()
        writer.write(head(MAX_BYTES * 3) + form(question(), file(just + bytes(100)))[:-90])
        assert (await answer_of(reader))[2] == spoken("vision_too_large")
        writer.close()
        assert len(site.eyes.asked) == 1


async def test_hopelessly_large() -> None:
    async with Site() as site:
        status, _, _ = await site.send(head(MAX_BYTES * 5))
        assert status == 413
        # Without a length it goes on as long as it may; what nobody wants is not kept.
        endless = b"%x\r\n%s\r\n" % (50_000, bytes(50_000))
        opening = form(part("other", b""))[:-40]
        start = head(None) + b"%x\r\n%s\r\n" % (len(opening), opening)
        status, _, _ = await site.send(start, *[endless] * 10)
        assert status == 413
        _, writer = await site.connect()
        writer.write(start)
        sent = 0
        try:
            while sent < MAX_BYTES * 100:  # in the end it is hung up on
                writer.write(endless)
                await writer.drain()
                sent += 50_000
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        assert writer.is_closing() or sent < MAX_BYTES * 100
        writer.close()
        assert await said(site, question(), file()) == SEEN


async def test_questions_have_an_end() -> None:
    async with Site() as site:
        longest = "你" * MAX_QUESTION_CHARS
        assert await said(site, question(longest), file()) == SEEN
        assert site.eyes.asked[-1].question == longest
        assert await said(site, question(longest + "？"), file()) == spoken("vision_question_too_long", "zh")
        assert await said(site, file(), question("x" * 90_000)) == spoken("vision_question_too_long")


async def test_a_model_that_fails() -> None:
    async with Site() as site:
        site.eyes.answer = ProviderRejectedError("the key sk-123 is wrong")
        assert await said(site, question("这是什么？"), file()) == spoken("error_provider", "zh")
        site.eyes.answer = "x" * (MAX_ANSWER_CHARS + 1)
        assert (await said(site, question(), file()))["response"] == "x" * MAX_ANSWER_CHARS


async def test_a_model_that_is_too_slow_and_one_that_never_answers() -> None:
    async with Site(answer_s=0.3) as site:
        site.eyes.open.clear()
        assert await said(site, question("这是什么？"), file()) == spoken("error_timeout", "zh")
        assert site.eyes.cancelled == 1


async def test_the_upload_counts_towards_the_answer() -> None:
    async with Site(upload_s=20, answer_s=2.0) as site:
        site.eyes.open.clear()
        loop = asyncio.get_running_loop()
        body = form(question(), file())
        reader, writer = await site.connect()
        began = loop.time()
        writer.write(head(len(body)) + body[:100])
        await asyncio.sleep(1.5)
        writer.write(body[100:])
        assert (await answer_of(reader))[2] == spoken("error_timeout")
        assert 1.9 < loop.time() - began < 3.2  # not 1.5 + 2.0
        writer.close()


async def test_a_model_may_take_longer_than_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vision, "LINGER_S", 0.0)
    async with Site(upload_s=0.5) as site:
        site.eyes.open.clear()
        asyncio.get_running_loop().call_later(1.0, site.eyes.open.set)
        assert await said(site, question(), file()) == SEEN


async def test_a_picture_that_does_not_arrive() -> None:
    async with Site(upload_s=0.5) as site:
        body = form(question("这是什么？"), file())
        for start in (body[:-1000], body[:30], b""):
            reader, writer = await site.connect()
            writer.write(head(len(body)) + start)
            status, _, answer = await answer_of(reader)
            assert status == 200
            assert answer == spoken("vision_late", "zh" if len(start) > 100 else "en")
            writer.close()


async def test_a_slow_picture_outlives_the_limits_of_small_requests() -> None:
    async with Site(limits=("server.limits.http_timeout_s=1", "server.limits.http_body_bytes=4096")) as site:
        raw = request(form(question(), file()))
        reader, writer = await site.connect()
        for start in range(0, len(raw), 8000):
            writer.write(raw[start : start + 8000])
            await asyncio.sleep(0.35)
        assert (await answer_of(reader))[2] == SEEN
        writer.close()
        # Without a token the small limits stay: nobody waits longer for the rest.
        reader, writer = await site.connect()
        writer.write(head(50_000, token="wrong") + b"x")
        assert (await answer_of(reader))[0] == 401
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


async def test_a_large_picture_at_once() -> None:
    """Everything is in the kernel's buffers before the handler has said how much it wants."""
    async with Site(max_bytes=5 << 20) as site:
        large = JPEG[:12] + bytes(4 << 20)
        answers = await asyncio.gather(
            *(site.post(question(), file(large), **device(number)) for number in range(3))
        )
        assert [answer[2] for answer in answers] == [SEEN] * 3
        assert all(asked.image == large for asked in site.eyes.asked)


async def test_so_many_pictures_at_once() -> None:
    async with Site() as site:
        site.eyes.open.clear()
        first = [
            asyncio.create_task(site.post(question(), file(), **device(number)))
            for number in range(MAX_PICTURES)
        ]
        async with asyncio.timeout(10):
            while len(site.eyes.asked) < MAX_PICTURES:
                await asyncio.sleep(0.01)
        assert await said(site, question(), file()) == spoken("error_busy")
        site.eyes.open.set()
        assert [answer[2] for answer in await asyncio.gather(*first)] == [SEEN] * MAX_PICTURES
        assert await said(site, question(), file()) == SEEN


async def test_a_device_has_one_picture_at_a_time_and_the_others_go_on() -> None:
    async with Site() as site:
        site.eyes.open.clear()
        first = asyncio.create_task(site.post(question(), file()))
        async with asyncio.timeout(10):
            while not site.eyes.asked:
                await asyncio.sleep(0.01)
        for _ in range(MAX_PICTURES * 2):
            assert await said(site, question(), file()) == spoken("error_busy")
        site.eyes.open.set()
        assert (await site.post(question(), file(), **device(1)))[2] == SEEN
        assert (await first)[2] == SEEN
        assert await said(site, question(), file()) == SEEN


async def test_pictures_on_their_way_in_are_counted_for_themselves() -> None:
    body = form(question(), file())
    async with Site() as site:
        held = []
        for number in range(MAX_UPLOADS):
            _, writer = await site.connect()
            writer.write(head(len(body), **device(number)) + body[:-10])
            held.append(writer)
            async with asyncio.timeout(10):
                while site.service._uploads <= number:
                    await asyncio.sleep(0.005)
        assert await said(site, question(), file()) == spoken("error_busy")
        held.pop().transport.abort()
        async with asyncio.timeout(10):
            while (await said(site, question(), file())) != SEEN:
                await asyncio.sleep(0.01)
        for writer in held:
            writer.close()


async def test_a_device_that_may_not_come_in_any_more_may_not_send_pictures_either() -> None:
    banned: set[VisionGrant] = set()
    async with Site(may_ask=lambda grant: grant not in banned) as site:
        assert await said(site, question(), file()) == SEEN
        banned.add(VisionGrant(MAC, "c"))
        assert (await site.post(question(), file()))[0] == 401
        assert (await site.post(question(), file(), **device(1)))[2] == SEEN


async def test_a_device_that_goes_takes_its_question_with_it() -> None:
    async with Site() as site:
        site.eyes.open.clear()
        for _ in range(MAX_PICTURES + 1):
            asked = len(site.eyes.asked)
            _, writer = await site.connect()
            writer.write(request(form(question(), file())))
            async with asyncio.timeout(10):
                while len(site.eyes.asked) == asked:
                    await asyncio.sleep(0.005)
                writer.transport.abort()
                while site.eyes.cancelled == asked:
                    await asyncio.sleep(0.005)
        _, writer = await site.connect()
        writer.write(head(10_000) + b"--")  # and one in the middle of its picture
        await writer.drain()
        writer.transport.abort()
        site.eyes.open.set()
        assert await said(site, question(), file()) == SEEN


# ---------------------------------------------------------------- what is no form


@pytest.mark.parametrize(
    "kind",
    ["application/json", "multipart/form-data", "image/jpeg", "multipart/mixed; boundary=x", "", "\xff"],
)
async def test_other_bodies(kind: str) -> None:
    raw = request(form(question(), file()))
    line = f"Content-Type: multipart/form-data; boundary={BOUNDARY}".encode()
    async with Site() as site:
        status, _, answer = await site.send(raw.replace(line, f"Content-Type: {kind}".encode("latin-1"), 1))
        assert status == 400
        assert "multipart" in answer["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xd8\xff" * 100,
        form(question(), file())[:-8],
        form(question(), file()).replace(BOUNDARY.encode(), b"other"),
        form(part("a" * 9000, b"")),
        form(*[part("x", b"")] * 40),
    ],
)
async def test_broken_forms(body: bytes) -> None:
    async with Site() as site:
        assert (await site.send(request(body)))[0] == 400
        assert (await site.send(head(None) + chunked(body) if body else head(None) + b"0\r\n\r\n"))[0] == 400
        assert not site.eyes.asked


async def test_broken_chunks() -> None:
    async with Site() as site:
        for junk in (b"zz\r\nhello\r\n", b"5\r\nhelloworld\r\n", b"-5\r\n", b"ffffffffffffffffff\r\nx"):
            try:
                status, _, _ = await site.send(head(None) + junk)
            except (asyncio.IncompleteReadError, ConnectionError):
                continue
            assert status == 400
        assert await said(site, question(), file()) == SEEN


def test_any_body_gets_an_answer() -> None:
    mark = f"--{BOUNDARY}".encode()
    pieces = st.lists(
        st.binary(max_size=80)
        | st.sampled_from([mark, b"\r\n" + mark, b"--", b"\r\n", b"\r\n\r\n", question(), file(), JPEG[:40]]),
        max_size=12,
    )
    with asyncio.Runner() as runner:
        site = runner.run(Site(upload_s=2).__aenter__())

        @settings(max_examples=80, deadline=None)
        @given(pieces, st.booleans())
        def check(body: list[bytes], in_chunks: bool) -> None:
            whole = b"".join(body)
            raw = head(None) + chunked(*(piece for piece in body if piece)) if in_chunks else request(whole)
            status, _, answer = runner.run(site.send(raw))
            assert status in {200, 400}
            assert answer["success"] is (answer == SEEN)

        check()
        assert runner.run(site.post(question(), file()))[2] == SEEN
        runner.run(site.http.stop())
