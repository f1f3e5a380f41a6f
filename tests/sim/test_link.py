import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import picows
import pytest

from mynah.sim.link import ConnectError, TokenRefusedError, WebSocketLink, sentence

from .scripted import ScriptedServer, silent


class Heard:
    def __init__(self) -> None:
        self.frames: list[tuple[str, bytes]] = []
        self.closed = asyncio.Event()

    def on_text(self, frame: bytes) -> None:
        self.frames.append(("text", frame))

    def on_binary(self, frame: bytes) -> None:
        self.frames.append(("binary", frame))

    def on_closed(self) -> None:
        self.closed.set()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


async def test_nobody_listens() -> None:
    url = f"ws://127.0.0.1:{free_port()}/x"
    with pytest.raises(ConnectError, match=rf"nothing listens at {url}.*mynah serve"):
        await WebSocketLink.connect(url, {}, Heard())


async def test_a_token_is_wanted() -> None:
    async with ScriptedServer(silent, token="t").running() as server:
        with pytest.raises(TokenRefusedError, match=r"wants a token \(401\) \(presented no token\)$"):
            await WebSocketLink.connect(server.ws_url, {}, Heard())
        with pytest.raises(TokenRefusedError, match=r"does not accept this token \(401\) \(presented"):
            await WebSocketLink.connect(server.ws_url, {"Authorization": "Bearer wrong"}, Heard())


async def test_not_a_websocket() -> None:
    async with ScriptedServer(silent).running() as server:
        with pytest.raises(ConnectError, match=r"answered 404 Not Found instead.*xiaozhi/v1/; port 8003 is"):
            await WebSocketLink.connect(server.ws_url + "/no", {}, Heard())


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    """A server that says this to whatever comes, and hangs up; without an answer it stays silent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer:
            await reader.read(1)
            writer.write(answer)
        else:
            await reader.read()  # until the client gives up
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_the_server_says_why_it_refuses() -> None:
    answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nfull\n"
    async with answering(answer) as port:
        with pytest.raises(ConnectError, match=r"answered 503 Service Unavailable .* WebSocket \(full\)$"):
            await WebSocketLink.connect(f"ws://127.0.0.1:{port}/", {}, Heard())


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (None, ""),
        (b" \n ", ""),
        (b"<html><body>no</body></html>", ""),
        (b"full\r\nsecond line", " (full)"),
        (b"\x1b[31mred\x07", " ([31mred)"),
        (b"\xff" + b"x" * 500, f" (\ufffd{'x' * 199})"),
    ],
)
def test_sentences_of_strangers(body: bytes | None, shown: str) -> None:
    assert sentence(body) == shown


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "127.0.0.1:8000", ""])
async def test_not_an_address(url: str) -> None:
    with pytest.raises(ConnectError, match=r"is not a WebSocket address|cannot open"):
        await WebSocketLink.connect(url, {}, Heard())


async def test_no_answer_in_time() -> None:
    async def mute(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(ConnectError, match=r"did not answer within 0\.1 s"):
            await WebSocketLink.connect(f"ws://127.0.0.1:{port}/", {}, Heard(), timeout_s=0.1)
        await asyncio.sleep(0.3)


class Server(picows.WSListener):
    """Sends fragments and a Ping, and remembers what it gets."""

    def __init__(self) -> None:
        self.got: list[tuple[picows.WSMsgType, bytes]] = []
        self.gone = asyncio.Event()

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        kind = picows.WSMsgType
        transport.send(kind.TEXT, b"one ", fin=False)
        transport.send_ping(b"hi")
        transport.send(kind.CONTINUATION, b"two", fin=True)
        transport.send(kind.CONTINUATION, b"of nothing", fin=True)
        transport.send(kind.BINARY, b"\1", fin=False)
        transport.send(kind.CONTINUATION, b"\2", fin=False)
        transport.send(kind.CONTINUATION, b"\3", fin=True)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        self.got.append((frame.msg_type, frame.get_payload_as_bytes()))
        if frame.get_payload_as_bytes() == b"close":
            transport.send_close(picows.WSCloseCode.GOING_AWAY, b"bye")

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self.gone.set()


async def test_fragments_pings_and_closing_as_firmware_does() -> None:
    peer = Server()
    server = await picows.ws_create_server(lambda _request: peer, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    heard = Heard()
    async with server:
        link = await WebSocketLink.connect(url, {}, heard)
        link.send_binary(b"b")
        link.send_text(b"close")
        async with asyncio.timeout(3):
            await heard.closed.wait()
            await peer.gone.wait()
        await link.close()
        link.send_text(b"to nobody")
    assert heard.frames == [("text", b"one two"), ("binary", b"\1\2\3")]
    kind = picows.WSMsgType
    # A Pong for the Ping, and no Close frame in answer to a Close frame.
    assert sorted(peer.got, key=lambda got: got[0].value) == [
        (kind.TEXT, b"close"),
        (kind.BINARY, b"b"),
        (kind.PONG, b"hi"),
    ]


async def test_endless_fragments_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mynah.sim.link.MAX_FRAME_BYTES", 3)

    class Flood(picows.WSListener):
        def on_ws_connected(self, transport: picows.WSTransport) -> None:
            transport.send(picows.WSMsgType.TEXT, b"ab", fin=False)
            transport.send(picows.WSMsgType.CONTINUATION, b"cd", fin=True)
            transport.send(picows.WSMsgType.TEXT, b"ok", fin=True)

    server = await picows.ws_create_server(lambda _request: Flood(), "127.0.0.1", 0)
    heard = Heard()
    async with server:
        link = await WebSocketLink.connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", {}, heard)
        async with asyncio.timeout(3):
            while not heard.frames:
                await asyncio.sleep(0.01)
        await link.close()
    assert heard.frames == [("text", b"ok")]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    folder = tmp_path_factory.mktemp("tls")
    crt, key = folder / "crt.pem", folder / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(crt)]
    subprocess.run(command, check=True, capture_output=True)
    return crt, key


async def test_tls(certificate: tuple[Path, Path]) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    peer = Server()
    server = await picows.ws_create_server(lambda _request: peer, "127.0.0.1", 0, ssl=context)
    url = f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server:
        with pytest.raises(ConnectError, match=r"nobody vouches for \(self-signed.*: pass --insecure"):
            await WebSocketLink.connect(url, {}, Heard())
        with pytest.raises(ConnectError, match=r"hung up instead .* use wss://"):
            await WebSocketLink.connect(url.replace("wss", "ws"), {}, Heard())
        heard = Heard()
        link = await WebSocketLink.connect(url, {}, heard, verify_tls=False)
        async with asyncio.timeout(3):
            while not heard.frames:
                await asyncio.sleep(0.01)
        await link.close()
        async with asyncio.timeout(3):
            await peer.gone.wait()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["silent", "answering"])
async def test_tls_where_there_is_none(
    answer: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mynah.sim.link.TLS_TIMEOUT_S", 0.2)
    async with answering(answer) as port:
        with pytest.raises(ConnectError, match=r"TLS handshake failed: is it plain ws:// there?"):
            await WebSocketLink.connect(f"wss://127.0.0.1:{port}/", {}, Heard(), verify_tls=False)
    assert not caplog.records


async def test_half_an_address() -> None:
    with pytest.raises(ConnectError, match=r"ws://\[fe80::1/x is no address: Invalid IPv6"):
        await WebSocketLink.connect("ws://[fe80::1/x", {}, Heard())
