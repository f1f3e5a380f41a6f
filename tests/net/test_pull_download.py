"""Polls and their answers: how long they wait, what is in them, and what is sent again after a lost link."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah.audio.adpcm import AdpcmDecoder
from mynah.audio.opus import OpusDecoder
from mynah.net.pull_download import HOLD_S
from mynah.net.pull_line import HIGH_WATER
from mynah.net.pull_reply import KEPT_S
from mynah.wire.pull4g import Audio, AudioEnd, AudioStart, Codec, Heard, Options, Said, ServerEvent
from tests.fakes import Script
from tests.net.pull_world import FRAME, SECOND, Modem, Socket, World, framed, soon
from tests.virtual_time import VirtualRunner, virtual

SLOW = 1.0
"""Of a recogniser: longer than a poll may wait."""


def long_reply(sentences: int = 8, seconds: float = 2.0) -> Script:
    return Script(
        replies=[[f"Sentence number {number} is here. " for number in range(sentences)]], speech_s=seconds
    )


def ends(socket: Socket) -> list[bool]:
    return [end.final for end in socket.of(AudioEnd)]


def when(socket: Socket, kind: type[ServerEvent]) -> list[float]:
    return [at for at, event in socket.events if isinstance(event, kind)]


# ---------------------------------------------------------------- how long a poll waits


@virtual
async def test_who_has_nothing_to_come_is_answered_at_once() -> None:
    world = World()
    modem = Modem(world)
    for _ in range(3):
        modem.poll()
        assert modem.socket.answers.pop() == 0
    assert modem.socket.raw == b"AUDIO_START\nAUDIO_END\n" * 3
    await world.end()


@virtual
async def test_audio_leaves_as_soon_as_there_is_some() -> None:
    world = World(Script(asr_s=0.1, tts_s=0.1))
    modem = Modem(world)
    loop = asyncio.get_running_loop()
    modem.ask()
    began = loop.time()
    modem.poll()
    await soon(1)
    assert when(modem.socket, Audio)[0] - began == pytest.approx(0.2, abs=0.03)
    assert when(modem.socket, AudioEnd)[0] - began <= HOLD_S + 0.001
    await modem.fetch()
    assert modem.socket.audio == world.tts.made
    await world.end()


@virtual
async def test_a_poll_waits_no_longer_than_to_the_next() -> None:
    world = World(Script(asr_s=SLOW))
    modem = Modem(world)
    modem.ask()
    began = asyncio.get_running_loop().time()
    modem.poll()
    await soon(0.44)
    assert not modem.socket.events
    await soon(0.02)
    assert modem.socket.answers == [0]
    assert when(modem.socket, AudioEnd)[0] - began == pytest.approx(HOLD_S)
    await modem.fetch()
    assert modem.socket.audio == world.tts.made
    await world.end()


@virtual
async def test_polls_in_a_burst_get_one_answer_each_and_the_newest_waits() -> None:
    world = World(Script(asr_s=SLOW))
    modem = Modem(world)
    modem.ask()
    for _ in range(5):
        modem.poll()
    await soon()
    assert modem.socket.answers == [0, 0, 0, 0]
    await soon(0.5)
    assert modem.socket.answers == [0] * 5
    await soon(5)
    assert len(modem.socket.answers) == 5, "no answer without a question"
    assert not modem.socket.audio
    await modem.fetch()
    assert modem.socket.audio == world.tts.made
    await world.end()


@virtual
async def test_a_poll_while_the_recording_still_comes_in_is_answered_at_once_and_promises_more() -> None:
    world = World()
    modem = Modem(world, framed())
    modem.start()
    modem.talk()
    modem.poll()
    assert modem.socket.answers == [0]
    assert ends(modem.socket) == [False], "a reply will come"
    modem.talk(SECOND)
    modem.complete()
    assert len(world.recorder.turns) == 0
    await modem.fetch()
    assert modem.socket.audio == world.tts.made
    assert len(world.stage.asr.audio[0]) == pytest.approx(2 * len(SECOND), rel=0.1), "the poll did not end it"
    await world.end()


@virtual
async def test_a_poll_while_a_long_recording_waits_for_its_credit_promises_more() -> None:
    world = World()
    modem = Modem(world, framed())
    modem.ask(SECOND * 30)
    modem.poll()
    await soon(0.5)
    assert ends(modem.socket) == [False]
    await modem.fetch(30)
    assert modem.socket.audio == world.tts.made
    await world.end()


@virtual
async def test_who_waits_when_the_last_words_turn_out_to_be_the_last_does_not_wait_on() -> None:
    """The model says nothing more for a while, and then that this was all."""
    world = World(Script(replies=[["One sentence only, that is all. ", 0.2]], speech_s=0.3))
    modem = Modem(world, framed())
    modem.ask()
    modem.poll()
    await soon(2)
    assert ends(modem.socket) == [True]
    assert when(modem.socket, AudioEnd)[0] - when(modem.socket, AudioStart)[0] == pytest.approx(
        0.15, abs=0.06
    )
    await world.end()


# ---------------------------------------------------------------- a long reply


@virtual
async def test_a_long_reply_comes_in_several_answers_and_nothing_is_lost() -> None:
    world = World(long_reply())
    modem = Modem(world, framed())
    modem.ask()
    got = await modem.fetch(20)
    assert got == world.tts.made
    assert len(got) == 8 * 34 * FRAME
    answers, final = modem.socket.answers, ends(modem.socket)
    assert sum(1 for count in answers if count) > 15
    last = max(number for number, count in enumerate(answers) if count)
    assert not any(final[:last]), "it is said to be complete when it is, and not when there is a lot already"
    assert all(final[last:])
    assert world.recorder.turns[0].answer.endswith("number 7 is here.")
    await world.end()


@virtual
async def test_the_device_is_never_further_ahead_than_the_lead() -> None:
    world = World(long_reply(), lead_ms=2000)
    modem = Modem(world)
    modem.ask()
    began = 0.0
    for _ in range(40):
        modem.poll()
        await soon(0.5)
        times = when(modem.socket, Audio)
        began = began or (times[0] if times else 0.0)
        if began:
            ahead = len(modem.socket.audio) / 32000 - (asyncio.get_running_loop().time() - began)
            assert ahead <= 2.1
    assert modem.socket.audio == world.tts.made
    assert world.stage.pacer.stats.restarts == 0
    await world.end()


@virtual
async def test_who_polls_seldom_gets_it_all_the_same() -> None:
    world = World(long_reply(4))
    modem = Modem(world)
    modem.ask()
    assert await modem.fetch(120, every=10) == world.tts.made
    await world.end()


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
@virtual
async def test_pcm_of_any_rate_has_the_length_of_what_was_said(rate: int) -> None:
    world = World(Script(replies=[["Just one sentence."]], speech_s=2.0))
    modem = Modem(world, Options(rate=rate))
    modem.start()
    # The scripted services hear 16 kHz only; what is said is what counts here.
    modem.interrupt()
    world.session.say("Just one sentence.")
    got = await modem.fetch(10)
    assert len(got) % 2 == 0
    assert len(got) / 2 / rate == pytest.approx(2.0, abs=0.07)
    await world.end()


@virtual
async def test_adpcm_is_the_same_audio_in_a_quarter_of_the_bytes() -> None:
    world = World(long_reply(3))
    modem = Modem(world, Options(codec=Codec.ADPCM))
    modem.poll()
    world.session.say("Something.")
    got = await modem.fetch(10)
    heard = AdpcmDecoder().decode(got)
    assert len(heard) == len(world.tts.made) + -len(world.tts.made) % FRAME
    await world.end()


@virtual
async def test_opus_is_one_packet_per_frame() -> None:
    world = World(Script(speech_s=1.2))
    modem = Modem(world, framed(Codec.OPUS))
    modem.poll()
    world.session.say("Something.")
    await modem.fetch(5)
    decoder = OpusDecoder(16000)
    assert sum(len(decoder.decode(event.data)) for event in modem.socket.of(Audio)) == 20 * FRAME
    await world.end()


# ---------------------------------------------------------------- a slow line


@virtual
async def test_a_line_that_stands_still_is_filled_to_its_mark_and_no_further() -> None:
    world = World(long_reply())
    modem = Modem(world)
    modem.ask()
    modem.socket.stalled = True
    await modem.fetch(3)
    waits = modem.socket.get_write_buffer_size()
    assert HIGH_WATER < waits < HIGH_WATER + 2 * FRAME + 200
    turn = world.session
    assert turn.phase.value == "replying"
    modem.socket.go()
    await modem.fetch(30)
    assert modem.socket.audio == world.tts.made
    await world.end()


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 40_000), st.integers(1, 20)), min_size=5, max_size=40))
def test_however_slow_the_line_is_the_audio_is_what_was_sent(pulses: list[tuple[int, int]]) -> None:
    async def main() -> None:
        world = World(long_reply(3))
        modem = Modem(world)
        modem.ask()
        modem.socket.stalled = True
        for count, pause in pulses:
            modem.poll()
            await asyncio.sleep(pause / 20)
            modem.socket.flow(count)
        modem.socket.go()
        await modem.fetch(15)
        assert modem.socket.audio == world.tts.made
        assert modem.socket.answers  # brackets and audio in order
        await world.end()

    with VirtualRunner() as runner:
        runner.run(main())


@virtual
async def test_what_a_slow_line_still_holds_was_not_heard() -> None:
    world = World(long_reply(4))
    modem = Modem(world)
    modem.ask()
    modem.socket.stalled = True
    await modem.fetch(6)
    # Half a second fits in front of a line that stands still. What is in it counts as on its way.
    modem.interrupt()
    assert world.recorder.turns[0].interrupted
    assert world.recorder.turns[0].answer in {"", "Sentence…"}
    modem.socket.go()
    await world.end()


# ---------------------------------------------------------------- text


@virtual
async def test_text_comes_where_it_is_wanted_and_never_inside_audio() -> None:
    world = World(long_reply(4, 0.5))
    modem = Modem(world, Options(text=True))
    modem.ask()
    await modem.fetch()
    assert modem.socket.of(Heard) == [Heard("hello there")]
    assert [said.text for said in modem.socket.of(Said)] == [
        f"Sentence number {n} is here." for n in range(4)
    ]
    assert modem.socket.audio == world.tts.made
    silent = Modem(world, device_id="aabbccddee01")
    silent.ask()
    await silent.fetch()
    assert not silent.socket.of(Heard)
    assert not silent.socket.of(Said)
    await world.end()


@virtual
async def test_text_that_came_while_the_link_was_lost_comes_before_the_audio() -> None:
    world = World(Script(asr_s=SLOW))
    modem = Modem(world, framed(text=True))
    modem.ask()
    modem.socket.cut()
    await soon(3)
    modem.connect()
    await modem.fetch()
    kinds = [type(event) for _, event in modem.socket.events]
    assert kinds.index(Heard) < kinds.index(AudioStart)
    assert modem.socket.audio == world.tts.made
    await world.end()


# ---------------------------------------------------------------- the link is lost


@pytest.mark.parametrize("lost", [0, 1, 500, FRAME, 8000, 16000])
@virtual
async def test_a_plain_device_goes_on_at_the_byte_that_had_arrived(lost: int) -> None:
    world = World(long_reply(4))
    modem = Modem(world)
    modem.ask()
    await modem.fetch(2)
    first = modem.socket
    first.stalled = True
    modem.poll()
    await soon(0.2)
    first.flow(max(first.get_write_buffer_size() - lost, 0))
    first.cut()
    await soon(1)
    modem.connect()
    await modem.fetch(20)
    assert first.audio + modem.socket.audio == world.tts.made
    await world.end()


@settings(max_examples=30)
@given(st.integers(0, 200_000), st.booleans(), st.integers(0, 4000))
def test_a_framed_device_says_where_to_go_on(offset: int, acknowledges: bool, gone_ms: int) -> None:
    async def main() -> None:
        world = World(long_reply(4))
        modem = Modem(world, framed())
        modem.ask()
        for _ in range(6):
            modem.poll()
            await asyncio.sleep(0.5)
            if acknowledges:
                modem.acknowledge(min(len(modem.socket.audio), offset))
        had = modem.socket.audio[:offset]  # a proxy took the rest, and lost it
        modem.socket.cut()
        await asyncio.sleep(gone_ms / 1000)
        modem.connect()
        modem.poll(len(had))
        await asyncio.sleep(0.5)
        assert len(modem.socket.audio) > 0
        for _ in range(30):
            modem.poll(len(had) + len(modem.socket.audio))
            if acknowledges:
                modem.acknowledge(len(had) + len(modem.socket.audio))
            await asyncio.sleep(0.5)
        assert had + modem.socket.audio == world.tts.made
        assert ends(modem.socket)[-1]
        await world.end()

    with VirtualRunner() as runner:
        runner.run(main())


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 3000)), max_size=6))
def test_lost_again_and_again(losses: list[tuple[int, int]]) -> None:
    """Each time some polls go well, then so many bytes are on their way when it breaks off."""

    async def main() -> None:
        world = World(long_reply(4))
        modem = Modem(world, framed())
        modem.ask()
        had = b""
        for polls, lost in losses:
            for _ in range(polls):
                modem.poll(len(had) + len(modem.socket.audio))
                await asyncio.sleep(0.3)
            modem.socket.stalled = True
            modem.poll()
            await asyncio.sleep(0.1)
            modem.socket.flow(max(modem.socket.get_write_buffer_size() - lost, 0))
            had += modem.socket.audio
            modem.socket.cut()
            await asyncio.sleep(0.5)
            modem.connect()
            modem.poll(len(had))
        for _ in range(50):
            modem.poll()
            await asyncio.sleep(0.5)
        assert had + modem.socket.audio == world.tts.made
        await world.end()

    with VirtualRunner() as runner:
        runner.run(main())


@virtual
async def test_the_last_bytes_are_sent_again_also_when_the_reply_is_over() -> None:
    world = World(Script(replies=[["Short answer here."]], speech_s=0.6))
    modem = Modem(world, framed())
    modem.ask()
    await modem.fetch(10)
    assert world.session.phase.value == "idle"
    modem.socket.cut()
    await soon(20)
    modem.connect()
    modem.poll(5000)
    await soon()
    assert modem.socket.audio == world.tts.made[5000:]
    assert ends(modem.socket) == [True]
    modem.poll(5000)
    await soon()
    assert modem.socket.answers == [len(world.tts.made) - 5000, 0], "on the same connection nothing was lost"
    await world.end()


@virtual
async def test_packets_are_sent_again_whole() -> None:
    world = World(Script(replies=[["Short answer here."]], speech_s=1.2))
    modem = Modem(world, framed(Codec.OPUS))
    modem.poll()
    world.session.say("Something.")
    await modem.fetch(5)
    packets = [event.data for event in modem.socket.of(Audio)]
    modem.socket.cut()
    await soon()
    modem.connect()
    modem.poll(len(b"".join(packets[:7])) + 1)
    await soon(1)
    assert [event.data for event in modem.socket.of(Audio)] == packets[7:]
    await world.end()


@virtual
async def test_an_offset_of_another_reply_does_no_harm() -> None:
    """The device got half of a reply, and while it was away another one began."""
    world = World(Script(replies=[["Something rather long is said."]], speech_s=2.0))
    modem = Modem(world, framed())
    modem.ask()
    await modem.fetch(1)
    modem.socket.cut()
    await soon(0.1)
    link = next(iter(world.server._devices.values()))
    link.on_interrupt()
    world.tts.made = b""
    world.session.say("News.")
    await soon(1)
    modem.connect()
    modem.poll(20_000)
    await soon(0.5)
    await modem.fetch(10)
    assert modem.socket.audio == world.tts.made
    await world.end()


@virtual
async def test_what_was_not_received_was_not_heard() -> None:
    world = World(long_reply(4))
    modem = Modem(world, framed())
    modem.ask()
    await modem.fetch(3)
    assert len(modem.socket.audio) > 5 * 32000
    modem.socket.cut()
    await soon(20)
    modem.connect()
    modem.poll(32000)  # one second is all it has
    modem.interrupt()
    assert world.history[-1] == "Sentence…"
    await world.end()


# ---------------------------------------------------------------- how long it is kept


@virtual
async def test_a_reply_is_kept_for_a_minute_after_its_end_and_then_nothing_of_it() -> None:
    world = World(Script(replies=[["Short answer here."]]))
    modem = Modem(world)
    modem.ask()
    await modem.fetch(5)
    assert world.kept() == len(world.tts.made)
    for _ in range(5):
        await soon(10)
        modem.poll()
    assert world.kept() > 0
    await soon(KEPT_S - 45)
    assert world.kept() == 0, "polls for nothing do not keep it"
    modem.poll()
    assert modem.socket.answers[-1] == 0
    await world.end()


@virtual
async def test_a_reply_that_nobody_fetches_is_dropped_after_a_minute() -> None:
    world = World()
    modem = Modem(world)
    modem.ask()
    for _ in range(13):
        modem.socket.send(b"\n")
        await soon(5)
    assert world.session.phase.value == "idle"
    assert world.kept() == 0
    assert world.recorder.turns[0].interrupted
    modem.poll()
    await soon(1)
    assert modem.socket.answers == [0]
    await world.end()


@virtual
async def test_who_fetches_slowly_is_waited_for() -> None:
    world = World(long_reply(4))
    modem = Modem(world)
    modem.ask()
    modem.socket.stalled = True
    for _ in range(60):
        modem.poll()
        await soon(5)
        modem.socket.flow(10_000)
    modem.socket.go()
    await modem.fetch(3)
    assert modem.socket.audio == world.tts.made
    await world.end()


@virtual
async def test_two_replies_are_two_answers() -> None:
    """An announcement begins when a reply ends; the device could not tell where, if both came in one answer."""
    world = World(Script(replies=[["One sentence and then nothing for long. ", 0.75]], speech_s=0.6))
    modem = Modem(world, framed())
    modem.ask()
    await soon(0.2)
    world.session.say("Dinner is ready.")
    while not world.recorder.turns:
        modem.poll()
        await soon(0.05)
    first = len(world.recorder.turns[0].answer) and modem.socket.audio
    assert first == world.tts.made[: len(first)]
    await modem.fetch(5)
    assert modem.socket.audio == world.tts.made
    boundary = round(0.6 * 32000)
    so_far = 0
    sums = [so_far := so_far + count for count in modem.socket.answers]
    assert boundary in sums
    await world.end()
