"""The device against a stand-in server, on virtual time: what it says when, and how it goes on after a lost link."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from mynah.errors import ConfigError, WireError
from mynah.sim.link import ConnectError
from mynah.sim.pull4g.codec import Form
from mynah.sim.pull4g.device import PullDevice
from mynah.sim.pull4g.record import FORGOTTEN, LOST_RECORDING, Policy, PullState
from mynah.wire import pull4g
from mynah.wire.pull4g import Codec, ErrorCode
from tests.virtual_time import settle, virtual

from .tower import FRAMED, PIECES, PLAIN, SAID, WORDS, FakeLine, Tower, device

QUARTER = bytes(range(256)) * 31 + bytes(64)
"""0.25 s of PCM: 8000 bytes."""

forms = pytest.mark.parametrize("form", [PLAIN, FRAMED], ids=["plain", "framed"])


def speaks(tower: Tower, reply: bytes, size: int = 8000) -> None:
    """Let the server answer each question with this, a piece for each poll, from wherever the device wants it."""
    state = {"at": 0, "asked": False}

    def on_poll(line: FakeLine, request: pull4g.Request) -> None:
        if request.options.offset is not None:
            state["at"] = request.options.offset
        piece = reply[state["at"] : state["at"] + size]
        state["at"] += len(piece)
        line.bracket(piece, final=state["at"] >= len(reply))

    tower.on_poll = on_poll


@virtual
async def test_it_connects_ahead_of_time_and_only_shows_that_it_is_there() -> None:
    tower = Tower()
    one = device(tower)
    await asyncio.sleep(200)
    assert [type(event) for _, event in tower.line.events] == [pull4g.KeepAlive] * 3
    assert tower.line.times(pull4g.KeepAlive) == [60, 120, 180]
    assert (one.state, one.connected, one.keeper.connections.tried) == (PullState.IDLE, True, 1)
    await one.close()
    assert tower.line.closed


@virtual
async def test_it_polls_for_thirty_seconds_after_it_was_woken() -> None:
    tower = Tower()
    one = device(tower)
    await settle()
    one.activate()
    await asyncio.sleep(20)
    one.activate()
    await asyncio.sleep(100)
    polls = tower.line.times(pull4g.Request)
    assert polls[:3] == [0, 0.5, 1.0]
    assert max(later - earlier for earlier, later in itertools.pairwise(polls)) == 0.5
    assert 49 <= polls[-1] <= 50, "30 s after the second time"
    await one.close()


@forms
@virtual
async def test_a_turn(form: Form) -> None:
    tower = Tower()
    speaks(tower, QUARTER * 8)
    one = device(tower, form, token="t0")
    turn = await one.ask(WORDS)
    line = tower.line
    (start,) = line.of(pull4g.Start)
    assert start.device_id == "02:00:00:00:00:07"
    assert (start.options.token, start.options.client_id) == ("t0", one.identity.client)
    assert (start.options.framed, start.options.text) == (form.framed, True)
    assert line.audio == SAID
    assert line.times(pull4g.RecordingComplete) == [0.6], "recorded in real time"
    polls = line.times(pull4g.Request)
    assert polls[:2] == [0.6, 1.1], "the first at once, then twice a second, and none while recording"
    assert turn.ok
    assert turn.reply is not None
    assert bytes(turn.reply.data) == QUARTER * 8
    assert turn.reply.seconds == pytest.approx(2.0)
    assert (one.state, turn.resumed, turn.first_audio_s) == (PullState.IDLE, 0, pytest.approx(0, abs=0.01))
    # Eight pieces of 0.25 s come 0.5 s apart: there is a gap in front of each but the first.
    assert turn.reply.late == one.faults.underruns == 7
    acknowledged = [event.count for event in line.of(pull4g.Acknowledge)]
    assert acknowledged == ([8000 * n for n in range(1, 9)] if form.framed else [])
    await one.close()


@virtual
async def test_after_a_first_command_the_token_is_told_no_more() -> None:
    tower = Tower()
    one = device(tower, FRAMED, token="t0")
    await settle()
    one.activate()
    await asyncio.sleep(1.2)
    tokens = [event.options.token for event in tower.line.of(pull4g.Request)]
    assert tokens == ["t0", None, None]
    await one.close()


@virtual
async def test_three_unanswered_polls_are_a_lost_link() -> None:
    tower = Tower()
    one = device(tower)
    await settle()
    tower.dead = True
    one.activate()
    await asyncio.sleep(1.4)
    assert one.connected
    await asyncio.sleep(0.2)
    assert not one.connected
    assert (one.faults.dead_links, one.faults.unanswered_polls) == (1, 3)
    assert tower.line.closed
    tower.dead = False
    await asyncio.sleep(2)
    assert one.connected
    assert (one.keeper.connections.tried, one.keeper.connections.lost) == (2, 1)
    await one.close()


@pytest.mark.parametrize("after_s", [0.1, 0.35, 0.58])
@forms
@virtual
async def test_a_recording_goes_on_where_it_was(form: Form, after_s: float) -> None:
    tower = Tower()
    speaks(tower, QUARTER)
    one = device(tower, form)
    asking = asyncio.create_task(one.ask(WORDS))
    await asyncio.sleep(after_s)
    first = tower.line
    tower.received -= min(tower.received, 130)  # what was on its way is lost, and a part of a piece with it
    had = tower.received
    first.cut()
    turn = await asking
    second = tower.line
    assert second is not first
    assert turn.ok
    assert turn.resumed == 1
    starts = second.of(pull4g.Start)
    assert starts[0].options.offset == 0
    if form.framed:
        assert starts[-1].options.offset == had
        assert first.audio[:had] + second.audio == SAID, "not a byte twice, and none missing"
    else:
        assert len(starts) == 1
        assert second.audio == SAID, "the server skips what it has"
    assert one.faults.resent_recordings == 1
    await one.close()


@forms
@virtual
async def test_a_reply_goes_on_where_it_was(form: Form) -> None:
    tower = Tower()
    speaks(tower, QUARTER * 6)
    one = device(tower, form)
    asking = asyncio.create_task(one.ask(WORDS))
    await asyncio.sleep(1.3)
    first = tower.line
    assert one.state is PullState.PLAYING
    first.cut()
    turn = await asking
    assert turn.ok
    assert turn.reply is not None
    assert bytes(turn.reply.data) == QUARTER * 6
    offsets = [event.options.offset for event in tower.line.of(pull4g.Request)]
    assert offsets[0] == 16000, "two pieces had come"
    assert set(offsets[1:]) == {None}
    assert tower.line.of(pull4g.Start) == []
    await one.close()


@virtual
async def test_a_device_written_from_the_seed_alone() -> None:
    tower = Tower()
    speaks(tower, QUARTER)
    one = device(tower, FRAMED, seed_only=True, token="t0")
    assert (one.form.codec, one.form.framed) == (Codec.PCM, False)
    turn = await one.ask(WORDS)
    assert turn.ok
    bare = pull4g.Options()
    assert {event.options for event in tower.line.of(pull4g.Start) + tower.line.of(pull4g.Request)} == {bare}

    asking = asyncio.create_task(one.ask(WORDS))
    await asyncio.sleep(0.3)
    tower.line.cut()
    turn = await asking
    assert turn.error == LOST_RECORDING
    assert one.faults.lost_recordings == 1

    await asyncio.sleep(3)
    speaks(tower, QUARTER * 4)
    asking = asyncio.create_task(one.ask(WORDS))
    await asyncio.sleep(1.3)
    assert one.state is PullState.PLAYING
    tower.line.cut()
    await asking
    assert tower.line.of(pull4g.Request)[0].options == bare, "it polls on, and knows of no offset"
    await one.close()


@forms
@virtual
async def test_interrupting(form: Form) -> None:
    tower = Tower()
    speaks(tower, QUARTER * 40)
    one = device(tower, form)
    asking = asyncio.create_task(one.ask(WORDS))
    await asyncio.sleep(2.2)
    line = tower.line
    assert one.state is PullState.PLAYING
    tower.on_poll = lambda line, _: line.say(
        pull4g.audio_start(line.framed), pull4g.audio(QUARTER, line.framed)
    )
    await asyncio.sleep(0.5)  # a poll is being answered …
    again = one.press(WORDS)
    await settle()
    assert len(line.of(pull4g.Interrupt)) == 1
    turn = await asking
    assert (turn.interrupted, turn.ok, turn.reply and turn.reply.interrupted) == (True, False, True)
    line.say(
        pull4g.audio(QUARTER, line.framed), pull4g.audio_end(line.framed)
    )  # … and its rest comes afterwards
    assert one.faults.audio_after_interrupt == 0
    speaks(tower, QUARTER)
    while not again.over:
        await one.changed()
    assert again.ok
    assert again.reply is not None
    assert bytes(again.reply.data) == QUARTER
    await one.close()


@virtual
async def test_a_server_that_does_not_stop_is_found_out() -> None:
    tower = Tower()
    speaks(tower, QUARTER * 40)
    one = device(tower)
    one.press(WORDS)
    await asyncio.sleep(2.2)
    one.interrupt()
    await asyncio.sleep(1)
    assert one.faults.audio_after_interrupt > 0
    assert one.state is PullState.IDLE
    tower.line.say(pull4g.audio(QUARTER, True))
    assert one.faults.audio_outside == 1
    tower.line.say(b"\x01\x00\x00\x05hello")
    assert one.faults.unknown_lines == 1
    await one.close()


@virtual
async def test_pressed_without_a_connection_it_says_all_of_it_later() -> None:
    tower = Tower()
    tower.down = True
    speaks(tower, QUARTER)
    one = device(tower)
    await asyncio.sleep(3)
    tried = len(tower.tried)
    asking = asyncio.create_task(one.ask(WORDS, timeout_s=60))
    await settle()
    assert len(tower.tried) == tried + 1, "it does not wait for the end of the pause"
    await asyncio.sleep(2)
    tower.down = False
    turn = await asking
    assert turn.ok
    assert tower.line.audio == SAID
    assert tower.line.of(pull4g.Start)[0].options.offset is None
    await one.close()


@virtual
async def test_held_down_it_records_until_it_is_released() -> None:
    tower = Tower()
    speaks(tower, QUARTER)
    one = device(tower)
    await settle()
    turn = one.press(WORDS, hold=True)
    await asyncio.sleep(2)
    assert one.state is PullState.RECORDING
    assert tower.line.of(pull4g.RecordingComplete) == []
    one.release()
    while not turn.over:
        await one.changed()
    assert turn.ok
    assert tower.line.times(pull4g.RecordingComplete) == [2.0]
    await one.close()


@pytest.mark.parametrize(
    ("code", "fate"),
    [
        (ErrorCode.UNAUTHORIZED, "unauthorized: why"),
        (ErrorCode.BUSY, "busy: why"),
        (ErrorCode.BAD_COMMAND, "bad_command: why"),
    ],
)
@virtual
async def test_a_refusal_ends_the_turn(code: ErrorCode, fate: str) -> None:
    tower = Tower()
    one = device(tower)
    asking = asyncio.create_task(one.ask(WORDS))
    await asyncio.sleep(0.2)
    tower.line.say(pull4g.error(code, "why", tower.line.framed))
    turn = await asking
    assert turn.error == fate
    assert (one.state, one.faults.errors) == (PullState.IDLE, 1)
    assert one.refused is not None
    tower.line.cut()
    await asyncio.sleep(5)
    assert len(tower.lines) == (1 if code is ErrorCode.UNAUTHORIZED else 2), (
        "it waits long where it is not wanted"
    )
    await one.close()


@virtual
async def test_a_recording_that_is_too_long_is_answered_as_far_as_it_goes() -> None:
    tower = Tower()
    speaks(tower, QUARTER)
    one = device(tower)
    asking = asyncio.create_task(one.ask(WORDS))
    await asyncio.sleep(0.3)
    tower.line.say(pull4g.error(ErrorCode.TOO_LARGE, "60 s", True))
    turn = await asking
    assert turn.ok
    assert len(tower.line.audio) < len(SAID)
    assert tower.line.of(pull4g.RecordingComplete) == []
    await one.close()


@virtual
async def test_a_server_that_was_started_anew_has_forgotten_the_answer() -> None:
    tower = Tower()
    speaks(tower, QUARTER * 10)
    one = device(tower)
    asking = asyncio.create_task(one.ask(WORDS))
    await asyncio.sleep(1.3)
    tower._announce = lambda line, framed: (  # type: ignore[method-assign]
        line.say(pull4g.ready("s2", False)) if framed and not line.framed else None,
        setattr(line, "framed", True),
    )
    tower.line.cut()
    turn = await asking
    assert turn.error == FORGOTTEN
    await one.close()


@pytest.mark.parametrize(
    ("on_poll", "error"),
    [
        (lambda line, _: line.bracket(final=True), "no answer came"),
        (lambda line, _: line.bracket(), "no answer came within 12 s"),
    ],
    ids=["told so", "waited in vain"],
)
@virtual
async def test_no_answer(on_poll: Any, error: str) -> None:
    tower = Tower()
    tower.on_poll = on_poll
    one = device(tower)
    turn = await one.ask(WORDS, timeout_s=12)
    assert turn.error == error
    assert (one.state, turn.ok, turn.first_audio_s) == (PullState.IDLE, False, None)
    await one.close()


@virtual
async def test_an_answer_that_nobody_asked_for_is_played_too() -> None:
    tower = Tower()
    speaks(tower, QUARTER)
    one = device(tower)
    turn = await one.ask(WORDS)
    assert turn.ok
    heard = []
    tower.on_poll = lambda line, _: (
        (line.bracket(QUARTER * 2, final=True), heard.append(1)) if not heard else line.bracket()
    )
    await asyncio.sleep(3)
    assert [bytes(reply.data) for reply in one.hearing.replies] == [QUARTER, QUARTER * 2]
    assert turn.reply is one.hearing.replies[0]
    assert one.state is PullState.IDLE
    await one.close()


async def test_arguments_that_make_no_sense() -> None:
    with pytest.raises(ConnectError, match="looks like tcp://host:10002"):
        PullDevice("ws://host/")
    with pytest.raises(ConfigError, match="Opus needs framed mode"):
        PullDevice("tcp://host", form=Form(Codec.OPUS, framed=False))
    with pytest.raises(WireError, match="token is too long"):
        PullDevice("tcp://host", token="x" * 250)
    assert Policy().backoff_s == (1, 2, 4, 8, 16, 30)
    assert len(PIECES) == 10
