"""Whole conversations with the real server, over real sockets."""

from __future__ import annotations

import asyncio
import json
import wave
from pathlib import Path

import pytest

from mynah.audio.pcm import write_wav
from mynah.sim.conversation import Said
from mynah.sim.discovery import DeviceIdentity
from mynah.sim.link import ConnectError, TokenRefusedError
from mynah.sim.pull4g.codec import Form, words
from mynah.sim.pull4g.conversation import PullTarget, converse_pull, probe
from mynah.sim.pull4g.device import PullDevice
from mynah.sim.pull4g.record import Policy, PullTurn
from mynah.sim.talk import TalkOptions, run
from mynah.sim.voice import speak
from mynah.wire.pull4g import Codec
from tests.servers import FAKES, app, serve

SHORT = ("TTS.FakeTTS.seconds=0.1", "server.pull4g_port=0")
QUESTION = "Time?"

pytestmark = [pytest.mark.e2e, pytest.mark.speech]


@pytest.fixture(scope="module")
def pcm() -> bytes:
    return speak(QUESTION)


@pytest.mark.parametrize(
    "form",
    [Form(Codec.PCM, framed=False), Form(Codec.OPUS), Form(Codec.ADPCM, 24000)],
    ids=["plain pcm", "framed opus", "framed adpcm"],
)
async def test_turns(form: Form, pcm: bytes, tmp_path: Path) -> None:
    async with app(tmp_path, *SHORT) as (_, at):
        target = PullTarget(url=at.pull4g, form=form)
        found = await converse_pull(target, [Said(QUESTION, pcm)] * (2 if form.framed else 1))
    assert {turn.error for turn in found.turns} == {""}
    for turn in found.turns:
        assert turn.stt
        assert turn.answer.startswith("Sure,")
        assert turn.audio_seconds > 0.3
        assert turn.first_audio_ms is not None
        assert 0 < turn.first_audio_ms < 10_000
        assert {span.name for span in turn.timeline} >= {"speech", "microphone", "first_audio", "reply"}
    assert len(found.audio()) / 2 / form.rate == pytest.approx(
        sum(turn.audio_seconds for turn in found.turns), abs=0.1
    )
    assert (found.counters.stray_audio, found.counters.unreadable_messages) == (0, 0)
    assert set(found.stages) == {"connect", "hello"}
    assert [message.type for message in found.messages][:3] == ["listen", "listen", "stt"]


@pytest.mark.parametrize("form", [Form(Codec.PCM, framed=False), Form(Codec.ADPCM)], ids=["plain", "framed"])
async def test_cut_off_again_and_again_nothing_is_missing(form: Form, pcm: bytes, tmp_path: Path) -> None:
    said = words(pcm, form)
    async with app(tmp_path, *SHORT) as (_, at):
        sound = PullDevice(at.pull4g, DeviceIdentity("02:00:00:00:00:01"), form=form)
        shaken = PullDevice(
            at.pull4g, DeviceIdentity("02:00:00:00:00:02"), form=form, policy=Policy(backoff_s=(0.05,))
        )
        for one in (sound, shaken):
            one.start()

        async def shake(turn: asyncio.Task[PullTurn]) -> None:
            while not turn.done():
                await asyncio.sleep(0.21)
                shaken.keeper.lose("shaken")

        asking = asyncio.create_task(shaken.ask(said))
        turn, expected, _ = await asyncio.gather(asking, sound.ask(said), shake(asking))
        await asyncio.gather(sound.close(), shaken.close())
    assert (turn.error, expected.error) == ("", "")
    assert turn.resumed >= 3
    assert turn.reply is not None
    assert expected.reply is not None
    assert len(turn.reply.data) > 3000
    assert turn.reply.data == expected.reply.data
    assert (
        shaken.faults.audio_outside == shaken.faults.audio_after_interrupt == shaken.faults.unknown_lines == 0
    )


async def test_the_token_comes_from_the_ota_address(pcm: bytes, tmp_path: Path) -> None:
    async with app(tmp_path, *SHORT, "server.auth.enabled=true") as (_, at):
        found = await converse_pull(PullTarget(ota_url=at.ota), [Said(QUESTION, pcm)])
        assert found.turns[0].error == ""
        assert "discover" in found.stages
        with pytest.raises(TokenRefusedError, match="unauthorized"):
            await converse_pull(PullTarget(url=at.pull4g), [Said(QUESTION, pcm)])
        with pytest.raises(TokenRefusedError, match="unauthorized"):
            await probe(PullTarget(url=at.pull4g, token="wrong"))


async def test_a_server_without_it(tmp_path: Path) -> None:
    async with app(tmp_path, "server.pull4g.enabled=false") as (_, at):
        assert at.pull4g == ""
        with pytest.raises(ConnectError, match=r"is server\.pull4g\.enabled true there"):
            await converse_pull(PullTarget(ota_url=at.ota), [])
        with pytest.raises(ConnectError, match="is it a server of the 4G pull protocol"):
            await probe(
                PullTarget(url=at.ws.replace("ws:", "tcp:").removesuffix("/xiaozhi/v1/"), timeout_s=2)
            )


def test_talk(pcm: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reply, question = tmp_path / "reply.wav", tmp_path / "question.wav"
    write_wav(question, pcm, 16000)
    with serve(tmp_path, *SHORT, config=FAKES) as server:
        options = TalkOptions(url=server.ready["pull4g"], transport="pull4g", wav=(question,), save=reply)
        assert run(options) == 0
        out = capsys.readouterr().out
        for part in (
            "↑ listen start manual",
            "↑ audio: ",
            "× Opus",
            "↓ stt",
            "↓ tts sentence_start",
            "saved ",
        ):
            assert part in out
        with wave.open(str(reply)) as wav:
            assert (wav.getframerate(), wav.getnchannels()) == (16000, 1)
            assert wav.getnframes() > 4000
        options = TalkOptions(
            ota=server.ready["ota"], transport="pull4g", wav=(question,), json=True, framed=False
        )
        assert run(options) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["ok"] is True
        assert told["answer"].startswith("Sure,")
        assert told["audio_seconds"] > 0.3
        assert not any(told["counters"].values())
