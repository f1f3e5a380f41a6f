"""The device HTTP port, on raw sockets: what modems see is bytes, not a library's view of them."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah import config
from mynah.errors import PortInUseError
from mynah.net import http
from mynah.net.http import SHUTDOWN_S, DeviceHttp
from mynah.net.ota import OtaService
from mynah.net.source import SOURCE
from mynah.security.tokens import Authenticator, TokenIssuer
from tests.certificates import write_certificate

BODY = json.dumps(
    {"version": 2, "uuid": "c", "application": {"version": "2.4.2"}, "pad": "x" * 2500}
).encode()
HEAD = "POST /xiaozhi/ota/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\nDevice-Id: aa:bb:cc:dd:ee:ff\r\n"


class Site:
    """A running server and raw requests to it."""

    def __init__(self, *overrides: str, tls: ssl.SSLContext | None = None) -> None:
        made = config.defaults("server.auth.enabled=false", *overrides)
        authenticator = Authenticator(made, TokenIssuer(b"0123456789abcdef"))
        self.ready = True
        self.http = DeviceHttp(
            made,
            OtaService(made, 8000, authenticator),
            lambda: self.ready,
            routes=[web.get("/fails", self._fail), web.get("/source", self._source)],
            tls=tls,
        )
        self.port = 0

    async def _fail(self, request: web.Request) -> web.Response:
        raise RuntimeError("on purpose")

    async def _source(self, request: web.Request) -> web.Response:
        return web.Response(text=request[SOURCE])

    async def __aenter__(self) -> Site:
        self.port = await self.http.start("127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.stop()

    async def send(self, *pieces: bytes, pause: float = 0.0) -> bytes:
        """Send pieces, each as a segment of its own, and return all bytes until the server hangs up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        try:
            for piece in pieces:
                if writer.is_closing():  # uvloop closes the transport itself when the server hangs up
                    return received
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
            async with asyncio.timeout(30):
                while data := await reader.read(65536):
                    received += data
        except ConnectionError:
            pass  # the server hung up before it had read everything
        finally:
            writer.close()
        return received

    async def hold(self) -> asyncio.StreamWriter:
        """Open a connection, be sure that the server has it, and send nothing."""
        before = len(self.http._waiting)
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        async with asyncio.timeout(30):
            while len(self.http._waiting) == before:
                await asyncio.sleep(0.005)
        return writer

    async def get(self, path: str, extra: str = "") -> tuple[int, dict[str, str], bytes]:
        return parse(await self.send(f"GET {path} HTTP/1.1\r\nHost: box:1\r\n{extra}\r\n".encode()))


def parse(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("ascii").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert len(head) < 1024
    assert int(headers["Content-Length"]) == len(body)  # the letters matter to ML307 modems
    assert "Transfer-Encoding" not in headers
    return int(lines[0].split()[1]), headers, body


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site() as running:
        yield running


def posted(body: bytes, extra: str = "") -> bytes:
    return (
        f"{HEAD}Content-Type: application/json\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body
    )


def websocket_of(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body)["websocket"]
    return found


async def test_a_device_boots(site: Site) -> None:
    for path in ("/xiaozhi/ota/", "/xiaozhi/ota"):
        request = posted(BODY, "Connection: close\r\n").replace(b"/xiaozhi/ota/", path.encode())
        status, headers, body = parse(await site.send(request))
        assert status == 200
        assert (
            headers["Content-Type"] == "application/json; charset=utf-8"
            or headers["Content-Type"] == "application/json"
        )
        assert headers["Connection"] == "close"
        assert websocket_of(body) == {"url": "ws://127.0.0.1:8000/xiaozhi/v1/", "token": "", "version": 1}
        assert json.loads(body)["firmware"] == {"version": "2.4.2", "url": ""}


async def test_header_names_are_canonical(site: Site) -> None:
    _, headers, _ = parse(await site.send(posted(b"{}")))
    assert set(headers) == {"Content-Type", "Content-Length", "Connection", "Date", "Server"}


async def test_a_modem_sends_730_bytes_at_a_time(site: Site) -> None:
    request = posted(BODY)
    pieces = [request[start : start + 730] for start in range(0, len(request), 730)]
    assert len(pieces) > 3
    status, _, body = parse(await site.send(*pieces, pause=0.01))
    assert status == 200
    assert json.loads(body)["firmware"]["version"] == "2.4.2"
    single = posted(b"{}")
    status, _, _ = parse(await site.send(*(single[i : i + 1] for i in range(len(single)))))
    assert status == 200


async def test_chunked_bodies(site: Site) -> None:
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:100], BODY[100:2000], BODY[2000:])
    )
    request = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"
    status, _, body = parse(await site.send(request))
    assert status == 200
    assert json.loads(body)["firmware"]["version"] == "2.4.2"


@pytest.mark.parametrize("body", [b"", b"not json", b'{"ssid":"a"b"}', b"\xff\x00", b"[]"])
async def test_headers_alone_are_enough(site: Site, body: bytes) -> None:
    status, _, answer = parse(await site.send(posted(body)))
    assert status == 200
    assert websocket_of(answer)["url"].startswith("ws://")


async def test_neither_body_nor_any_header_but_host(site: Site) -> None:
    status, _, answer = parse(await site.send(b"POST /xiaozhi/ota/ HTTP/1.1\r\nhOST: x\r\n\r\n"))
    assert status == 200
    assert websocket_of(answer)["url"] == "ws://x:8000/xiaozhi/v1/"
    status, _, answer = parse(await site.send(b"POST /xiaozhi/ota HTTP/1.0\r\n\r\n"))
    assert status == 200
    assert websocket_of(answer)["url"] == "ws://127.0.0.1:8000/xiaozhi/v1/"


async def test_a_person_looks(site: Site) -> None:
    for path in ("/xiaozhi/ota/", "/xiaozhi/ota"):
        status, headers, body = await site.get(path)
        assert status == 200
        assert headers["Content-Type"] == "text/plain; charset=utf-8"
        assert b"ws://box:8000/xiaozhi/v1/" in body
    _, headers, body = await site.get("/xiaozhi/ota/", "Accept: text/html,*/*\r\n")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"<code>ws://box:8000/xiaozhi/v1/</code>" in body


async def test_health_and_readiness(site: Site) -> None:
    assert (await site.get("/healthz"))[0] == 200
    assert (await site.get("/readyz"))[0] == 200
    site.ready = False
    assert (await site.get("/healthz"))[0] == 200
    assert (await site.get("/readyz"))[0] == 503


async def test_other_paths_and_methods(site: Site) -> None:
    assert (await site.get("/"))[0] == 404
    assert (await site.get("/xiaozhi/ota/../../etc/passwd"))[0] == 404
    status, headers, _ = parse(
        await site.send(b"PUT /xiaozhi/ota/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    )
    assert status == 405
    assert headers["Allow"] == "GET,HEAD,POST"


async def test_a_fault_of_ours_is_a_500_without_details(site: Site) -> None:
    status, _, body = await site.get("/fails")
    assert status == 500
    assert b"on purpose" not in body


async def test_too_large_a_body_is_refused(site: Site) -> None:
    status, _, _ = parse(await site.send(posted(b"x" * 65537)))
    assert status == 413
    status, _, _ = parse(await site.send(posted(b"x" * 65536)))
    assert status == 200


async def test_garbage_gets_a_400_or_a_closed_connection(site: Site) -> None:
    garbage = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost\r\n\r\n",
        HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nhello\r\n",
        HEAD.encode() + b"Content-Length: -5\r\n\r\n",
        HEAD.encode() + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20000 + b"\r\n\r\n",
    ]
    for request in garbage:
        answer = await site.send(request)
        assert not answer or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400")), request[:40]
    assert (await site.get("/healthz"))[0] == 200


def test_any_bytes_in_header_and_body_get_an_answer() -> None:
    with asyncio.Runner() as runner:
        site = runner.run(Site("server.limits.http_timeout_s=1").__aenter__())

        @settings(max_examples=60, deadline=None)
        @given(st.binary(max_size=200), st.binary(max_size=200))
        def check(header: bytes, body: bytes) -> None:
            head = b"POST /xiaozhi/ota/ HTTP/1.1\r\nHost: h\r\nDevice-Id: %s\r\nContent-Length: %d\r\n\r\n"
            answer = runner.run(site.send(head % (header, len(body)) + body))
            assert not answer or answer.split()[1] in {b"200", b"400"}
            if not set(header) - set(b"0123456789abcdef:"):
                assert parse(answer)[0] == 200

        check()
        assert parse(runner.run(site.send(posted(BODY))))[0] == 200
        runner.run(site.http.stop())


async def test_slow_clients_are_hung_up_on() -> None:
    async with Site("server.limits.http_timeout_s=0.3") as site:
        loop = asyncio.get_running_loop()
        started = loop.time()
        for part in (b"", b"GET /healthz HT", posted(BODY)[:-10]):
            assert await site.send(part) == b""
        assert loop.time() - started >= 0.9
        assert await site.send(b"GET / HTTP/1.1\r\n", *[b"X"] * 40, pause=0.02) == b""


async def test_a_slow_answer_is_not_cut() -> None:
    made = config.defaults("server.auth.enabled=false", "server.limits.http_timeout_s=0.1")
    authenticator = Authenticator(made, TokenIssuer(b"0123456789abcdef"))

    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(0.3)
        return web.Response(text="done")

    site = Site()
    site.http = DeviceHttp(made, OtaService(made, 1, authenticator), lambda: True, [web.get("/slow", slow)])
    async with site:
        assert (await site.get("/slow"))[2] == b"done"


async def test_header_floods_are_cut() -> None:
    async with Site("server.limits.http_body_bytes=4096") as site:
        flood = b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"y" * 1000) for i in range(100))
        answer = await site.send(flood)
        assert not answer.startswith(b"HTTP/1.1 200")


async def test_headers_have_an_end_whatever_may_follow_them() -> None:
    filler = b"".join(b"X-%d: %s\r\n" % (i, b"y" * 1000) for i in range(20))
    async with Site() as site:
        assert await site.send(HEAD.encode() + filler + b"\r\n") == b""
        assert await site.send(HEAD.encode() + filler, pause=0.05) == b""
        fits = HEAD.encode() + filler[: 10 * 1007] + b"Content-Length: 2\r\n\r\n{}"
        pieces = [fits[i : i + 500] for i in range(0, len(fits), 500)]
        assert (await site.send(*pieces)).startswith(b"HTTP/1.1 200")
        split = posted(b"{}").partition(b"\r\n\r\n")
        assert parse(await site.send(split[0] + b"\r\n\r", b"\n" + split[2], pause=0.02))[0] == 200


async def test_the_slowest_client_makes_room_when_there_are_too_many() -> None:
    async with Site("server.limits.http_connections=2") as site:
        held = [await site.hold() for _ in range(2)]
        assert (await site.get("/healthz"))[0] == 200
        assert len(site.http._waiting) <= 2
        for writer in held:
            writer.close()


async def test_clients_that_are_being_answered_are_not_cut_for_new_ones() -> None:
    async with Site("server.limits.http_connections=1") as site:
        writer = await site.hold()
        async with asyncio.timeout(30):
            while not site.http._waiting:
                await asyncio.sleep(0.005)
        (client,) = site.http._waiting.values()
        client.received()
        assert await site.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") == b""
        assert list(site.http._waiting.values()) == [client]
        writer.close()


async def test_many_devices_boot_at_once(site: Site) -> None:
    answers = await asyncio.gather(*(site.send(posted(BODY)) for _ in range(200)))
    assert {parse(answer)[0] for answer in answers} == {200}


async def test_stopping_hangs_up_on_idle_clients_and_is_safe_twice() -> None:
    site = Site()
    async with site:
        writer = await site.hold()
        started = asyncio.get_running_loop().time()
        await site.http.stop()
        assert asyncio.get_running_loop().time() - started < SHUTDOWN_S  # it waited for nobody
        assert not site.http._waiting
        writer.close()


async def test_a_taken_port(site: Site) -> None:
    other = Site()
    with pytest.raises(PortInUseError, match=r"server\.http_port"):
        await other.http.start("127.0.0.1", site.port)
    await other.http.stop()


async def test_what_is_no_http_is_not_logged_and_our_own_faults_are(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for nonsense in (
        b"GET / HTTP/9.9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno header\r\n\r\n",
        b"\x16\x03\x01\x00\r\n\r\n",
    ):
        assert b" 400 " in (await site.send(nonsense)).partition(b"\r\n")[0]
    assert not caplog.records
    await site.send(b"GET /fails HTTP/1.1\r\nHost: x\r\n\r\n")
    assert "on purpose" in caplog.text


async def test_every_request_says_whom_it_is_counted_for() -> None:
    async with Site() as site:
        assert (await site.get("/source", "X-Forwarded-For: 192.0.2.7\r\n"))[2] == b"127.0.0.1"
    async with Site("server.trusted_proxies=[127.0.0.1]") as site:
        # The client's own line stands in front of the one that the proxy adds.
        lines = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: 198.51.100.9\r\n"
        assert (await site.get("/source", lines))[2] == b"198.51.100.9"


# ---------------------------------------------------------------- TLS


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the contexts of a server and of a client that trusts it."""
    cert, key = write_certificate(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    return server, ssl.create_default_context(cafile=str(cert))


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


async def healthy(site: Site, trusting: ssl.SSLContext) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port, ssl=trusting)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    return parse(answer)[0] == 200


async def none_left(site: Site) -> None:
    async with asyncio.timeout(30):
        while site.http._waiting:
            await asyncio.sleep(0.005)


async def test_clients_that_do_not_even_shake_hands_are_counted_and_make_room(tls: Contexts) -> None:
    async with Site("server.limits.http_connections=3", tls=tls[0]) as site:
        silent = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(100)]
        for _ in range(5):
            assert await healthy(site, tls[1])
        async with asyncio.timeout(10):  # not as late as the handshake's time-out
            ended = await asyncio.gather(
                *(reader.read() for reader, _ in silent[:97]), return_exceptions=True
            )
        assert all(answer == b"" or isinstance(answer, ConnectionError) for answer in ended)
        assert len(site.http._waiting) <= 3
        for _, writer in silent:
            writer.close()
        await none_left(site)


async def test_a_burst_over_the_limit_leaves_no_connection_open(tls: Contexts) -> None:
    """They are accepted at one go, so that most are hung up on before their handshake has begun."""
    for contexts in (tls[0], None):
        async with Site("server.limits.http_connections=3", tls=contexts) as site:
            clients = []
            for _ in range(60):
                client = socket.create_connection(("127.0.0.1", site.port))  # the loop does not run meanwhile
                client.setblocking(False)
                clients.append(client)
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(10):
                for client in clients[:57]:
                    try:
                        assert await loop.sock_recv(client, 1) == b""
                    except ConnectionError:
                        pass
            assert len(site.http._waiting) == 3
            for client in clients:
                client.close()
            await none_left(site)


async def test_without_file_descriptors_it_waits_for_some(
    monkeypatch: pytest.MonkeyPatch, site: Site
) -> None:
    monkeypatch.setattr(http, "ACCEPT_PAUSE_S", 0.05)
    failed = asyncio.Event()
    accept = socket.socket.accept

    def exhausted(listener: socket.socket) -> Any:
        if failed.is_set():
            return accept(listener)
        failed.set()
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket.socket, "accept", exhausted)
    assert (await site.get("/healthz"))[0] == 200
    assert failed.is_set()


async def test_handshakes_that_fail_leave_nothing_behind(tls: Contexts) -> None:
    async with Site("server.limits.http_timeout_s=1", tls=tls[0]) as site:
        for start in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01", b""):
            answer = await site.send(start)  # the last two are cut off after a second
            assert not answer.startswith(b"HTTP")
            await none_left(site)
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", site.port, ssl=ssl.create_default_context())
        await none_left(site)
        writer = await site.hold()
        writer.close()  # gone in the middle of it
        await none_left(site)
        assert await healthy(site, tls[1])


async def test_a_request_may_come_with_the_end_of_the_handshake(tls: Contexts) -> None:
    async with Site(tls=tls[0]) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = tls[1].wrap_bio(received, sent, server_hostname="127.0.0.1")
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(sent.read())
                received.write(await reader.read(65536))
        client.write(posted(BODY))
        writer.write(sent.read())  # the client's last word of the handshake and its request in one segment
        answer = b""
        async with asyncio.timeout(30):
            while data := await reader.read(65536):
                received.write(data)
                try:
                    while more := client.read(65536):
                        answer += more
                except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                    pass
                if b"2.4.2" in answer:
                    break
        writer.close()
        assert parse(answer)[0] == 200


async def test_a_large_request_over_tls_has_its_limits_too(tls: Contexts) -> None:
    async with Site("server.limits.http_body_bytes=4096", tls=tls[0]) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port, ssl=tls[1])
        writer.write(HEAD.encode() + b"X: " + bytes(3_000_000))
        try:
            assert await reader.read() == b""
        except ConnectionError:
            pass
        writer.close()
        await none_left(site)


async def test_stopping_ends_handshakes(tls: Contexts) -> None:
    site = Site(tls=tls[0])
    async with site:
        writer = await site.hold()
        began = asyncio.get_running_loop().time()
        await site.http.stop()
        assert asyncio.get_running_loop().time() - began < SHUTDOWN_S
        writer.close()
        await none_left(site)
