"""The JSON dialect over real sockets: everything as text, from ``device_info`` to the last ``tts_audio``."""

from __future__ import annotations

import base64
from pathlib import Path

import aiohttp
import pytest

from mynah.audio.opus import packet_duration_ms
from mynah.security.tokens import AuthReason, AuthResult
from mynah.sim.voice import speak
from tests.conformance.device import FRAME_BYTES, Device, device, silence, speech
from tests.servers import app

SHORT = "TTS.FakeTTS.seconds=0.3"
NOBODY = {"Device-Id": "", "Client-Id": "", "Protocol-Version": ""}


def b64(audio: bytes) -> str:
    return base64.b64encode(audio).decode()


async def introduce(one: Device, device_id: str = "02:00:00:00:00:01") -> dict[str, object]:
    await one.say(type="device_info", device_id=device_id, client_id="esp32_001", version="1.6.1")
    return await one.until("session_ready")


def played(one: Device) -> list[bytes]:
    return [base64.b64decode(message["data"]) for message in one.messages("tts_audio")]


async def test_a_whole_conversation(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (server, at), device(at.ws, headers=NOBODY) as one:
        ready = await introduce(one)
        assert isinstance(ready["session_id"], str)
        assert ready["config"] == {"vad_threshold": 0.5, "max_audio_length": 60000}
        assert server.devices is not None
        assert [session.device_id for session in server.devices] == ["02:00:00:00:00:01"]
        await one.say(type="heartbeat", timestamp=1640995200000)
        assert (await one.until("heartbeat_ack"))["timestamp"] == 1640995200000
        for turn in range(2):  # audio after the reply is heard again, without any listen
            for packet in (*speech(), *silence()):
                await one.say(type="audio", format="opus", sample_rate=16000, data=b64(packet))
                await one.quiet(0.03)
            await one.wait(lambda: sum(m["is_final"] for m in one.messages("tts_audio")) == turn + 1)  # noqa: B023
            await one.until("tts", "stop", count=turn + 1)
        assert [m["text"] for m in one.messages("stt")] == ["What time is it?"] * 2
        assert not one.frames()  # nothing binary
        packets = played(one)
        assert len(packets) > 10
        assert {packet_duration_ms(packet) for packet in packets} == {60, 20}
        assert not one.messages("hello")


async def test_the_device_may_end_its_utterance_itself(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws, headers=NOBODY) as one:
        await introduce(one)
        for packet in speech():
            await one.say(type="audio", data=b64(packet))
            await one.quiet(0.01)
        await one.say(type="audio", data="", is_final=True)
        assert (await one.until("stt"))["text"]
        await one.until("tts", "stop")


@pytest.mark.parametrize("rate", [16000, 8000, 48000])
async def test_pcm_is_taken_at_other_rates_too(tmp_path: Path, rate: int) -> None:
    from mynah.audio.pcm import resample

    pcm = resample(speak("What time is it?"), 16000, rate)
    step = FRAME_BYTES * rate // 16000
    async with app(tmp_path, SHORT) as (_, at), device(at.ws, headers=NOBODY) as one:
        await introduce(one)
        for start in range(0, len(pcm), step):
            last = start + step >= len(pcm)
            part = b64(pcm[start : start + step])
            await one.say(type="audio", format="pcm", sample_rate=rate, data=part, is_final=last)
            await one.quiet(0.03)
        assert (await one.until("stt"))["text"]
        await one.until("tts", "stop")


async def test_audio_without_introduction_speaks_the_dialect_too(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (server, at), device(at.ws) as one:
        for packet in speech():
            await one.say(type="audio", data=b64(packet))
            await one.quiet(0.01)
        await one.say(type="audio", is_final=True)
        await one.until("stt")
        await one.until("tts", "stop")
        assert one.messages("session_ready")
        assert one.messages("tts_audio")[0]["sample_rate"] == 16000  # that of the voice, not the usual one
        assert not one.frames()
        assert server.devices is not None
        assert server.devices.say("02:00:00:00:00:01", "tea is ready")


@pytest.mark.parametrize("first", ["listen", "audio", "mcp"])
async def test_nobody_changes_his_dialect(tmp_path: Path, first: str) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws) as one:
        if first == "listen":
            await one.listen(mode="manual")
        elif first == "audio":
            await one.socket.send_bytes(speech()[0])
        else:
            await one.say(type="mcp", payload={})
        await one.say(type="device_info", device_id="02:00:00:00:00:09")
        await one.say(type="audio", data=b64(speech()[0]))
        await one.listen("detect", text="hi")
        await one.until("tts", "stop")
        assert one.frames() and not one.messages("tts_audio")


async def test_the_first_message_decides(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws) as one:
        await one.hello()
        await one.say(type="device_info", device_id="02:00:00:00:00:09")
        await one.listen("detect", text="hi")
        await one.until("tts", "stop")
        assert one.frames() and not one.messages("tts_audio")
        assert not one.messages("session_ready")


async def test_bad_audio_is_ignored(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws) as one:
        await introduce(one)
        for data in ("?", "AAA", "A" * 120_000, 7, None, []):
            await one.say(type="audio", data=data)
            await one.say(type="audio", format="pcm", sample_rate=1, data=data)
        await one.say(type="audio", format="mp3", data="AAAA")
        await one.alive()


async def test_an_abort_ends_the_reply_with_a_final_message(tmp_path: Path) -> None:
    async with app(tmp_path, "TTS.FakeTTS.seconds=2") as (_, at), device(at.ws) as one:
        await introduce(one)
        await one.listen("detect", text="tell me something")
        await one.until("tts_audio", count=3)
        await one.say(type="abort")
        await one.until("tts", "stop")
        assert one.messages("tts_audio")[-1]["is_final"]
        assert await one.quiet(0.3) == []


async def test_the_handshakes_id_wins(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, at), device(at.ws, "02:00:00:00:00:03") as one:
        assert server.devices is not None
        await introduce(one, "02:00:00:00:00:04")
        assert [session.device_id for session in server.devices] == ["02:00:00:00:00:03"]


async def test_a_device_that_introduces_itself_replaces_its_older_connection(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, at), device(at.ws, headers=NOBODY) as older:
        await introduce(older)
        async with device(at.ws, headers=NOBODY) as newer:
            await introduce(newer)
            await older.wait(lambda: older.closed, 5)
            await newer.alive()
            assert server.devices is not None
            assert len(server.devices) == 1


async def test_nobody_becomes_a_device_that_its_token_is_not_for(tmp_path: Path) -> None:
    async with app(tmp_path, "server.auth.enabled=true") as (server, at):
        async with aiohttp.ClientSession() as http:
            # A token for a client without a device: good for that client, and for no device at all.
            answer = await (await http.post(at.ota, json={}, headers={"Client-Id": "web"})).json()
        token = {
            "Authorization": f"Bearer {answer['websocket']['token']}",
            "Client-Id": "web",
            "Device-Id": "",
        }
        async with device(at.ws, headers=token) as one:
            await one.say(type="device_info", device_id="02:00:00:00:00:05", client_id="other")
            await one.until("session_ready")  # the client id of the handshake stands
        async with aiohttp.ClientSession() as http:
            ask = {"Device-Id": "02:00:00:00:00:06", "Client-Id": "x"}
            answer = await (await http.post(at.ota, json={}, headers=ask)).json()
        query = f"?authorization={answer['websocket']['token']}&device-id=02:00:00:00:00:06&client-id=x"
        async with device(at.ws + query, headers=NOBODY) as one:
            await introduce(one, "02:00:00:00:00:05")
            assert server.devices is not None
            assert "02:00:00:00:00:06" in {session.device_id for session in server.devices}


async def test_who_claims_a_name_that_is_not_its_own_is_sent_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with app(tmp_path) as (server, at), device(at.ws, headers=NOBODY) as one:
        assert server.devices is not None
        refused = AuthResult(False, AuthReason.NOT_BOUND)
        monkeypatch.setattr(server.devices._authenticator, "check", lambda *args, **more: refused)
        await one.say(type="device_info", device_id="02:00:00:00:00:05")
        await one.wait(lambda: one.closed, 5)
        assert one.socket.close_code == 1008
        assert not one.messages("session_ready")
