"""One light device against servers that do what a test tells them to, sound or not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import WSCloseCode

from mynah.sim.load import device as module
from mynah.sim.load import talker
from mynah.sim.load.crowd import Crowd
from mynah.sim.load.device import NO_HELLO, NO_TRANSPORT, _duration_s
from mynah.sim.load.record import Stage
from mynah.sim.load.talker import NO_TRANSCRIPT
from mynah.wire.frames import encode_audio
from mynah.wire.messages import ListenMode

from ..scripted import Connection, Script, ScriptedServer, packets, silent
from .crowds import crowd, until


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talker, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr("mynah.sim.load.crowd._AGAIN_S", (0.0, 0.1))


@asynccontextmanager
async def facing(
    script: Script, talkers: int = 0, **changed: Any
) -> AsyncIterator[tuple[Crowd, ScriptedServer]]:
    """One device that talks to a server with this script."""
    async with ScriptedServer(script).running() as server, crowd(server.ws_url, 1, talkers, **changed) as one:
        yield one, server


async def test_it_says_hello_as_firmware_does() -> None:
    async with facing(silent, protocol=3) as (one, server):
        await until(lambda: one.tally.connected)
        said = server.connections[0].received[0]
        assert said["type"] == "hello"
        assert said["version"] == 3
        assert said["transport"] == "websocket"
        assert said["audio_params"] == {
            "format": "opus",
            "sample_rate": 16000,
            "channels": 1,
            "frame_duration": 60,
        }
        headers = server.connections[0].headers
        assert headers["Protocol-Version"] == "3"
        assert headers["Device-Id"].startswith("02:")
        assert headers["Host"] == "127.0.0.1"
        assert one.tally.times[Stage.CONNECT].distribution().count == 1
        assert one.tally.times[Stage.HELLO].distribution().count == 1


@pytest.mark.parametrize(
    ("mode", "protocol"), [(ListenMode.AUTO, 1), (ListenMode.MANUAL, 2), (ListenMode.REALTIME, 3)]
)
async def test_a_turn(mode: ListenMode, protocol: int) -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        listen = await connection.until("listen", state="start")
        assert (listen["mode"], listen["session_id"]) == (mode, "s1")
        if mode is ListenMode.MANUAL:
            await connection.until("listen", state="stop")
            assert len(connection.audio) == 5 + 3, "the words and three packets more"
        else:
            await connection.audio_frames(6)
        await connection.answer("hello", 8)
        if mode is ListenMode.AUTO:
            await connection.until("listen", state="start")
        await connection.drain()

    async with facing(script, 1, mode=mode, protocol=protocol, pause_s=(9.0, 9.0)) as (one, server):
        await until(lambda: one.tally.turns)
        tally = one.look()
        assert (tally.answered, tally.errors, tally.faults) == (1, {}, {})
        assert tally.received == 8
        assert (tally.dry, tally.overflow) == (0, 0)
        assert set(tally.times) == set(Stage) - {Stage.OTA}
        assert tally.times[Stage.FIRST_AUDIO].largest < tally.times[Stage.ANSWER].largest
        assert tally.times[Stage.ANSWER].largest < tally.times[Stage.TURN].largest
        if mode is ListenMode.AUTO:
            await until(lambda: len(server.connections[0].received) == 3)
        assert server.connections[0].protocol == protocol


async def test_a_flood_does_not_fit_into_it_and_a_pause_is_heard() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.send("tts", state="start")
        for packet in packets(50):
            await connection.send_audio(packet)
        await connection.send("tts", state="stop")
        await connection.send("tts", state="start")
        await connection.send_audio(packets(1)[0])
        await asyncio.sleep(0.3)
        await connection.send_audio(packets(1)[0])
        await connection.send("tts", state="stop")
        await connection.drain()

    async with facing(script) as (one, _):
        await until(lambda: one.tally.received == 52)
        assert 4 <= one.tally.overflow <= 7, "it plays while they come"
        assert one.tally.dry >= 1
        assert 200 < one.tally.worst_gap_ms < 5000


async def test_a_reply_that_goes_on_is_judged_as_far_as_it_has_come() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.send("tts", state="start")
        for packet in packets(30):
            await connection.send_audio(packet)
            await asyncio.sleep(0.06)
        await connection.drain()

    async with facing(script) as (one, _):
        await until(lambda: one.tally.received >= 5)
        one.hold()
        await until(lambda: one.tally.received >= 7)
        assert one.tally.jitter.distribution().count == 0
        tally = one.settle()
        assert 0 < tally.jitter.distribution().count < tally.received, "none that came before"


async def test_late_packets_are_counted_when_the_reply_is_over() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.send("tts", state="start")
        begun = time.monotonic()
        for number, packet in enumerate(packets(24)):
            late = 0.04 if number == 12 else 0.0
            await asyncio.sleep(begun + max(0, number - 3) * 0.06 + late - time.monotonic())
            await connection.send_audio(packet)
        assert not counted(), "not before it is over"
        await connection.send("tts", state="stop")
        await connection.drain()

    def counted() -> int:
        return one.tally.jitter.distribution().count

    async with facing(script) as (one, _):
        await until(counted)
        assert counted() <= 21, "the lead has no rhythm"
        assert one.tally.late >= 1
        assert one.tally.jitter.largest > 25


async def test_what_a_device_suffers_is_counted() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.socket.send_str('{"type": "hello", "transport": "websocket"}')
        await connection.socket.send_str("{")
        await connection.socket.send_bytes(packets(1)[0])
        await connection.send("tts", state="stop")
        await connection.send("tts", state="start")
        await connection.send("tts", state="start")
        await connection.socket.send_bytes(b"\x03\x00")
        await connection.send("tts", state="stop")
        await connection.drain()

    async with facing(script) as (one, _):
        await until(lambda: "bad_payload" in one.tally.faults)
        assert one.tally.received == 2
        assert one.tally.faults == {
            "second_hello": 1, "unreadable_messages": 1, "stray_audio": 1, "stop_without_start": 1,
            "second_start": 1, "bad_payload": 1,
        }  # fmt: skip
        assert one.tally.connected == 1, "nothing of that ends the connection"


async def test_a_hello_that_makes_firmware_crash() -> None:
    async def script(connection: Connection) -> None:
        await connection.until("hello")
        await connection.socket.send_str('{"type": "hello", "session_id": "x"}')
        await connection.drain()

    async with facing(script) as (one, _):
        await until(lambda: one.tally.errors)
        assert one.tally.errors == {NO_TRANSPORT: 1}
        assert one.tally.faults == {"hello_without_transport": 1}
        assert (one.tally.attempted, one.tally.succeeded, one.tally.connected) == (1, 0, 0)


async def test_a_server_that_hangs_up_without_a_hello() -> None:
    async def script(connection: Connection) -> None:
        await connection.until("hello")
        assert connection.socket._req is not None
        assert connection.socket._req.transport is not None
        connection.socket._req.transport.close()

    async with facing(script) as (one, _):
        await until(lambda: one.tally.errors)
        assert one.tally.errors == {NO_HELLO: 1}


@pytest.mark.parametrize("in_a_turn", [False, True])
async def test_a_busy_server_is_no_broken_one(in_a_turn: bool) -> None:
    async def script(connection: Connection) -> None:
        await connection.until("hello")
        if in_a_turn:
            await connection.socket.send_str('{"type": "hello", "transport": "websocket"}')
            await connection.audio_frames(3)
        await connection.socket.close(code=WSCloseCode.TRY_AGAIN_LATER)

    async with facing(script, int(in_a_turn)) as (one, server):
        await until(lambda: one.tally.busy)
        assert (one.tally.busy, one.tally.lost, one.tally.turns, one.tally.errors) == (1, 0, 0, {})
        assert (one.tally.attempted, one.tally.succeeded) == (int(in_a_turn),) * 2
        assert one.tally.connected == 0
        await asyncio.sleep(0.3)
        assert len(server.connections) == 1, "it does not come back at once"


async def test_a_connection_that_is_lost_in_a_turn_fails_the_turn_and_comes_back() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        if len(server.connections) == 1:
            await connection.audio_frames(3)
            await connection.socket.close(code=1011)
        else:
            await connection.drain()

    async with facing(script, 1) as (one, server):
        await until(lambda: one.tally.lost)
        assert one.tally.errors == {"closed with 1011": 1}
        assert (one.tally.turns, one.tally.answered) == (1, 0)
        await until(lambda: one.tally.connected)
        assert (one.tally.attempted, one.tally.succeeded) == (2, 2)


async def test_an_idle_connection_may_be_closed_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        if len(server.connections) < 3:
            await asyncio.sleep(0.2)
            await connection.socket.close()
        else:
            await connection.drain()

    monkeypatch.setattr("mynah.sim.load.crowd.IDLE_S", 0.1)
    async with facing(script) as (one, server):
        await until(lambda: one.tally.succeeded == 3)
        assert (one.tally.hung_up, one.tally.lost, one.tally.errors) == (2, 0, {})


async def test_fragments_are_put_together_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        writer = connection.socket._writer
        assert writer is not None and writer.transport is not None
        text = json.dumps({"type": "tts", "state": "start", "pad": "x" * 50}).encode()
        huge = b"{" + b" " * 100
        for payload, opcode, fin in (
            (huge, 1, 0), (huge, 0, 0), (b"}", 0, 1), (b"late", 0, 1), (text[:20], 1, 0), (text[20:], 0, 1)
        ):  # fmt: skip
            writer.transport.write(bytes([opcode | fin << 7, len(payload)]) + payload)
        await connection.send_audio(packets(1)[0])
        await connection.send("tts", state="stop")
        await connection.drain()

    monkeypatch.setattr(module, "MAX_FRAGMENTED_BYTES", 150)
    async with facing(script) as (one, _):
        await until(lambda: one.tally.received)
        assert one.tally.faults == {}, "`tts start` was understood"


async def test_a_server_that_does_not_say_what_it_understood() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.audio_frames(6)
        await connection.answer("hello", 2, stt=None)
        await connection.drain()

    async with facing(script, 1) as (one, _):
        await until(lambda: one.tally.turns)
        assert one.tally.errors == {NO_TRANSCRIPT: 1}


def test_lengths_of_packets() -> None:
    packet = packets(1)[0]
    for protocol in (1, 2, 3):
        framed = encode_audio(protocol, packet)
        assert _duration_s(framed, protocol) == 0.06
        if protocol > 1:
            assert _duration_s(framed[:-1], protocol) == 0.0
            assert _duration_s(framed[:3], protocol) == 0.0
    assert _duration_s(b"\x03", 1) == 0.0
    assert _duration_s(b"", 1) == 0.0
