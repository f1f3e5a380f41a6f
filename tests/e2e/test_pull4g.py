"""Devices behind a modem, over real sockets with the server's own recogniser and voice replaced by fakes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mynah.app import Addresses, App
from mynah.audio.adpcm import AdpcmDecoder, AdpcmEncoder
from mynah.audio.opus import OpusDecoder, OpusEncoder
from mynah.audio.pcm import resample
from mynah.net import tcp_pull4g
from mynah.providers.base import Role
from mynah.providers.tts.fake import babble
from mynah.sim.voice import speak
from mynah.wire import pull4g
from mynah.wire.pull4g import Audio, AudioEnd, AudioStart, Codec, Failed, Options
from tests.certificates import write_certificate
from tests.servers import app, connect

pytestmark = pytest.mark.e2e

SECONDS = 0.9
VOICE = (
    f'TTS.FakeTTS={{"type": "fake", "delay_ms": 10, "seconds": {SECONDS}}}',
    'ASR.FakeASR={"type": "fake", "delay_ms": 10}',
    'LLM.FakeLLM={"type": "fake", "delay_ms": 10, "token_ms": 1, "text": "One sentence. Two sentences."}',
)
ID = "0200000000f1"
REPLY = babble(SECONDS) * 2
"""What the voice says; 900 ms are whole frames, so nothing stands between the sentences."""


@functools.cache
def question() -> bytes:
    return speak("What time is it?")


@asynccontextmanager
async def served(folder: Path, *overrides: str) -> AsyncIterator[tuple[App, Addresses]]:
    async with app(folder, *VOICE, *overrides) as (server, at):
        yield server, at


class Tcp:
    """A connection as a device has it: what it sends is what the test says, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.stream = pull4g.DeviceStream()
        self.events: list[pull4g.ServerEvent] = []
        self.raw = b""
        self.ended = False

    @classmethod
    async def open(cls, at: Addresses, **more: Any) -> Tcp:
        host, _, port = at.pull4g.partition("://")[2].rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port), **more))

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def until(self, done: Callable[[], bool], timeout_s: float = 10) -> None:
        async with asyncio.timeout(timeout_s):
            while not done():
                await self._read()

    async def _read(self) -> None:
        data = b""
        with contextlib.suppress(ConnectionError):
            data = await self.reader.read(65536)
        if not data:
            if self.ended:
                raise AssertionError("the connection has ended")
            self.ended = True
        self.raw += data
        self.events += self.stream.feed(data)

    async def comes(self, kind: type[Any], more_than: int = 0) -> None:
        await self.until(lambda: len(self.of(kind)) > more_than)

    async def answered(self) -> None:
        """Until the answer that has begun is over."""
        await self.until(lambda: len(self.of(AudioEnd)) == len(self.of(AudioStart)))

    async def ends(self) -> None:
        await self.until(lambda: self.ended)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def audio(self) -> bytes:
        return b"".join(event.data for event in self.of(Audio))

    async def fetch(self, size: int, device_id: str = ID, options: Options | None = None) -> bytes:
        """Poll until so much has come over this connection."""
        async with asyncio.timeout(20):
            while len(self.audio) < size:
                answered = len(self.of(AudioEnd))
                await self.send(pull4g.device_request(device_id, options or Options(), self.stream.framed))
                await self.comes(AudioEnd, answered)
                await asyncio.sleep(0.02)
        return self.audio

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


async def test_a_device_written_from_the_words_alone(tmp_path: Path) -> None:
    """No options, no line ends, the end of the recording glued to its last byte; audio between two words."""
    async with served(tmp_path) as (_, at):
        host, _, port = at.pull4g.partition("://")[2].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"SESSION_START:0200000000F1\n" + question() + b"RECORDING_COMPLETE")
        played = b""
        async with asyncio.timeout(15):
            while len(played) < len(REPLY):
                writer.write(b"REQUEST_AUDIO:0200000000F1\n")
                await reader.readuntil(b"AUDIO_START\n")
                played += (await reader.readuntil(b"AUDIO_END\n")).removesuffix(b"AUDIO_END\n")
                await asyncio.sleep(0.05)
        assert played == REPLY, "byte by byte what the voice made"
        writer.close()
        await writer.wait_closed()


FORMS = [
    Options(rate=16000, framed=True),
    Options(rate=8000),
    Options(rate=48000, framed=True),
    Options(rate=22050),
    Options(codec=Codec.ADPCM),
    Options(codec=Codec.ADPCM, rate=8000, framed=True),
    Options(codec=Codec.OPUS, rate=16000, framed=True),
    Options(codec=Codec.OPUS, rate=24000, framed=True),
]


def recorded(options: Options) -> list[bytes]:
    """Return the question as a device of this form sends it, in pieces."""
    rate = options.rate
    pcm = resample(question(), 16000, rate)
    match options.codec:
        case Codec.PCM:
            return [pcm[at : at + 730] for at in range(0, len(pcm), 730)]
        case Codec.ADPCM:
            return [AdpcmEncoder().encode(pcm)]
        case Codec.OPUS:
            encoder, size = OpusEncoder(rate, 60), rate * 60 // 1000 * 2
            return [encoder.encode(pcm[at : at + size]) for at in range(0, len(pcm) - size, size)]


async def converse(at: Addresses, options: Options, device_id: str) -> list[bytes]:
    """Ask, and return the pieces of the answer."""
    device = await Tcp.open(at)
    await device.send(pull4g.device_start(device_id, options, framed=False))
    if options.framed:
        await device.until(lambda: device.stream.framed)
    await device.send(*(pull4g.device_audio(piece, options.framed) for piece in recorded(options)))
    await device.send(pull4g.device_complete(options.framed))
    if options.codec is Codec.OPUS:
        await device.fetch(1, device_id, options)
        await device.until(lambda: len(device.of(Audio)) >= 30)
    else:
        size = int(options.rate * 0.06) * 2 * 30
        await device.fetch(size if options.codec is Codec.PCM else size // 4, device_id, options)
    assert not device.of(Failed)
    await device.close()
    return [event.data for event in device.of(Audio)]


async def test_codecs_and_rates(tmp_path: Path) -> None:
    async with served(tmp_path) as (server, at):
        work = (converse(at, options, f"02000000c0{number:02x}") for number, options in enumerate(FORMS))
        answers = await asyncio.gather(*work)
        assert server.devices is not None
        assert len(server.devices) == len(FORMS)
    for options, answer in zip(FORMS, answers, strict=True):
        whole = b"".join(answer)
        match options.codec:
            case Codec.PCM if options.rate == 16000:
                assert whole == REPLY
            case Codec.PCM:
                assert len(whole) == int(options.rate * 0.06) * 2 * 30
            case Codec.ADPCM:
                assert len(AdpcmDecoder().decode(whole)) == int(options.rate * 0.06) * 2 * 30
            case Codec.OPUS:
                decoder = OpusDecoder(16000)
                assert len(b"".join(decoder.decode(packet) for packet in answer)) == len(REPLY)


async def test_however_tcp_cuts_what_a_device_sends(tmp_path: Path) -> None:
    whole = (
        b"SESSION_START:0200000000F1\n" + question() + b"\nRECORDING_COMPLETE\nREQUEST_AUDIO:0200000000F1\n"
    )
    dice = random.Random(5)
    async with served(tmp_path) as (server, at):
        for _ in range(4):
            device = await Tcp.open(at)
            rest = whole
            while rest:
                size = dice.choice([1, 2, 730, 3000, 20_000])
                await device.send(rest[:size])
                rest = rest[size:]
                if dice.random() < 0.2:
                    await asyncio.sleep(0.002)
            assert await device.fetch(len(REPLY)) == REPLY
            await device.close()
            while server._pull4g is not None and len(server._pull4g):
                await asyncio.sleep(0.005)


async def lossy(at: Addresses, name: str, frames: bool, end: str) -> bytes:
    """Have a turn on connections that end in its midst, and return all the audio that came."""
    options = Options(framed=frames)
    device = await Tcp.open(at)
    recording = question()
    half = len(recording) // 2 + 1
    await device.send(pull4g.device_start(name, options, framed=False))
    if frames:
        await device.until(lambda: device.stream.framed)
    await device.send(pull4g.device_audio(recording[:half], frames))
    await asyncio.sleep(0.2)
    await device.close() if end == "fin" else device.reset()
    device = await Tcp.open(at)
    await device.send(pull4g.device_start(name, Options(framed=frames, offset=half - 777), framed=False))
    if frames:
        await device.comes(pull4g.Received)
        assert device.of(pull4g.Received)[0].count == half
    await device.send(pull4g.device_audio(recording[half - 777 :], frames), pull4g.device_complete(frames))
    had = b""
    for _ in range(3):
        await device.fetch(25_000, name, options)
        await device.answered()
        await asyncio.sleep(0.1)  # the kernel's acknowledgement
        had += device.audio
        device.reset() if end == "reset" else await device.close()
        device = await Tcp.open(at)
        again = Options(framed=frames, offset=len(had) if frames else None)
        await device.send(pull4g.device_request(name, again, framed=False))
        await device.comes(AudioEnd)
    await device.fetch(len(LONG) - len(had), name, options)
    await device.close()
    return had + device.audio


LONG = (babble(3) + bytes(-len(babble(3)) % 1920)) * 2


async def test_nothing_is_lost_when_the_link_is(tmp_path: Path) -> None:
    kinds = [(frames, end) for frames in (False, True) for end in ("fin", "reset")]
    longer = 'TTS.FakeTTS={"type": "fake", "delay_ms": 10, "seconds": 3}'
    async with served(tmp_path, longer) as (_, at):
        work = (lossy(at, f"02000000d0{number:02x}", *kind) for number, kind in enumerate(kinds))
        assert [answer == LONG for answer in await asyncio.gather(*work)] == [True] * 4


async def test_a_slow_reader_slows_down_and_loses_nothing(tmp_path: Path) -> None:
    longer = 'TTS.FakeTTS={"type": "fake", "delay_ms": 10, "seconds": 6}'
    reply = (babble(6) + bytes(-len(babble(6)) % 1920)) * 2
    async with served(tmp_path, longer, "server.pull4g.lead_ms=30000") as (server, at):
        host, _, port = at.pull4g.partition("://")[2].rpartition(":")
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        device = Tcp(*await asyncio.open_connection(sock=sock, limit=4096))
        await device.send(b"SESSION_START:0200000000F1\n", question(), b"RECORDING_COMPLETE\n")
        for _ in range(4):
            await device.send(b"REQUEST_AUDIO:0200000000F1\n")
            await asyncio.sleep(0.25)
        assert server._pull4g is not None
        assert server._pull4g._replies.used < 200_000, "what the line does not take is not made"
        assert await device.fetch(len(reply)) == reply
        await device.close()


async def test_interrupted_it_is_quiet_and_the_next_question_is_answered(tmp_path: Path) -> None:
    longer = 'TTS.FakeTTS={"type": "fake", "delay_ms": 10, "seconds": 5}'
    async with served(tmp_path, longer) as (_, at):
        device = await Tcp.open(at)
        for _ in range(3):
            await device.send(b"SESSION_START:0200000000F1\n", question(), b"RECORDING_COMPLETE\n")
            await device.send(b"REQUEST_AUDIO:0200000000F1\n")
            before = len(device.of(Audio))
            await device.comes(Audio, before)
            await device.send(b"INTERRUPT:0200000000F1\n")
            await device.answered()
            had, answers = len(device.audio), len(device.of(AudioEnd))
            await device.send(b"REQUEST_AUDIO:0200000000F1\n")
            await device.comes(AudioEnd, answers)
            assert len(device.audio) == had
        await device.close()


async def test_many_devices_at_once(tmp_path: Path) -> None:
    async def one(at: Addresses, number: int) -> bytes:
        device = await Tcp.open(at)
        name = f"0200000010{number:02x}"
        await device.send(
            pull4g.device_start(name, Options(), False), question(), pull4g.device_complete(False)
        )
        got = await device.fetch(len(REPLY), name)
        await device.close()
        return got

    async with served(tmp_path) as (server, at):
        assert set(await asyncio.gather(*(one(at, number) for number in range(20)))) == {REPLY}
        assert server.devices is not None
        assert len(server.devices) == 20


async def test_it_is_the_same_conversation_as_over_a_websocket(tmp_path: Path) -> None:
    mac = "02:00:00:00:00:f1"
    async with served(tmp_path) as (server, at):
        device = await Tcp.open(at)
        await device.send(b"SESSION_START:0200000000F1\n", question(), b"RECORDING_COMPLETE\n")
        await device.fetch(len(REPLY))
        async with connect(at.ws, mac, Client_Id="") as websocket:
            await websocket.hello()
            await device.ends()
            await device.close()
            await websocket.say(type="listen", state="detect", text="And tomorrow?")
            await websocket.until("tts", "stop", timeout_s=20)
            device = await Tcp.open(at)
            await device.send(b"REQUEST_AUDIO:0200000000F1\n")
            await websocket.until("close")
        assert server.devices is not None
        async with asyncio.timeout(5):
            while len(server.devices) > 1:
                await asyncio.sleep(0.01)
        session = server.devices.find(mac)
        assert session is not None
        kept = session._services.conversations.join(mac)
        asked = [message.content for message in kept.history if message.role is Role.USER]
        assert asked == ["What time is it?", "And tomorrow?"]
        session._services.conversations.leave(mac)
        await device.close()


async def test_turns_are_counted_as_those_of_others(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, at):
        device = await Tcp.open(at)
        await device.send(b"SESSION_START:0200000000F1\n", question(), b"RECORDING_COMPLETE\n")
        await device.fetch(len(REPLY))
        url = at.ota.replace("/xiaozhi/ota/", "/metrics")
        count = 0.0
        async with asyncio.timeout(15), aiohttp.ClientSession() as http:
            while not count:  # until it has been played
                await asyncio.sleep(0.3)
                async with http.get(url) as answer:
                    lines = (await answer.text()).splitlines()
                turns = [line for line in lines if line.startswith("mynah_turns_total")]
                count = sum(float(line.rsplit(" ", 1)[1]) for line in turns)
        assert count == 1
        await device.close()


async def test_a_message_of_the_house_is_fetched(tmp_path: Path) -> None:
    async with served(tmp_path) as (server, at):
        device = await Tcp.open(at)
        await device.send(b"REQUEST_AUDIO:0200000000F1\n")
        await device.comes(AudioEnd)
        assert server.devices is not None
        message = server.devices.announce("02:00:00:00:00:f1", "Dinner is ready.")
        assert await device.fetch(len(REPLY) // 2) == REPLY[: len(REPLY) // 2]
        assert message.state.value == "spoken"
        await device.close()


async def test_tokens_of_the_ota_reply(tmp_path: Path) -> None:
    mac, client = "02:00:00:00:00:f1", "6f0a-client"
    async with served(tmp_path, "server.auth.enabled=true") as (_, at):
        headers = {"Device-Id": mac, "Client-Id": client}
        async with (
            aiohttp.ClientSession() as http,
            http.post(at.ota, headers=headers, data=json.dumps({"application": {}})) as answer,
        ):
            token = (await answer.json(content_type=None))["websocket"]["token"]
        for options in (Options(), Options(token="wrong"), Options(token=token, client_id="other")):
            device = await Tcp.open(at)
            await device.send(pull4g.device_request(ID, options, False))
            await device.ends()
            assert [event.code.value for event in device.of(Failed)] == ["unauthorized"]
            await device.close()
        device = await Tcp.open(at)
        options = Options(token=token, client_id=client)
        await device.send(pull4g.device_start(ID, options, False), question(), pull4g.device_complete(False))
        assert await device.fetch(len(REPLY), options=options) == REPLY
        await device.close()


async def test_over_tls(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path)
    tls = (f"server.tls.cert={cert}", f"server.tls.key={key}")
    context = ssl.create_default_context(cafile=str(cert))
    async with served(tmp_path, *tls) as (_, at):
        device = await Tcp.open(at, ssl=context)
        await device.send(b"SESSION_START:0200000000F1\n", question(), b"RECORDING_COMPLETE\n")
        assert await device.fetch(len(REPLY)) == REPLY
        await device.close()
    async with served(tmp_path, *tls, "server.pull4g.tls=false") as (_, at):
        device = await Tcp.open(at)
        await device.send(b"REQUEST_AUDIO:0200000000F1\n")
        await device.comes(AudioEnd)
        await device.close()


async def test_it_need_not_be_served(tmp_path: Path) -> None:
    async with served(tmp_path, "server.pull4g.enabled=false") as (_, at):
        assert at.pull4g == ""
        assert "pull4g" not in at.ready_line()


async def test_a_server_that_stops_lets_a_reply_be_fetched(tmp_path: Path) -> None:
    async with served(tmp_path) as (server, at):
        device = await Tcp.open(at)
        await device.send(b"SESSION_START:0200000000F1\n", question(), b"RECORDING_COMPLETE\n")
        await device.send(b"REQUEST_AUDIO:0200000000F1\n")
        await device.until(lambda: bool(device.audio))
        stopping = asyncio.ensure_future(server.stop(drain_s=10))
        assert await device.fetch(len(REPLY)) == REPLY
        await device.ends()
        await stopping
        with pytest.raises(ConnectionError):
            await Tcp.open(at)
        await device.close()


async def test_idle_connections_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_pull4g, "IDLE_S", 0.3)
    monkeypatch.setattr(tcp_pull4g, "SWEEP_S", 0.05)
    async with served(tmp_path) as (_, at):
        device = await Tcp.open(at)
        await device.until(lambda: device.ended, timeout_s=5)
        assert device.raw == b""
        await device.close()
