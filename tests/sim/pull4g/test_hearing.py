"""Text and the end of a reply, as a device hears them."""

from __future__ import annotations

import asyncio

from mynah.sim.pull4g.hearing import MAX_KEPT
from mynah.wire import pull4g
from tests.virtual_time import settle, virtual

from .test_device import QUARTER
from .tower import FRAMED, PLAIN, WORDS, FakeLine, Tower, device

LONG = "一二三四五六七八九十" * 20


@virtual
async def test_words_that_take_several_lines() -> None:
    tower = Tower()
    tower.on_poll = lambda line, _: line.say(
        pull4g.stt(LONG, line.framed),
        pull4g.sentence("Short.", line.framed),
        pull4g.sentence(LONG, line.framed),
        pull4g.audio_start(line.framed),
        pull4g.audio(QUARTER, line.framed),
        pull4g.audio_end(line.framed, True),
    )
    one = device(tower, FRAMED)
    turn = await one.ask(WORDS)
    assert (turn.stt, turn.sentences) == (LONG, ["Short.", LONG])
    await one.close()


@virtual
async def test_plain_mode_waits_for_silence_and_goes_on_when_it_was_wrong() -> None:
    tower = Tower()
    polls = []

    def on_poll(line: FakeLine, _: pull4g.Request) -> None:
        polls.append(asyncio.get_running_loop().time())
        line.bracket(QUARTER if len(polls) in {1, 2, 9} else b"")

    tower.on_poll = on_poll
    one = device(tower, PLAIN)
    turn = await one.ask(WORDS)
    assert turn.ok
    assert len(polls) in {5, 6}, "two with audio, three without once it was played"
    await asyncio.sleep(5)
    assert turn.reply is not None
    assert bytes(turn.reply.data) == QUARTER * 3
    assert len(one.hearing.replies) == 1
    await one.close()


@virtual
async def test_only_so_many_replies_are_kept() -> None:
    tower = Tower()
    tower.on_poll = lambda line, _: line.bracket(QUARTER, final=True)
    one = device(tower)
    await settle()
    for _ in range(3):
        one.activate()
        await asyncio.sleep(29)
    assert len(one.hearing.replies) == MAX_KEPT
    await one.close()
