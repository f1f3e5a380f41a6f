"""Points 92 and 93 of the device contract: time stamps for echo cancellation on the server."""

from __future__ import annotations

from pathlib import Path

from mynah.wire.frames import decode_audio, encode_audio
from tests.conformance.device import device, speech
from tests.servers import app

SHORT = "TTS.FakeTTS.seconds=0.3"


async def test_point_92_stamps_grow_through_the_whole_session(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws, headers={"Protocol-Version": "2"}) as one:
        await one.hello({"aec": True})
        for turn in range(3):
            await one.listen("detect", text="tell me something")
            if turn == 1:  # an interrupted reply must not give its stamps away a second time
                await one.until("tts", "sentence_start", count=4)
                await one.say(type="abort")
            await one.until("tts", "stop", count=turn + 1)
        stamps = [decode_audio(2, frame).timestamp for _, frame in one.frames()]
        assert len(stamps) > 20
        assert stamps[0] > 0
        assert stamps == sorted(set(stamps))


async def test_point_93_a_stamp_of_zero_means_no_reference(tmp_path: Path) -> None:
    async with app(tmp_path, SHORT) as (_, at), device(at.ws, headers={"Protocol-Version": "2"}) as one:
        await one.hello({"aec": True})
        for turn, stamp in enumerate((0, 60, 4_000_000_000)):  # none, a possible one, one that was never sent
            await one.listen(mode="manual")
            await one.audio((encode_audio(2, packet, stamp) for packet in speech()), pace=0.01)
            await one.listen("stop")
            await one.until("tts", "stop", count=turn + 1)
        assert len(one.messages("stt")) == 3
