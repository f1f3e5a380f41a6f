"""The server of devices that fetch: who may come in, who replaces whom, and who is shown the door."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah.net.pull_device import GONE_S
from mynah.net.pull_line import MAX_QUEUED_BYTES
from mynah.net.tcp_pull4g import CLOSE_GRACE_S, FLOOD_UNITS, FLOOD_WINDOW_S, IDLE_S, SETTLE_S, TURN_UNITS
from mynah.wire.pull4g import (
    Codec,
    DeviceStream,
    Options,
    device_audio,
    device_interrupt,
    device_request,
    device_start,
)
from tests.fakes import Script
from tests.net.pull_world import ID, SECOND, Modem, Socket, World, framed, soon
from tests.virtual_time import VirtualRunner, virtual
from tests.wire.pull4g_pieces import pieces

OTHER = "aabbccddee01"


# ---------------------------------------------------------------- what it takes in


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 200_000), max_size=20),
    st.sampled_from(["plain", "no newline", "framed", "adpcm"]),
)
def test_however_a_device_cuts_what_it_says(cuts: list[int], kind: str) -> None:
    """Commands, audio and the end of it in any pieces: the recogniser hears the same, and so does the user."""

    async def main() -> None:
        world = World()
        socket = Socket(world)
        match kind:
            case "plain":
                said = (
                    b"SESSION_START:AABBCCDDEEFF\r\n"
                    + SECOND
                    + b"RECORDING_COMPLETE\nREQUEST_AUDIO:AABBCCDDEEFF\n"
                )
            case "no newline":
                said = b"SESSION_START: AABBCCDDEEFF" + b"\x80" + SECOND[1:] + b"RECORDING_COMPLETE"
                said += b"REQUEST_AUDIO: AABBCCDDEEFF"
            case "framed":
                said = b"SESSION_START:AABBCCDDEEFF;frame=1\n\x02\x00\x7d\x00" + SECOND
                said += b"\x01\x00\x00\x12RECORDING_COMPLETE\x01\x00\x00\x1aREQUEST_AUDIO:AABBCCDDEEFF"
            case _:
                said = b"SESSION_START:AABBCCDDEEFF;codec=adpcm\n" + SECOND[:8000] + b"\nRECORDING_COMPLETE\n"
                said += b"REQUEST_AUDIO:AABBCCDDEEFF;codec=adpcm\n"
        for piece in pieces(said, cuts):
            socket.send(piece)
        for _ in range(8):
            await asyncio.sleep(0.5)
            socket.send(device_request(ID, Options(), socket.reader.framed))
        (heard,) = world.stage.asr.audio
        if kind in {"plain", "framed"}:
            assert heard in SECOND
            assert len(heard) > 0.9 * len(SECOND)
        assert len(heard) == pytest.approx(len(SECOND), rel=0.1)
        assert not socket.errors
        if kind != "adpcm":
            assert socket.audio == world.tts.made
        assert sum(socket.answers) == len(socket.audio) > 0
        await world.end()

    with VirtualRunner() as runner:
        runner.run(main())


@virtual
async def test_a_command_without_a_line_end_counts_after_a_moment() -> None:
    world = World()
    socket = Socket(world)
    socket.send(b"REQUEST_AUDIO:aabbccddeeff")
    await soon(SETTLE_S - 0.05)
    assert not socket.raw
    await soon(0.1)
    assert socket.answers == [0]
    socket.send(b"INTERRUPT:aabbccddeeff")
    socket.cut()
    await soon(1)
    assert len(world.server) == 0
    await world.end()


@virtual
async def test_a_connection_without_a_word_costs_no_conversation() -> None:
    world = World()
    socket = Socket(world)
    for said in (
        b"\n",
        b"\r\n",
        b"hello\n",
        b"RECORDING_COMPLETE\n",
        b"INTERRUPT:aabbccddeeff\n",
        b"SESSION_STA",
    ):
        socket.send(said)
    assert socket.errors == ["bad_command", "no_session"]
    assert not socket.is_closing()
    assert len(world.devices) == 0
    assert len(world.server) == 1
    assert not world.server.has("aa:bb:cc:dd:ee:ff")
    await world.end()


@virtual
async def test_what_cannot_be_understood_is_told_and_closed() -> None:
    world = World()
    socket = Socket(world)
    socket.send(b"GET / HTTP/1.1\x00\r\n")
    assert socket.errors == ["bad_command"]
    assert socket.is_closing()
    long = Socket(world)
    long.send(b"x" * 300)
    assert long.errors == ["bad_command"]
    assert long.is_closing()
    await world.end()


@virtual
async def test_a_command_that_is_wrong_does_no_more_than_say_so() -> None:
    world = World()
    modem = Modem(world)
    modem.poll()
    modem.socket.send(b"REQUEST_AUDIO:aabbccddeeff;rate=1\n")
    modem.socket.send(b"SESSION_START:12345\n")
    assert modem.socket.errors == ["bad_command", "bad_command"]
    modem.ask()
    await modem.fetch(5)
    assert modem.socket.audio == world.tts.made
    await world.end()


@virtual
async def test_an_error_never_comes_in_the_midst_of_plain_audio() -> None:
    world = World(Script(replies=[["A sentence that is long. "]], speech_s=6.0, tts_s=0.1))
    modem = Modem(world)
    modem.ask()
    for _ in range(12):
        modem.poll()
        await soon(0.1)
        modem.socket.send(b"nonsense\n")
        await soon(0.4)
    assert modem.socket.audio == world.tts.made
    assert modem.socket.errors == ["bad_command"] * 12
    await world.end()


@virtual
async def test_framed_mode_that_begins_while_a_poll_waits() -> None:
    world = World(Script(asr_s=1.0))
    modem = Modem(world)
    modem.ask()
    modem.poll()
    await soon(0.1)
    modem.options = framed()
    modem.ask()
    await modem.fetch(5)
    assert modem.socket.raw.startswith(b"AUDIO_START\nAUDIO_END\nSESSION_READY:")
    assert modem.socket.audio == world.tts.made
    await world.end()


# ---------------------------------------------------------------- who may come in


@pytest.mark.parametrize("command", ["start", "poll"])
@pytest.mark.parametrize("token", [None, "wrong"])
@virtual
async def test_without_the_right_token_nobody_comes_in(command: str, token: str | None) -> None:
    world = World()
    world.doorman.tokens = {"right": ""}
    modem = Modem(world, Options(token=token))
    modem.start() if command == "start" else modem.poll()
    assert modem.socket.errors == ["unauthorized"]
    assert modem.socket.is_closing()
    assert len(world.devices) == 0
    assert world.refused == ["no_token" if token is None else "wrong_token"]
    allowed = Modem(world, Options(token="right"))
    allowed.ask()
    assert await allowed.fetch(5) == world.tts.made
    await world.end()


@virtual
async def test_a_token_is_that_of_a_client_id() -> None:
    world = World()
    world.doorman.tokens = {"right": "client-7"}
    stranger = Modem(world, Options(token="right"))
    stranger.poll()
    assert stranger.socket.errors == ["unauthorized"]
    modem = Modem(world, Options(token="right", client_id="client-7"))
    modem.ask()
    assert await modem.fetch(5) == world.tts.made
    # On the same connection it need not be told again.
    modem.options = Options()
    modem.ask()
    await modem.fetch(5)
    assert not modem.socket.errors
    await world.end()


@virtual
async def test_an_interrupt_may_be_the_first_word_of_a_connection() -> None:
    world = World(Script(speech_s=6.0))
    world.doorman.tokens = {"right": "client-7"}
    modem = Modem(world, Options(token="right", client_id="client-7"))
    modem.ask()
    await modem.fetch(1)
    modem.socket.cut()
    modem.connect()
    modem.interrupt()
    assert not modem.socket.errors
    assert world.session.phase.value == "idle"
    await modem.fetch(2)
    assert modem.socket.audio == b""
    await world.end()


@virtual
async def test_a_device_without_an_owner_stays_outside() -> None:
    world = World()
    world.doorman.bound = False
    modem = Modem(world)
    modem.start()
    assert modem.socket.errors == ["unauthorized"]
    assert world.refused == ["not_bound"]
    await world.end()


@pytest.mark.parametrize("token", [None, "wrong"])
@virtual
async def test_a_thief_gets_nothing_and_ends_nothing(token: str | None) -> None:
    world = World(Script(speech_s=2.0))
    world.doorman.tokens = {"right": ""}
    modem = Modem(world, Options(token="right"))
    modem.ask()
    await modem.fetch(1)
    for act in ("poll", "start", "interrupt"):
        thief = Modem(world, Options(token=token))
        getattr(thief, act)()
        await soon()
        assert thief.socket.errors == ["unauthorized"]
        assert not thief.socket.audio
    assert not modem.socket.is_closing()
    await modem.fetch(5)
    assert modem.socket.audio == world.tts.made
    await world.end()


@virtual
async def test_another_client_id_under_the_same_chip_id_finds_nothing() -> None:
    """Where no tokens are asked for, a chip id is no secret: what was said to one is not told to another."""
    world = World(Script(speech_s=2.0))
    modem = Modem(world, Options(client_id="mine"))
    modem.ask()
    await modem.fetch(1)
    other = Modem(world, Options(client_id="theirs"))
    other.poll()
    await soon(0.5)
    assert other.socket.audio == b""
    assert modem.socket.is_closing(), "as everywhere, the newer connection replaces the older"
    assert world.session.kept_as != "aa:bb:cc:dd:ee:ff"
    modem.connect()
    modem.poll()
    assert world.session.kept_as == "aa:bb:cc:dd:ee:ff"
    assert world.history[0] == "hello there"
    await world.end()


@virtual
async def test_a_connection_is_that_of_one_device() -> None:
    world = World()
    modem = Modem(world)
    modem.ask()
    modem.device_id = OTHER
    modem.poll()
    assert modem.socket.errors == ["bad_command"]
    assert modem.socket.is_closing()
    assert not world.server.has("aa:bb:cc:dd:ee:01")
    await world.end()


@virtual
async def test_a_full_server_says_busy_and_stays_open() -> None:
    world = World(room=1)
    first = Modem(world, device_id=OTHER)
    first.poll()
    modem = Modem(world)
    modem.ask()
    modem.poll()
    assert set(modem.socket.errors) == {"busy", "no_session"}
    assert not modem.socket.is_closing()
    first.socket.cut()
    await soon(GONE_S + 2)
    modem.poll()
    assert modem.socket.answers == [0], "now there is room"
    await world.end()


@virtual
async def test_a_server_that_is_ending_takes_no_new_conversation_and_finishes_the_old() -> None:
    world = World(Script(speech_s=1.0))
    modem = Modem(world)
    modem.ask()
    waiting = Socket(world)
    await soon(0.2)
    await world.server.stop()
    await soon()
    assert waiting.is_closing(), "it had not said a word"
    draining = asyncio.ensure_future(world.devices.drain(10))
    await soon()
    late = Modem(world, device_id=OTHER)
    late.poll()
    assert late.socket.errors == ["busy"]
    await modem.fetch(5)
    await draining
    assert modem.socket.audio == world.tts.made
    assert modem.socket.is_closing()
    await world.end()


@virtual
async def test_nobody_waits_for_who_has_gone_when_it_ends() -> None:
    world = World()
    modem = Modem(world)
    modem.poll()
    modem.socket.cut()
    await soon(1)
    await asyncio.wait_for(world.devices.drain(10), 1)
    await world.end()


# ---------------------------------------------------------------- who is shown the door


@virtual
async def test_who_is_silent_for_long_is_closed_and_an_empty_line_is_a_word() -> None:
    world = World()
    silent, alive = Socket(world), Socket(world)
    talked = Modem(world)
    talked.poll()
    for _ in range(round(IDLE_S / 10) + 1):
        await soon(10)
        alive.send(b"\n")
    assert silent.is_closing()
    assert talked.socket.is_closing()
    assert not alive.is_closing()
    assert len(world.server) == 1
    await soon(GONE_S)
    assert len(world.devices) == 0
    await world.end()


@virtual
async def test_who_reads_nothing_does_not_keep_a_closed_connection() -> None:
    world = World(Script(speech_s=6.0))
    modem = Modem(world)
    modem.ask()
    modem.socket.stalled = True
    await modem.fetch(2)
    await soon(IDLE_S)
    assert modem.socket.is_closing()
    assert not modem.socket.lost, "what was written may still arrive"
    await soon(CLOSE_GRACE_S + 2)
    assert modem.socket.lost
    assert len(world.server) == 0
    await world.end()


@virtual
async def test_who_sends_commands_and_reads_no_answers_is_cut() -> None:
    world = World()
    modem = Modem(world)
    modem.socket.stalled = True
    most = 0
    while not modem.socket.lost:
        for _ in range(300):
            modem.poll()
            most = max(most, modem.socket.get_write_buffer_size())
        await soon(8)
    assert most <= MAX_QUEUED_BYTES
    await world.end()


@pytest.mark.parametrize(
    ("what", "units"), [("poll", 1), ("interrupt", 1 + TURN_UNITS), ("nonsense", 1), ("empty", 1)]
)
@virtual
async def test_a_flood_of_commands_ends_the_connection(what: str, units: int) -> None:
    world = World()
    modem = Modem(world)
    said = {
        "poll": device_request(ID, Options(), False),
        "interrupt": device_interrupt(ID, False),
        "nonsense": b"nonsense\n",
        "empty": b"\n",
    }[what]
    count = 0
    while not modem.socket.is_closing():
        modem.socket.send(said)
        count += 1
        assert count <= FLOOD_UNITS
    assert count == pytest.approx(FLOOD_UNITS / units, abs=1)
    assert modem.socket.errors[-1] == "busy"
    await world.end()


@virtual
async def test_what_is_too_much_is_not_read_to_its_end() -> None:
    """As much as one read can bring, by somebody who was not let in: it must not hold up the others."""
    world = World()
    for said in (
        device_start(ID, Options(), False),
        b"\x02\x00\x00\x00",
        b"\x02\x00\x00\x01x",
        b"\x03\x00\x00\x04\x00\x00\x00\x00",
    ):
        modem = Modem(world)
        if said[0] < 32:
            modem.socket.send(b"SESSION_START:" + ID.replace(":", "").encode() + b";frame=1;codec=none\n")
        begin = time.process_time()
        modem.socket.send(said * (256_000 // len(said)))
        assert time.process_time() - begin < 0.3  # it takes a tenth of that
        assert modem.socket.is_closing()
        assert modem.socket.errors[-1] == "busy"
        await soon(1)
    await world.end()


@virtual
async def test_frames_after_a_long_stall_are_no_flood() -> None:
    world = World()
    modem = Modem(world, Options(codec=Codec.OPUS, framed=True))
    modem.start()
    for _ in range(20):
        modem.socket.send(device_audio(b"\xf8\xff\xfe", True) * 50)
    assert not modem.socket.is_closing()
    await world.end()


@virtual
async def test_strangers_cannot_take_all_places() -> None:
    world = World(connections=400)
    strangers = [Socket(world) for _ in range(300)]
    assert len(world.server) == 200
    assert [socket.is_closing() for socket in strangers] == [True] * 100 + [False] * 200
    modem = Modem(world)
    modem.poll()
    assert not modem.socket.is_closing()
    await world.end()


@virtual
async def test_a_client_id_is_made_fit_for_terminals() -> None:
    world = World()
    modem = Modem(world, Options(framed=True, client_id="c" * 90))
    modem.poll()
    assert len(world.session.kept_as) <= 17 + 1 + 64
    await world.end()


@virtual
async def test_who_polls_as_it_should_is_no_flood() -> None:
    world = World()
    modem = Modem(world)
    for _ in range(20):
        modem.ask()
        for _ in range(20):
            modem.poll()
            await soon(FLOOD_WINDOW_S / 40)
    assert not modem.socket.errors
    await world.end()


@virtual
async def test_where_there_are_too_many_who_has_not_said_its_name_makes_room() -> None:
    world = World(connections=3)
    named = Modem(world)
    named.poll()
    nameless = [Socket(world) for _ in range(2)]
    assert not any(socket.is_closing() for socket in nameless)
    more = [Socket(world) for _ in range(4)]
    assert len(world.server) == 3
    assert [socket.is_closing() for socket in [*nameless, *more]] == [True] * 4 + [False] * 2
    assert not named.socket.is_closing()
    others = [Modem(world, device_id=f"aabbccddee{number:02x}") for number in (1, 2)]
    for modem in others:
        modem.poll()
    late = Socket(world)
    assert late.is_closing(), "all that are here have a name"
    assert not any(modem.socket.is_closing() for modem in [named, *others])
    await soon()
    assert len(world.server) == 3
    await world.end()


# ---------------------------------------------------------------- both ends in any pieces


@settings(max_examples=30)
@given(st.lists(st.integers(0, 200_000), max_size=30), st.booleans())
def test_a_device_reads_the_same_however_the_answers_are_cut(cuts: list[int], frames: bool) -> None:
    async def main() -> None:
        world = World()
        modem = Modem(world, framed(text=True) if frames else Options(text=True))
        modem.ask()
        await modem.fetch(4)
        again = DeviceStream()
        events: list[Any] = []
        for piece in pieces(modem.socket.raw, cuts):
            events += again.feed(piece)
        copy = Socket(world)
        copy.events = [(0.0, event) for event in events]
        assert copy.audio == world.tts.made == modem.socket.audio
        assert copy.answers == modem.socket.answers
        await world.end()

    with VirtualRunner() as runner:
        runner.run(main())


@virtual
async def test_answers_come_in_the_order_of_questions() -> None:
    world = World(Script(replies=[["A sentence that is long. "]], speech_s=6.0))
    modem = Modem(world, framed(Codec.ADPCM))
    modem.ask()
    asked = 0
    for number in range(60):
        for _ in range(number % 4):
            modem.poll()
            asked += 1
        await soon(0.2)
    await soon(1)
    assert len(modem.socket.answers) == asked
    times = [at for at, _ in modem.socket.events]
    assert all(before <= after for before, after in pairwise(times))
    await world.end()
